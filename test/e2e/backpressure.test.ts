// Watermarks, overflow, stalled readers and flooding senders: memory has a bound, and no byte is lost on the way.

import { type Conn, type Handlers, type Listener, NetError, stats, type Task } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  allClosed,
  connect,
  deferred,
  expectBytes,
  KiB,
  MiB,
  mainTransports,
  type Peer,
  pieces,
  randomBytes,
  randomInt,
  rejection,
  serve,
  sleep,
  tcp4,
  turn,
  until,
  within,
} from './harness.ts'

const named = mainTransports.map((transport) => [transport.name, transport] as const)
/** More than the kernel takes for a peer that does not read. */
const stallBytes = 12 * MiB

interface Pair {
  listener: Listener
  conn: Conn
  peer: Peer
}

async function pair(transport = tcp4, options = {}, style: Handlers = {}): Promise<Pair> {
  const opened = deferred<Conn>()
  const listener = await serve(transport, { ...style, open: opened.resolve }, options)
  const peer = await connect(listener)
  return { listener, peer, conn: await within('the server accepts', opened.promise) }
}

/** A pair whose peer does not read, with output that the kernel does not take. */
async function stalledPair(transport = tcp4, options = {}, style: Handlers = {}): Promise<Pair & { payload: Buffer }> {
  const all = await pair(transport, { maxBufferedBytes: 64 * MiB, ...options }, style)
  all.peer.socket.pause()
  const payload = randomBytes(stallBytes)
  all.conn.write(payload)
  let sent = -1
  await until('the kernel takes no more', () => {
    const before = sent
    sent = all.conn.bytesWritten
    return sent === before && sent > 0
  })
  expect(all.conn.bufferedAmount).toBeGreaterThan(0)
  return { ...all, payload }
}

