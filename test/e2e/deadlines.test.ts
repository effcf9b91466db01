// Deadlines are absolute: they apply to pending and future operations and do not harm the connection.

import { type Conn, type Handlers, NetError } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  allClosed,
  connect,
  deferred,
  expectBytes,
  MiB,
  mainTransports,
  type Peer,
  randomBytes,
  rejection,
  serve,
  sleep,
  tcp4,
  turn,
  until,
  within,
} from './harness.ts'

const soon = () => Date.now() + 20
const far = () => Date.now() + 60_000
const exceeded = { code: 'ERR_DEADLINE_EXCEEDED', timeout: true }

async function pair(transport = tcp4, options = {}): Promise<{ conn: Conn; peer: Peer }> {
  const opened = deferred<Conn>()
  const listener = await serve(
    transport,
    async (conn) => {
      opened.resolve(conn)
      await conn.closed
    },
    options,
  )
  const peer = await connect(listener)
  return { conn: await within('the server accepts', opened.promise), peer }
}

async function handled(handlers: Handlers, options = {}): Promise<{ conn: Conn; peer: Peer }> {
  const opened = deferred<Conn>()
  const listener = await serve(tcp4, { ...handlers, open: opened.resolve }, options)
  const peer = await connect(listener)
  return { conn: await within('the server accepts', opened.promise), peer }
}

/** Fills what the kernel takes, so that more is queued. */
async function stall({ conn, peer }: { conn: Conn; peer: Peer }): Promise<Buffer> {
  peer.socket.pause()
  const payload = randomBytes(12 * MiB)
  conn.write(payload)
  await until('output is queued', () => conn.bytesWritten > 0)
  expect(conn.bufferedAmount).toBeGreaterThan(0)
  return payload
}

const read = (conn: Conn) => conn.read(new Uint8Array(100))

describe.each(mainTransports.map((transport) => [transport.name, transport] as const))('%s', (_, transport) => {
  test('a read deadline fails the pending read and future ones, and the connection is unharmed', async () => {
    const { conn, peer } = await pair(transport)
    conn.setReadDeadline(soon())
    const failed = [rejection(read(conn)), rejection(read(conn))]
    for (const each of failed) expect(await each).toMatchObject({ ...exceeded, op: 'read' })
    expect(await rejection(read(conn))).toMatchObject(exceeded)
    expect(conn.state).toBe('open')
    conn.write('still here')
    await peer.bytes(10)
    await peer.send('late')
    expect(await rejection(read(conn))).toMatchObject(exceeded)
    conn.setReadDeadline(null)
    expect(await within('a read', read(conn))).toBe(4)
    conn.close()
  })

  test('a write deadline fails drained(), flushed() and write(), and the connection is unharmed', async () => {
    const both = await pair(transport, { maxBufferedBytes: 64 * MiB })
    const { conn, peer } = both
    const payload = await stall(both)
    conn.setWriteDeadline(soon())
    const failed = [rejection(conn.drained()), rejection(conn.flushed())]
    for (const each of failed) expect(await each).toMatchObject({ ...exceeded, op: 'write' })
    expect(() => conn.write('x')).toThrow(expect.objectContaining(exceeded))
    expect(await rejection(conn.flushed())).toMatchObject(exceeded)
    expect(conn.state).toBe('open')
    conn.setWriteDeadline(null)
    peer.socket.resume()
    await within('it is flushed', conn.flushed())
    conn.write('end')
    expectBytes(await peer.bytes(payload.length + 3), Buffer.concat([payload, Buffer.from('end')]))
    conn.close()
  })
})

describe('what may be given', () => {
  const past = [
    ['epoch milliseconds', () => Date.now() - 1],
    ['a Date', () => new Date(Date.now() - 1000)],
    ['the beginning of time', () => 0],
    ['before the beginning', () => Number.NEGATIVE_INFINITY],
    ['now', () => Date.now()],
  ] as const

  test.each(past)('a deadline in the past (%s) fails at once', async (_, when) => {
    const { conn, peer } = await pair()
    const pending = rejection(read(conn))
    conn.setDeadline(when())
    expect(await pending).toMatchObject(exceeded)
    expect(await rejection(read(conn))).toMatchObject(exceeded)
    expect(() => conn.write('x')).toThrow(expect.objectContaining(exceeded))
    conn.setDeadline(far())
    expect(conn.write('x')).toBe(true)
    await peer.bytes(1)
    conn.close()
  })

  const future = [
    ['null', () => null],
    ['Infinity', () => Number.POSITIVE_INFINITY],
    ['far away', () => Number.MAX_SAFE_INTEGER],
    ['the last Date there is', () => new Date(8.64e15)],
    ['a fraction of a millisecond', () => Date.now() + 60_000.5],
  ] as const

  test.each(future)('a deadline in the future (%s) changes nothing', async (_, when) => {
    const { conn, peer } = await pair()
    conn.setDeadline(when())
    const pending = read(conn)
    await peer.send('abc')
    expect(await within('a read', pending)).toBe(3)
    conn.write('x')
    await peer.bytes(1)
    conn.close()
  })
})

