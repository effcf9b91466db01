// write(): every kind of data, every size class (copied, lent, by reference), full arenas and rings in mid-turn.

import { type Conn, dial, NetError, stats, type Writable } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  connect,
  deferred,
  expectBytes,
  KiB,
  MiB,
  mainTransports,
  type Peer,
  placeOf,
  randomBytes,
  randomInt,
  rejection,
  serve,
  tcp4,
  turn,
  within,
} from './harness.ts'

const big = { maxBufferedBytes: 256 * MiB }

/** A server connection that nothing reads, and its peer. */
async function pair(transport = tcp4, options = {}): Promise<{ conn: Conn; peer: Peer }> {
  const opened = deferred<Conn>()
  const listener = await serve(transport, { open: opened.resolve }, { ...big, ...options })
  const peer = await connect(listener)
  return { conn: await within('the server accepts', opened.promise), peer }
}

const bytes = (data: Writable): Buffer => {
  if (typeof data === 'string') return Buffer.from(data)
  return ArrayBuffer.isView(data)
    ? Buffer.from(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)
    : Buffer.from(data)
}

/** TypeScript does not know of them yet. */
const Resizable = ArrayBuffer as unknown as new (
  bytes: number,
  options: { maxByteLength: number },
) => ArrayBuffer & { resize(bytes: number): void }

describe('what write() takes', () => {
  const backing = randomBytes(200 * KiB)
  const kinds: [string, Writable][] = [
    ['ASCII', 'plain text'],
    ['Latin-1', 'é ÿ ß'],
    ['three-byte characters', '漢字€'],
    ['four-byte characters', '😀𝄞'],
    ['every width at once', 'aé漢😀'.repeat(1000)],
    ['lone surrogates become U+FFFD', 'x\ud800y\udc00z'],
    ['a long string', 'ü'.repeat(40_000)],
    ['a long ASCII string', 'a'.repeat(2 * MiB)],
    ['a string at the arena limit', '漢'.repeat(16 * KiB)],
    ['a string above the arena limit', '漢'.repeat(16 * KiB + 1)],
    ['a Buffer', backing.subarray(0, 100)],
    ['a Buffer from the pool', Buffer.from('pooled')],
    ['a Uint8Array in the middle of its buffer', new Uint8Array(backing.buffer, backing.byteOffset + 13, 4097)],
    ['a large view in the middle of its buffer', new Uint8Array(backing.buffer, backing.byteOffset + 13, 100_001)],
    ['a Uint8ClampedArray', new Uint8ClampedArray([0, 255, 7]) as unknown as Uint8Array],
    ['a DataView', new DataView(backing.buffer as ArrayBuffer, backing.byteOffset + 5, 999)],
    ['a large DataView', new DataView(backing.buffer as ArrayBuffer, backing.byteOffset + 5, 99_999)],
    ['an ArrayBuffer', new Uint8Array([1, 2, 3]).buffer],
    ['a large ArrayBuffer', new Uint8Array(randomBytes(70_000)).buffer],
    ['shared memory', new Uint8Array(new SharedArrayBuffer(50_000)).fill(7)],
  ]

  test.each(kinds)('%s', async (_, data) => {
    const { conn, peer } = await pair()
    conn.write('<')
    conn.write(data)
    conn.write('>')
    conn.closeWrite()
    await within('the server finishes', peer.ended)
    expectBytes(peer.received, Buffer.concat([Buffer.from('<'), bytes(data), Buffer.from('>')]))
    expect(conn.bytesWritten).toBe(bytes(data).length + 2)
  })

  test.each([
    ['an ArrayBuffer', (memory: ArrayBuffer) => memory],
    ['a Uint8Array', (memory: ArrayBuffer) => new Uint8Array(memory, 4)],
    ['a DataView', (memory: ArrayBuffer) => new DataView(memory, 4)],
  ])('%s whose memory has gone elsewhere is refused, not taken for empty', async (_, make) => {
    const { conn } = await pair()
    const detached = make(new ArrayBuffer(64))
    structuredClone(null, { transfer: [detached instanceof ArrayBuffer ? detached : detached.buffer] })
    const refused = expect.objectContaining({ name: 'NetError', code: 'ERR_INVALID_ARG', op: 'write' })
    expect(() => conn.write(detached as Uint8Array)).toThrow(refused)
    if (detached instanceof ArrayBuffer) return
    const resizable = new Resizable(64, { maxByteLength: 64 })
    const outside = make(resizable)
    resizable.resize(2)
    expect(() => conn.write(outside as Uint8Array)).toThrow(refused)
    expect(conn.state).toBe('open')
  })

  test('nothing: an empty write sends nothing and is not above the watermark', async () => {
    const { conn, peer } = await pair()
    for (const empty of ['', Buffer.alloc(0), new ArrayBuffer(0), new DataView(new ArrayBuffer(0))]) {
      expect(conn.write(empty)).toBe(true)
    }
    conn.closeWrite()
    await within('the server finishes', peer.ended)
    expect(peer.receivedBytes).toBe(0)
  })
})