describe.each(named)('%s', (_, transport) => {
  test('write() is false above the high watermark, and `drain` comes once per crossing', async () => {
    let drains = 0
    const amounts: number[] = []
    const { conn, peer, payload } = await stalledPair(
      transport,
      {},
      {
        drain(it) {
          drains++
          amounts.push(it.bufferedAmount)
        },
      },
    )
    expect(conn.write('x')).toBe(false)
    expect(conn.write('')).toBe(false)
    await sleep(10)
    expect(drains).toBe(0)
    peer.socket.resume()
    await peer.bytes(payload.length + 1)
    await until('drain comes', () => drains > 0)
    await turn()
    expect(drains).toBe(1)
    expect(amounts[0]).toBeLessThanOrEqual(32 * KiB)
    expect(conn.write('y')).toBe(true)
    await turn()
    expect(drains).toBe(1)

    peer.socket.pause()
    expect(conn.write(payload)).toBe(false)
    peer.socket.resume()
    await peer.bytes(2 * payload.length + 2)
    await until('drain comes again', () => drains > 1)
    await turn()
    expect(drains).toBe(2)
    expectBytes(peer.received, Buffer.concat([payload, Buffer.from('xy'), payload]))
  })

  test('below the high watermark write() is true and no `drain` comes', async () => {
    let drains = 0
    const { conn, peer } = await pair(transport, {}, { drain: () => void drains++ })
    for (let i = 0; i < 64; i++) expect(conn.write(Buffer.alloc(KiB))).toBe(true)
    expect(conn.bufferedAmount).toBe(64 * KiB)
    await peer.bytes(64 * KiB)
    expect(conn.bufferedAmount).toBe(0)
    expect(drains).toBe(0)
  })

  test('own watermarks are kept to the byte', async () => {
    const { conn, peer } = await pair(transport, { highWaterMark: 10, lowWaterMark: 3 })
    expect(conn.write('0123456789')).toBe(true)
    expect(conn.write('!')).toBe(false)
    await within('it drains', conn.drained())
    expect(conn.bufferedAmount).toBeLessThanOrEqual(3)
    await peer.bytes(11)
    await until('write() is true again', () => conn.write(''))
  })

  test('drained() and flushed() resolve at their level, in that order, for all who wait', async () => {
    const { conn, peer, payload } = await stalledPair(transport)
    const seen: string[] = []
    const waits = ['drained', 'flushed', 'drained', 'flushed'].map(async (what) => {
      await conn[what as 'drained']()
      seen.push(what)
      expect(conn.bufferedAmount).toBeLessThanOrEqual(what === 'drained' ? 32 * KiB : 0)
    })
    await sleep(10)
    expect(seen).toEqual([])
    peer.socket.resume()
    await within('all resolve', Promise.all(waits))
    expect(seen).toEqual(['drained', 'drained', 'flushed', 'flushed'])
    await within('drained() resolves at once', conn.drained())
    await within('flushed() resolves at once', conn.flushed())
    expectBytes(await peer.bytes(payload.length), payload)
  })

  test('bytesWritten + bufferedAmount is what write() has taken; bytesRead what has come', async () => {
    const { conn, peer, payload } = await stalledPair(transport, {}, { data() {} })
    conn.write('abc')
    expect(conn.bytesWritten + conn.bufferedAmount).toBe(payload.length + 3)
    await peer.send(randomBytes(12_345))
    await until('all is read', () => conn.bytesRead === 12_345)
    peer.socket.resume()
    await within('it is flushed', conn.flushed())
    expect(conn.bytesWritten).toBe(payload.length + 3)
    expect(conn.bufferedAmount).toBe(0)
    conn.close()
    await within('it ends', conn.closed)
    expect(conn.bytesWritten).toBe(payload.length + 3)
    expect(conn.bytesRead).toBe(12_345)
    expect(conn.bufferedAmount).toBe(0)
  })

  test("overflow 'abort': the connection goes with ERR_BUFFER_OVERFLOW, and a counter tells", async () => {
    const closed = deferred<NetError | undefined>()
    const { conn, peer, listener } = await stalledPair(
      transport,
      { maxBufferedBytes: stallBytes },
      { close: (_, error) => closed.resolve(error) },
    )
    const queued = conn.bufferedAmount
    const ended = conn.closed
    expect(conn.write(Buffer.alloc(stallBytes - queued + 1))).toBe(false)
    expect(conn.state).toBe('closing')
    const error = await within('it ends', closed.promise)
    expect(error).toBeInstanceOf(NetError)
    expect(error).toMatchObject({ code: 'ERR_BUFFER_OVERFLOW', op: 'write' })
    expect(await ended).toBe(error)
    expect(listener.stats()).toMatchObject({ overflowAborts: 1, overflowDrops: 0, handlerErrors: 0, open: 0 })
    peer.socket.resume()
    await within('the peer goes', peer.closed)
  })

  test.each(['throw', 'drop'] as const)(
    'overflow %j: nothing of that write is sent, and the connection lives',
    async (overflow) => {
      const { conn, peer, listener, payload } = await stalledPair(transport, { maxBufferedBytes: stallBytes, overflow })
      const tooMuch = [Buffer.alloc(stallBytes + 1), 'x'.repeat(stallBytes + 1)]
      for (const data of tooMuch) {
        if (overflow === 'drop') expect(conn.write(data)).toBe(false)
        else expect(() => conn.write(data)).toThrow(expect.objectContaining({ code: 'ERR_BUFFER_OVERFLOW' }))
      }
      expect(listener.stats()).toMatchObject({ overflowDrops: 2, overflowAborts: 0, open: 1 })
      peer.socket.resume()
      await within('it is flushed', conn.flushed())
      conn.write('end')
      expectBytes(await peer.bytes(payload.length + 3), Buffer.concat([payload, Buffer.from('end')]))
    },
  )

  test('a limit is exact: as many bytes as maxBufferedBytes are taken, one more is not', async () => {
    const { conn, peer } = await pair(transport, {
      maxBufferedBytes: 1000,
      highWaterMark: 1000,
      lowWaterMark: 0,
      overflow: 'throw',
    })
    conn.write('a'.repeat(400))
    conn.write(Buffer.alloc(600, 'b'))
    expect(conn.bufferedAmount).toBe(1000)
    for (const more of ['c', Buffer.from('c')]) {
      expect(() => conn.write(more)).toThrow(expect.objectContaining({ code: 'ERR_BUFFER_OVERFLOW' }))
    }
    expect((await peer.bytes(1000)).toString()).toBe('a'.repeat(400) + 'b'.repeat(600))
    conn.maxBufferedBytes = 10
    expect(conn.maxBufferedBytes).toBe(10)
    expect(() => conn.write('12345678901')).toThrow(NetError)
    conn.write('1234567890')
    expect(() => conn.write('1')).toThrow(NetError)
    await peer.bytes(1010)
  })

  test('a multi-byte string is measured in bytes, not in characters', async () => {
    const { conn, peer } = await pair(transport, { maxBufferedBytes: 10, highWaterMark: 10, overflow: 'throw' })
    conn.write('漢字漢')
    expect(conn.bufferedAmount).toBe(9)
    expect(() => conn.write('ü')).toThrow(NetError)
    conn.write('a')
    expect((await peer.bytes(10)).toString()).toBe('漢字漢a')
  })

  test('a sender that floods a paused connection is stopped, and loses nothing', async () => {
    const got: Buffer[] = []
    const { conn, peer } = await pair(transport, {}, { data: (_, chunk) => got.push(Buffer.from(chunk)) })
    conn.pause()
    const payload = randomBytes(30 * MiB)
    const sent = peer.send(payload)
    let queued = -1
    await until('the sender is stopped', () => {
      const before = queued
      queued = peer.socket.writableLength
      return queued === before && conn.bytesRead === 0 && queued > 0
    })
    await sleep(50)
    expect(peer.socket.writableLength).toBe(payload.length)
    expect(conn.bytesRead).toBeLessThanOrEqual(MiB)
    expect(stats().slabInUseBytes).toBeLessThanOrEqual(MiB)
    conn.resume()
    await within('all is sent', sent)
    await until('all has come', () => conn.bytesRead === payload.length)
    expectBytes(Buffer.concat(got), payload)
  })

  test('a sender that floods a task that does not read is stopped, and loses nothing', async () => {
    const opened = deferred<Conn>()
    const go = deferred()
    const got: Buffer[] = []
    const listener = await serve(transport, async (conn) => {
      opened.resolve(conn)
      await go.promise
      for await (const chunk of conn) got.push(chunk)
    })
    const peer = await connect(listener)
    const conn = await within('the server accepts', opened.promise)
    const payload = randomBytes(30 * MiB)
    peer.socket.end(payload)
    await sleep(100)
    expect(conn.bytesRead).toBe(0)
    expect(stats().slabInUseBytes).toBe(0)
    expect(peer.socket.writableLength).toBeGreaterThan(0)
    go.resolve()
    await allClosed(listener)
    expectBytes(Buffer.concat(got), payload)
  })

  test('pause() and resume() at random lose nothing and keep the order', async () => {
    const got: Buffer[] = []
    let ended = false
    const { conn, peer, listener } = await pair(
      transport,
      {},
      {
        data(it, chunk) {
          expect(paused).toBe(false)
          got.push(Buffer.from(chunk))
          if (randomInt(0, 2) > 0) return
          it.pause()
          paused = true
          const again = () => {
            paused = false
            it.resume()
          }
          if (randomInt(0, 1) === 0) setTimeout(again, randomInt(0, 2))
          else queueMicrotask(again)
        },
        end(it) {
          ended = true
          it.close()
        },
      },
    )
    let paused = false
    const payload = randomBytes(4 * MiB)
    peer.socket.end(payload)
    await allClosed(listener)
    expect(ended).toBe(true)
    expect(conn.bytesRead).toBe(payload.length)
    expectBytes(Buffer.concat(got), payload)
  })
})