test('a deadline that is cleared or moved before it passes does not fire', async () => {
  for (const change of [null, far()]) {
    const { conn, peer } = await pair()
    conn.setReadDeadline(Date.now() + 10)
    const pending = read(conn)
    conn.setReadDeadline(change)
    await sleep(40)
    await peer.send('abc')
    expect(await within('a read', pending)).toBe(3)
    conn.close()
  }
})

test('a deadline may be moved nearer', async () => {
  const { conn } = await pair()
  conn.setReadDeadline(far())
  const pending = rejection(read(conn))
  await sleep(5)
  conn.setReadDeadline(soon())
  expect(await pending).toMatchObject(exceeded)
  conn.setReadDeadline(far())
  const again = rejection(read(conn))
  conn.setReadDeadline(soon())
  expect(await again).toMatchObject(exceeded)
  conn.close()
})

test('a deadline set anew for every message never fires while messages come', async () => {
  const { conn, peer } = await pair()
  for (let i = 0; i < 30; i++) {
    conn.setReadDeadline(Date.now() + 500)
    const pending = read(conn)
    await sleep(1)
    await peer.send('x')
    expect(await within('a read', pending)).toBe(1)
  }
  conn.setReadDeadline(soon())
  expect(await rejection(read(conn))).toMatchObject(exceeded)
  conn.close()
})

test('after a failed read its buffer is never touched, and its bytes go to the next read', async () => {
  const { conn, peer } = await pair()
  const abandoned = new Uint8Array(10)
  conn.setReadDeadline(soon())
  expect(await rejection(conn.read(abandoned))).toMatchObject(exceeded)
  conn.setReadDeadline(null)
  await peer.send('abc')
  const into = new Uint8Array(10)
  expect(await within('a read', conn.read(into))).toBe(3)
  expect(Buffer.from(into.subarray(0, 3)).toString()).toBe('abc')
  expect(abandoned.every((byte) => byte === 0)).toBe(true)
  conn.close()
})

test('a thousand connections with deadlines: each fires, once', async () => {
  let fired = 0
  const listener = await serve(tcp4, async (conn) => {
    conn.setReadDeadline(Date.now() + 1 + (fired % 50))
    await read(conn).catch((error: NetError) => {
      if (error.timeout) fired++
    })
  })
  for (let i = 0; i < 1000; i++) await connect(listener)
  await allClosed(listener)
  expect(fired).toBe(1000)
})

