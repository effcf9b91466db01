// read() and iteration: the blocking style.

import { type Conn, type Listener, NetError, stats } from 'edgewire'
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
  tcp4,
  turn,
  until,
  within,
} from './harness.ts'
import { run } from './programs.ts'

/** A connection without handlers, read by the test itself. */
async function pair(transport = tcp4): Promise<{ conn: Conn; peer: Peer; listener: Listener }> {
  const opened = deferred<Conn>()
  const listener = await serve(transport, async (conn) => {
    opened.resolve(conn)
    await conn.closed
  })
  const peer = await connect(listener)
  return { conn: await within('the server accepts', opened.promise), peer, listener }
}

describe.each(mainTransports.map((transport) => [transport.name, transport] as const))('%s', (_, transport) => {
  test('read() into buffers of every size gets every byte, then null for ever', async () => {
    const { conn, peer } = await pair(transport)
    const payload = randomBytes(MiB)
    peer.socket.end(payload)
    const parts: Buffer[] = []
    for (;;) {
      const into = new Uint8Array(randomInt(1, 100 * KiB))
      const count = await within('a read', conn.read(into))
      if (count === null) break
      expect(count).toBeGreaterThan(0)
      expect(count).toBeLessThanOrEqual(into.length)
      parts.push(Buffer.from(into.subarray(0, count)))
    }
    expectBytes(Buffer.concat(parts), payload)
    expect(conn.state).toBe('read-closed')
    expect(await within('EOF again', conn.read(new Uint8Array(1)))).toBeNull()
    conn.close()
    await within('it ends', conn.closed)
  })

  test('reading byte by byte', async () => {
    const { conn, peer } = await pair(transport)
    const payload = randomBytes(20 * KiB)
    peer.socket.end(payload)
    const got = Buffer.alloc(payload.length)
    for (let at = 0; at < got.length; at++) {
      expect(await conn.read(got.subarray(at, at + 1))).toBe(1)
    }
    expect(await within('EOF', conn.read(new Uint8Array(1)))).toBeNull()
    expectBytes(got, payload)
    conn.close()
    await within('it ends', conn.closed)
  })

  test('concurrent reads are served in order', async () => {
    const { conn, peer } = await pair(transport)
    const payload = randomBytes(64 * KiB)
    const buffers = Array.from({ length: 200 }, () => new Uint8Array(randomInt(1, 2000)))
    const served: number[] = []
    const parts: Buffer[] = []
    const all = buffers.map(async (into, i) => {
      const count = await conn.read(into)
      served.push(i)
      if (count !== null) parts.push(Buffer.from(into.subarray(0, count)))
    })
    for (const piece of pieces(payload, 3000)) {
      peer.socket.write(piece)
      await turn()
    }
    peer.finish()
    await within('all reads are served', Promise.all(all))
    expect(served).toEqual(buffers.map((_, i) => i))
    for (;;) {
      const into = new Uint8Array(8 * KiB)
      const count = await within('a read', conn.read(into))
      if (count === null) break
      parts.push(Buffer.from(into.subarray(0, count)))
    }
    expectBytes(Buffer.concat(parts), payload)
    conn.close()
  })

  test('the bytes of a read lie at the start of its view and nowhere else', async () => {
    const { conn, peer } = await pair(transport)
    const memory = new Uint8Array(100).fill(0xee)
    const reading = conn.read(memory.subarray(10, 15))
    peer.socket.write('abcdefgh')
    expect(await within('a read', reading)).toBe(5)
    expect(Buffer.from(memory.subarray(8, 17)).toString('latin1')).toBe('\xee\xeeabcde\xee\xee')
    expect(await within('the rest', conn.read(memory))).toBe(3)
    expect(Buffer.from(memory.subarray(0, 4)).toString('latin1')).toBe('fgh\xee')
    conn.close()
  })

  test('iteration yields chunks that the caller owns', async () => {
    const kept: Buffer[] = []
    const listener = await serve(transport, async (conn) => {
      for await (const chunk of conn) {
        kept.push(chunk)
        chunk[0] = chunk[0]! ^ 0xff // ours: nobody minds
        chunk[0] = chunk[0]! ^ 0xff
      }
    })
    const payload = randomBytes(MiB)
    const other = await connect(listener)
    const peer = await connect(listener)
    for (const piece of pieces(payload, 90 * KiB)) {
      await peer.send(piece)
      await turn()
    }
    peer.finish()
    await within('the server finishes', peer.ended)
    expectBytes(Buffer.concat(kept), payload)
    kept.length = 0
    other.finish()
    await allClosed(listener)
  })

  test('leaving an iteration early closes the connection', async () => {
    const { conn, peer } = await pair(transport)
    peer.socket.write('x')
    for await (const chunk of conn) {
      expect(chunk.toString()).toBe('x')
      break
    }
    expect(conn.state).toBe('closing')
    await within('the peer gets FIN', peer.ended)
    await within('it ends', conn.closed)
  })

  test('read() and iteration can take turns', async () => {
    const { conn, peer } = await pair(transport)
    peer.socket.write('head:body')
    const head = new Uint8Array(5)
    for (let at = 0; at < 5; ) at += (await within('a read', conn.read(head.subarray(at))))!
    expect(Buffer.from(head).toString()).toBe('head:')
    peer.finish()
    const parts: Buffer[] = []
    for await (const chunk of conn) parts.push(chunk)
    expect(Buffer.concat(parts).toString()).toBe('body')
    conn.close()
  })
})