test('the calls after a write that overflowed report it', async () => {
  const { conn, peer } = await stalledPair(tcp4, { maxBufferedBytes: stallBytes })
  const waiting = ['flushed', 'drained'].map((what) => rejection(conn[what as 'flushed'](), `${what}() to fail`))
  expect(conn.write(Buffer.alloc(stallBytes + 1))).toBe(false)
  const overflown = expect.objectContaining({ code: 'ERR_BUFFER_OVERFLOW', op: 'write' })
  expect(conn.write('x'), 'a fan-out may go on until `close` is told').toBe(false)
  for (const failed of waiting) expect(await failed).toEqual(overflown)
  expect(await rejection(conn.drained())).toEqual(overflown)
  peer.socket.resume()
  await within('the peer goes', peer.closed)
})

describe("a fan-out with overflow 'abort'", () => {
  const payload = randomBytes(16 * MiB)

  /** Sends the payload to everybody else; one of three receivers does not read. */
  async function fanOut(style: (members: Set<Conn>) => Handlers | Task): Promise<void> {
    const members = new Set<Conn>()
    const errors: unknown[] = []
    const listener = await serve(tcp4, style(members), {
      maxBufferedBytes: 2 * MiB,
      onError: (error) => void errors.push(error),
    })
    const connected: Peer[] = []
    for (let i = 0; i < 4; i++) {
      connected.push(await connect(listener))
      await until('it is accepted', () => members.size === i + 1)
    }
    const [sender, stalled, ...readers] = connected as [Peer, Peer, Peer, Peer]
    const [sending, overflowing] = [...members] as [Conn, Conn]
    stalled.socket.pause()
    const overflown = overflowing.closed
    let sent = 0
    for (const piece of pieces(payload, 256 * KiB, 256 * KiB)) {
      await sender.send(piece)
      sent += piece.length
      // The readers keep up: only the stalled one may overflow.
      await until('all readers have it', () => readers.every((reader) => reader.receivedBytes >= sent))
    }
    for (const reader of readers) expectBytes(reader.received, payload)
    expect(await within('the stalled one ends', overflown)).toMatchObject({ code: 'ERR_BUFFER_OVERFLOW' })
    expect(sending.state).toBe('open')
    expect(listener.stats()).toMatchObject({ open: 3, overflowAborts: 1, handlerErrors: 0 })
    expect(errors).toEqual([])
    stalled.socket.resume()
    await within('the stalled one goes', stalled.closed)
  }

  test('one that overflows does not end the handler that wrote to it, nor its connection', async () => {
    await fanOut((members) => ({
      open: (conn) => void members.add(conn),
      data(from, chunk) {
        // One write each: the one that finds it full returns false and throws nothing.
        for (const to of members) if (to !== from && to.state === 'open') to.write(chunk)
      },
      close: (conn) => void members.delete(conn),
    }))
  })

  test('nor a task', async () => {
    await fanOut((members) => async (from) => {
      members.add(from)
      for await (const chunk of from) for (const to of members) if (to !== from && to.state === 'open') to.write(chunk)
      members.delete(from)
    })
  })
})