describe.each(mainTransports.map((transport) => [transport.name, transport] as const))('%s', (_, transport) => {
  const edges = [1, 31, 32, 33, 4 * KiB, 32 * KiB, 64 * KiB, MiB].flatMap((size) => [size - 1, size, size + 1])

  test('every size around the limits between the ways to send', async () => {
    const { conn, peer } = await pair(transport)
    const all: Buffer[] = []
    for (const size of edges.filter((size) => size > 0)) {
      const piece = randomBytes(size)
      all.push(piece)
      conn.write(piece)
      if (randomInt(0, 1) === 0) await turn()
    }
    conn.closeWrite()
    await within('the server finishes', peer.ended)
    expectBytes(peer.received, Buffer.concat(all))
  })

  test('more than the arena and the command ring hold, in one tick, between several connections', async () => {
    const conns: Conn[] = []
    const listener = await serve(transport, { open: (conn) => conns.push(conn) }, big)
    const peers: Peer[] = []
    for (let i = 0; i < 5; i++) peers.push(await connect(listener))
    await within(
      'all are accepted',
      waitFor(() => conns.length === 5),
    )
    const marker = conns.map(() => deferred())
    // In the order of acceptance, which is the peers' order.
    const wanted: Buffer[][] = peers.map(() => [])
    for (let i = 0; i < 12_000; i++) {
      const at = i % 5
      const piece = i % 100 === 0 ? randomBytes(randomInt(1, 60 * KiB)) : randomBytes(randomInt(1, 300))
      wanted[at]!.push(piece)
      conns[at]!.write(i % 3 === 0 && piece.length < 4096 ? Buffer.from(piece) : piece)
    }
    conns.forEach((conn, at) => {
      conn.closeWrite()
      void conn.flushed().then(marker[at]!.resolve)
    })
    await within('every peer gets FIN', Promise.all(peers.map((peer) => peer.ended)))
    await within('all is flushed', Promise.all(marker.map((each) => each.promise)))
    for (const [at, peer] of peers.entries()) {
      expectBytes(peer.received, Buffer.concat(wanted[at]!), `connection ${at}`)
    }
  })

  test('a handler that writes more than arena and ring hold overflows in the middle of a turn, in order', async () => {
    const count = 9000
    const wanted: Buffer[] = []
    let other: Conn | undefined
    const listener = await serve(
      transport,
      {
        data(conn, chunk) {
          other ??= conn
          if (chunk.toString() !== 'go') return
          for (let i = 0; i < count; i++) {
            const piece = randomBytes(randomInt(100, 400))
            wanted.push(piece)
            conn.write(piece)
            other.write('.')
          }
          conn.closeWrite()
        },
      },
      big,
    )
    const first = await connect(listener)
    first.socket.write('hello')
    await within(
      'the first is known',
      waitFor(() => other !== undefined),
    )
    const flushesBefore = stats().midTurnFlushes
    const second = await connect(listener)
    second.socket.write('go')
    await within('the server finishes', second.ended)
    expectBytes(second.received, Buffer.concat(wanted))
    expectBytes(await first.bytes(count), Buffer.alloc(count, '.'))
    expect(stats().midTurnFlushes).toBeGreaterThan(flushesBefore)
  })

  test('a small buffer may be changed as soon as write() has returned', async () => {
    const { conn, peer } = await pair(transport)
    const wanted: Buffer[] = []
    const buffer = new Uint8Array(4 * KiB - 1)
    for (let i = 0; i < 2000; i++) {
      const part = buffer.subarray(0, randomInt(1, buffer.length))
      part.fill(i)
      wanted.push(Buffer.from(part))
      conn.write(part)
      part.fill(0xee)
    }
    conn.closeWrite()
    await within('the server finishes', peer.ended)
    expectBytes(peer.received, Buffer.concat(wanted))
  })

  test('a lent chunk below 1 KiB is copied, a larger one is sent from where it lies, and both are exact', async () => {
    const listener = await serve(tcp4, {
      data(conn, chunk) {
        conn.write(chunk)
        // Allowed below 1 KiB. Above, it is what one must not do, and shows whose memory is sent.
        chunk.fill(0)
      },
    })
    const peer = await connect(listener)
    const echo = async (sent: Buffer) => {
      const before = peer.received.length
      await peer.send(sent)
      return (await peer.bytes(before + sent.length)).subarray(before)
    }
    const small = randomBytes(KiB - 1)
    expectBytes(await echo(small), small)
    expectBytes(await echo(randomBytes(KiB)), Buffer.alloc(KiB))
    expectBytes(await echo(randomBytes(3 * KiB)), Buffer.alloc(3 * KiB))
  })

  test('a lent chunk that its connection cannot send at once is kept as it was', async () => {
    const opened = deferred<Conn>()
    const chunks = 200
    const lent = await serve(
      tcp4,
      { open: opened.resolve, data: (_, chunk) => void slow.write(chunk) },
      { maxBufferedBytes: 64 * MiB },
    )
    const sender = await connect(lent)
    const slow = await within('the server accepts', opened.promise)
    // Nobody reads: the kernel's buffers are full before the chunks come.
    sender.socket.pause()
    const first = randomBytes(16 * MiB)
    slow.write(first)
    const sent: Buffer[] = []
    for (let i = 0; i < chunks; i++) {
      sent.push(randomBytes(randomInt(KiB, 4 * KiB)))
      await sender.send(sent.at(-1) as Buffer)
      await turn()
    }
    expect(slow.bufferedAmount).toBeGreaterThan(0)
    sender.socket.resume()
    const all = Buffer.concat([first, ...sent])
    expectBytes((await sender.bytes(all.length)).subarray(0, all.length), all)
  })

  test('a large buffer may be changed when flushed() has resolved', async () => {
    const { conn, peer } = await pair(transport)
    const wanted: Buffer[] = []
    const buffer = new Uint8Array(300 * KiB)
    for (let i = 0; i < 20; i++) {
      buffer.fill(i)
      wanted.push(Buffer.from(buffer))
      conn.write(buffer)
      await within('the buffer is flushed', conn.flushed())
      buffer.fill(0xee)
    }
    conn.closeWrite()
    await within('the server finishes', peer.ended)
    expectBytes(peer.received, Buffer.concat(wanted))
  })

  test('a dialing connection takes writes and sends them in order', async () => {
    const got = deferred<Buffer>()
    const listener = await serve(transport, async (conn) => {
      const parts: Buffer[] = []
      for await (const part of conn) parts.push(part)
      got.resolve(Buffer.concat(parts))
    })
    const payload = randomBytes(300 * KiB)
    const conn = await dial(placeOf(listener), {
      open(it) {
        it.write('a')
        it.write(payload)
      },
    })
    conn.write('z')
    conn.closeWrite()
    const bytes = await within('the server has it', got.promise)
    expectBytes(bytes, Buffer.concat([Buffer.from('a'), payload, Buffer.from('z')]))
    conn.close()
    await within('it ends', conn.closed)
  })
})