describe('event handlers', () => {
  test.each(['read', 'write'] as const)(
    'a passed %s deadline calls `timeout` once, and harms nothing',
    async (which) => {
      const seen: string[] = []
      const { conn, peer } = await handled({
        data: (it, chunk) => void it.write(chunk),
        timeout: (_, what) => seen.push(what),
      })
      const set = (when: number | null) => (which === 'read' ? conn.setReadDeadline(when) : conn.setWriteDeadline(when))
      set(soon())
      await until('`timeout` is called', () => seen.length > 0)
      await sleep(10)
      expect(seen).toEqual([which])
      expect(conn.state).toBe('open')
      set(null)
      peer.socket.write('hello')
      await peer.bytes(5)
      set(soon())
      await until('`timeout` is called again', () => seen.length > 1)
      expect(seen).toEqual([which, which])
    },
  )

  test.each([
    ['read', 'setReadDeadline'],
    ['write', 'setWriteDeadline'],
  ] as const)('without a `timeout` handler a passed %s deadline aborts', async (which, set) => {
    const closed = deferred<NetError | undefined>()
    const { conn, peer } = await handled({ close: (_, error) => closed.resolve(error) })
    conn[set](soon())
    expect(await within('it ends', closed.promise)).toMatchObject({ ...exceeded, op: which })
    expect((await within('the peer notices', peer.closed))?.code).toBe('ECONNRESET')
  })

  test('a deadline in the past calls `timeout` as well', async () => {
    const seen: string[] = []
    const { conn } = await handled({ timeout: (_, which) => seen.push(which) })
    conn.setReadDeadline(1)
    await until('`timeout` is called', () => seen.length > 0)
    expect(seen).toEqual(['read'])
  })

  test.each(['timeout handler', 'no timeout handler'])(
    'a write deadline in the past that rejects who waits tells nobody else: %s',
    async (which) => {
      const seen: string[] = []
      const both = await handled({
        ...(which === 'timeout handler' ? { timeout: () => seen.push('timeout') } : {}),
        close: () => seen.push('close'),
      })
      await stall(both)
      const { conn } = both
      const failed = [rejection(conn.drained()), rejection(conn.flushed())]
      conn.setWriteDeadline(Date.now() - 1)
      for (const each of failed) expect(await each).toMatchObject({ ...exceeded, op: 'write' })
      await sleep(20)
      expect(seen).toEqual([])
      expect(conn.state).toBe('open')
      expect(() => conn.write('x')).toThrow(expect.objectContaining(exceeded))
      conn.abort()
    },
  )

  test('a deadline that is moved in every `data` does not fire', async () => {
    const seen: string[] = []
    const { conn, peer } = await handled({
      data(it, chunk) {
        it.setReadDeadline(Date.now() + 400)
        it.write(chunk)
      },
      timeout: () => seen.push('timeout'),
    })
    conn.setReadDeadline(Date.now() + 400)
    for (let i = 0; i < 20; i++) {
      peer.socket.write('x')
      await peer.bytes(i + 1)
      expect(seen).toEqual([])
    }
    conn.setReadDeadline(null)
    await sleep(10)
    expect(seen).toEqual([])
  })
})

test.each(['timeout handler', 'no timeout handler'])(
  'a deadline that `data` moves in the batch in which it passed does not fire: %s',
  async (which) => {
    const seen: string[] = []
    const { conn, peer } = await handled({
      data(it) {
        seen.push('data')
        it.setReadDeadline(far())
        it.setWriteDeadline(null)
      },
      ...(which === 'timeout handler' ? { timeout: () => seen.push('timeout') } : {}),
      close: () => seen.push('close'),
    })
    for (let i = 1; i <= 5; i++) {
      conn.setDeadline(soon())
      await sleep(2) // until it is armed
      peer.socket.write('x')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 40) // byte and deadline are there when we look
      await until('the byte comes', () => seen.length >= i)
      await sleep(5)
      expect(seen).toEqual(Array(i).fill('data'))
      expect(conn.state).toBe('open')
    }
  },
)

test('the same for a task that is reading', async () => {
  const { conn, peer } = await pair()
  conn.setReadDeadline(soon())
  const reading = read(conn)
  await sleep(2)
  peer.socket.write('abc')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 40)
  expect(await within('a read', reading)).toBe(3)
  conn.setReadDeadline(null)
  await sleep(5)
  const next = read(conn)
  peer.socket.write('de')
  expect(await within('the next read', next)).toBe(2)
  conn.close()
})

describe('idle timeout', () => {
  test('a connection on which nothing moves is closed with ERR_IDLE_TIMEOUT', async () => {
    const closed = deferred<NetError | undefined>()
    const { peer } = await handled({ data() {}, close: (_, error) => closed.resolve(error) }, { idleTimeoutMs: 30 })
    const error = await within('it ends', closed.promise)
    expect(error).toBeInstanceOf(NetError)
    expect(error).toMatchObject({ code: 'ERR_IDLE_TIMEOUT', timeout: true })
    await within('the peer goes', peer.closed)
  })

  test('a task style read fails with it', async () => {
    const { conn } = await pair(tcp4, { idleTimeoutMs: 30 })
    expect(await rejection(read(conn))).toMatchObject({ code: 'ERR_IDLE_TIMEOUT', timeout: true })
    expect(conn.state).not.toBe('open')
  })

  test('bytes in either direction keep it open; set later, set to 0', async () => {
    const { conn, peer } = await pair()
    conn.setIdleTimeout(400)
    for (let i = 0; i < 20; i++) {
      await sleep(5)
      if (i % 2 === 0) conn.write('x')
      else {
        await peer.send('y')
        expect(await within('a read', read(conn))).toBe(1)
      }
      expect(conn.state).toBe('open')
    }
    conn.setIdleTimeout(20)
    conn.setIdleTimeout(0)
    await sleep(60)
    await turn()
    expect(conn.state).toBe('open')
    conn.setIdleTimeout(20)
    expect(await within('it ends', conn.closed)).toMatchObject({ code: 'ERR_IDLE_TIMEOUT' })
  })
})