describe("overflow 'drop'", () => {
  const options = { maxBufferedBytes: 1000, highWaterMark: 1000, lowWaterMark: 500, overflow: 'drop' } as const

  test('with nothing queued a dropped write announces no drain, and the next write is true', async () => {
    let drains = 0
    const { conn, peer, listener } = await pair(tcp4, options, { drain: () => void drains++ })
    expect(conn.write(Buffer.alloc(1001))).toBe(false)
    expect(conn.bufferedAmount).toBe(0)
    await within('there is nothing to wait for', conn.drained())
    expect(conn.write('fits')).toBe(true)
    expect((await peer.bytes(4)).toString()).toBe('fits')
    await turn()
    expect(drains).toBe(0)
    expect(listener.stats()).toMatchObject({ overflowDrops: 1, overflowAborts: 0, open: 1 })
  })

  test('with more queued than the low watermark `drain` comes, once', async () => {
    let drains = 0
    const { conn, peer } = await pair(tcp4, options, { drain: () => void drains++ })
    expect(conn.write('a'.repeat(600))).toBe(true)
    expect(conn.write('b'.repeat(600))).toBe(false)
    expect(conn.write('c')).toBe(false)
    await until('drain comes', () => drains > 0)
    expect(conn.write('d')).toBe(true)
    expect((await peer.bytes(602)).toString()).toBe(`${'a'.repeat(600)}cd`)
    await turn()
    expect(drains).toBe(1)
  })
})