describe('memory that goes away after write()', () => {
  const size = 8 * MiB

  test('a large buffer that is transferred away costs its connection, with EFAULT, and nothing else', async () => {
    const { conn, peer } = await pair()
    peer.socket.pause()
    const buffer = new Uint8Array(size)
    conn.write(buffer)
    structuredClone(buffer.buffer, { transfer: [buffer.buffer] })
    peer.socket.resume()
    const error = await within('the connection ends', conn.closed)
    expect(error).toBeInstanceOf(NetError)
    expect(error).toMatchObject({ code: 'EFAULT', op: 'write' })
    await within('the peer notices', peer.closed)
  })

  test('the same when part of it has been sent already', async () => {
    const { conn, peer } = await pair()
    peer.socket.pause()
    const buffer = new Uint8Array(size)
    conn.write(buffer)
    const flushed = rejection(conn.flushed(), 'flushed() to fail')
    await within(
      'a part is sent',
      waitFor(() => conn.bytesWritten > 0),
    )
    expect(conn.bufferedAmount).toBeGreaterThan(0)
    structuredClone(buffer.buffer, { transfer: [buffer.buffer] })
    peer.socket.resume()
    expect(await within('the connection ends', conn.closed)).toMatchObject({ code: 'EFAULT', op: 'write' })
    expect(await flushed).toMatchObject({ code: 'EFAULT' })
  })

  test('a resizable buffer that shrinks costs its connection, and no byte from behind its end is sent', async () => {
    const { conn, peer } = await pair()
    peer.socket.pause()
    const resizable = new Resizable(size, { maxByteLength: size })
    const view = new Uint8Array(resizable)
    view.fill(1)
    conn.write(view)
    await turn()
    resizable.resize(16)
    peer.socket.resume()
    expect(await within('the connection ends', conn.closed)).toMatchObject({ code: 'EFAULT' })
    expect(peer.received.every((byte) => byte === 1)).toBe(true)
  })

  test('a buffer that nobody else holds survives until it is sent', async () => {
    const { conn, peer } = await pair()
    peer.socket.pause()
    const copy = randomBytes(MiB)
    for (let i = 0; i < 8; i++) conn.write(Buffer.from(copy))
    await turn()
    ;(globalThis as { gc?: () => void }).gc?.()
    for (let i = 0; i < 50; i++) Buffer.alloc(MiB, 0xee)
    peer.socket.resume()
    expectBytes(await peer.bytes(8 * MiB), Buffer.concat(Array(8).fill(copy)))
  })
})

test('writes to a connection whose peer is gone do no harm', async () => {
  const { conn, peer } = await pair()
  peer.reset()
  for (let i = 0; i < 1000; i++) {
    try {
      conn.write(randomBytes(randomInt(1, 40 * KiB)))
    } catch (error) {
      expect(error).toBeInstanceOf(NetError)
      break
    }
    if (i % 50 === 0) await turn()
  }
  const error = await within('the connection ends', conn.closed)
  expect(['ECONNRESET', 'EPIPE']).toContain(error?.code)
})

async function waitFor(holds: () => boolean): Promise<void> {
  while (!holds()) await turn()
}