test('a pending read fails when the connection is closed or aborted', async () => {
  const closing = await pair()
  const read = rejection(closing.conn.read(new Uint8Array(1)))
  closing.conn.close()
  expect(await read).toMatchObject({ code: 'ERR_CONN_CLOSED', op: 'read' })
  const aborting = await pair()
  const reason = new Error('enough')
  const reads = [rejection(aborting.conn.read(new Uint8Array(1))), rejection(aborting.conn.read(new Uint8Array(1)))]
  aborting.conn.abort(reason)
  for (const failed of reads) expect(await failed).toBe(reason)
  expect(await rejection(aborting.conn.read(new Uint8Array(1)))).toMatchObject({
    code: 'ERR_CONN_ABORTED',
    cause: reason,
  })
})

test('a pending read and iteration fail with what the peer did', async () => {
  const reading = await pair()
  const read = rejection(reading.conn.read(new Uint8Array(1)))
  reading.peer.reset()
  const error = await read
  expect(error).toBeInstanceOf(NetError)
  expect(error).toMatchObject({ code: 'ECONNRESET', op: 'read', timeout: false })
  expect(String(error.message)).toMatch(/^read tcp 127\.0\.0\.1:\d+->127\.0\.0\.1:\d+: connection reset by peer$/)
  const iterating = await pair()
  const loop = rejection(
    (async () => {
      for await (const _ of iterating.conn) void _
    })(),
  )
  iterating.peer.reset()
  expect(await loop).toMatchObject({ code: 'ECONNRESET' })
})

test('a buffer that is transferred away while its read waits: the read fails, the bytes go to the next', async () => {
  const { conn, peer } = await pair()
  const into = new Uint8Array(100)
  const read = rejection(conn.read(into))
  structuredClone(into.buffer, { transfer: [into.buffer] })
  peer.socket.write('kept')
  await read
  const next = new Uint8Array(100)
  expect(await within('the next read', conn.read(next))).toBe(4)
  expect(Buffer.from(next.subarray(0, 4)).toString()).toBe('kept')
  conn.close()
})

test('a task that returns closes its connection after what it wrote', async () => {
  const payload = randomBytes(5 * MiB)
  const listener = await serve(
    tcp4,
    async (conn) => {
      conn.write(payload)
    },
    { maxBufferedBytes: 8 * MiB },
  )
  const peer = await connect(listener)
  await within('the server finishes', peer.ended)
  expectBytes(peer.received, payload)
  await allClosed(listener)
})

test('bytes that were read ahead are still there after the peer has gone', async () => {
  const { conn, peer } = await pair()
  peer.socket.end('0123456789')
  const one = new Uint8Array(1)
  let text = ''
  for (let i = 0; i < 10; i++) {
    expect(await within('a read', conn.read(one))).toBe(1)
    text += String.fromCharCode(one[0]!)
    await turn()
  }
  expect(text).toBe('0123456789')
  expect(await within('EOF', conn.read(one))).toBeNull()
  conn.close()
})

test('bytes that close() has dropped are not passed off as the end of what the peer sent', async () => {
  const { conn, peer } = await pair()
  peer.socket.end('0123456789')
  expect(await within('a read', conn.read(new Uint8Array(1)))).toBe(1)
  await until('the FIN is there', () => conn.state === 'read-closed')
  conn.close()
  for (const state of ['closing', 'closed']) {
    expect(conn.state).toBe(state)
    expect(await rejection(conn.read(new Uint8Array(1)))).toMatchObject({ code: 'ERR_CONN_CLOSED', op: 'read' })
    await within('it is over', conn.closed)
  }
})

test('a reader whose buffer is always filled is read ahead: fewer system calls than reads', async () => {
  const bufferBytes = 4 * KiB
  const payload = randomBytes(512 * KiB)
  const { conn, peer } = await pair()
  await peer.send(payload)
  const before = stats().reads
  const received: Buffer[] = []
  const into = new Uint8Array(bufferBytes)
  for (let left = payload.length; left > 0; ) {
    const count = (await within('a read', conn.read(into))) as number
    received.push(Buffer.from(into.subarray(0, count)))
    left -= count
  }
  expectBytes(Buffer.concat(received), payload)
  expect(stats().reads - before).toBeLessThan(payload.length / bufferBytes / 4)
  conn.close()
})

test('what is read ahead for readers that stop reading leaves the others room in the pool', async () => {
  // As many chunks as such readers: if each could keep one, nobody else would be read.
  const program = await run(
    `
    const stop = new Promise(() => {})
    const listener = await listen({ host: '127.0.0.1', port: 0 }, async (conn) => {
      const buffer = new Uint8Array(8192)
      await conn.read(buffer)
      conn.write('1')
      await conn.read(buffer)
      conn.write('2')
      if (buffer[0] === 1) await stop
      for (let count; (count = await conn.read(buffer)) !== null; ) conn.write(buffer.subarray(0, count))
    })
    const told = (socket, bytes) => new Promise((resolve) => {
      let seen = 0
      socket.on('data', (data) => (seen += data.length) >= bytes && resolve())
    })
    const stalled = []
    for (let i = 0; i < 40; i++) {
      const socket = net.connect(listener.port, '127.0.0.1')
      stalled.push(socket)
      const twice = told(socket, 2)
      socket.write(Buffer.alloc(100_000, 1))
      await twice
    }
    const socket = net.connect(listener.port, '127.0.0.1')
    const all = told(socket, 2 + 200_000 - 2 * 8192)
    socket.write(Buffer.alloc(200_000))
    await all
    print('served')
    process.exit(0)
    `,
    { EDGEWIRE_SLAB_BUDGET_BYTES: String(MiB) },
  )
  expect(program).toMatchObject({ code: 0, stdout: 'served\n' })
})
