// Lent chunks: valid until the handler has returned or settled, longer with retain(), and never for nothing.

import { type Conn, stats } from 'edgewire'
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
  serve,
  sleep,
  tcp4,
  turn,
  unix,
  until,
  within,
} from './harness.ts'
import { run } from './programs.ts'

describe.each(mainTransports.map((transport) => [transport.name, transport] as const))('%s', (_, transport) => {
  test('a chunk is valid until the promise of its handler settles, whatever else arrives', async () => {
    const parts: Buffer[] = []
    let order = Promise.resolve()
    const listener = await serve(transport, {
      async data(conn, chunk) {
        if (conn.data === 'noise') return
        if (chunk[0] === 0xff && chunk.length === 1) {
          conn.data = 'noise'
          return
        }
        const earlier = order
        const mine = deferred()
        order = mine.promise
        await sleep(randomInt(0, 3))
        await earlier
        parts.push(Buffer.from(chunk))
        mine.resolve()
      },
    })
    const noise = await connect(listener)
    await noise.send(Buffer.from([0xff]))
    await sleep(10)
    const peer = await connect(listener)
    const payload = randomBytes(2 * MiB)
    payload[0] = 1
    for (const piece of pieces(payload, 40 * KiB, 2)) {
      await peer.send(piece)
      noise.socket.write(randomBytes(30 * KiB))
    }
    await until('all has arrived', () => parts.reduce((sum, part) => sum + part.length, 0) === payload.length)
    await order
    expectBytes(Buffer.concat(parts), payload)
  })

  test('an async handler can echo its chunk after an await', async () => {
    let order = Promise.resolve()
    const listener = await serve(
      transport,
      {
        async data(conn, chunk) {
          const earlier = order
          const mine = deferred()
          order = mine.promise
          await sleep(randomInt(0, 2))
          await earlier
          conn.write(chunk)
          mine.resolve()
        },
        end() {},
      },
      { maxBufferedBytes: 32 * MiB },
    )
    const peer = await connect(listener)
    const payload = randomBytes(4 * MiB)
    for (const piece of pieces(payload, 200 * KiB)) await peer.send(piece)
    expectBytes(await peer.bytes(payload.length), payload)
    for (const conn of listener.connections) conn.close()
    await within('the server finishes', peer.ended)
  })

  test('retained chunks keep their bytes until they are released, in any order', async () => {
    const kept: { conn: Conn; chunk: Buffer; copy: Buffer }[] = []
    const listener = await serve(transport, {
      data(conn, chunk) {
        kept.push({ conn, chunk: conn.retain(chunk), copy: Buffer.from(chunk) })
      },
      end() {},
    })
    const peers: Peer[] = []
    for (let i = 0; i < 8; i++) peers.push(await connect(listener))
    for (let round = 0; round < 40; round++) {
      for (const peer of peers) peer.socket.write(randomBytes(randomInt(1, 20 * KiB)))
      await turn()
      while (kept.length > 60) {
        const [{ conn, chunk, copy }] = kept.splice(randomInt(0, kept.length - 1), 1) as [(typeof kept)[number]]
        expectBytes(chunk, copy, 'a retained chunk')
        conn.release(chunk)
      }
    }
    expect(stats().slabInUseBytes).toBeGreaterThan(0)
    for (const { conn, chunk, copy } of kept) {
      expectBytes(chunk, copy, 'a retained chunk')
      conn.release(chunk)
    }
    for (const conn of listener.connections) conn.close()
    await within('all go', Promise.all(peers.map((peer) => peer.ended)))
  })

  test('a retained chunk outlives its connection', async () => {
    const kept = deferred<[Conn, Buffer]>()
    const listener = await serve(transport, {
      data(conn, chunk) {
        kept.resolve([conn, conn.retain(chunk)])
      },
    })
    const peer = await connect(listener)
    peer.socket.end('remember me')
    const [conn, chunk] = await within('a chunk comes', kept.promise)
    await allClosed(listener)
    const noise = await connect(listener)
    noise.socket.write(randomBytes(100 * KiB))
    await turn()
    expect(chunk.toString()).toBe('remember me')
    conn.release(chunk)
  })

  test('fan-out: a retained chunk is written to many connections, and released at once', async () => {
    const listener = await serve(
      transport,
      {
        data(conn, chunk) {
          conn.retain(chunk)
          void turn().then(() => {
            for (const other of listener.connections) other.write(chunk)
            conn.release(chunk)
          })
        },
        end() {},
      },
      { maxBufferedBytes: 64 * MiB },
    )
    const peers: Peer[] = []
    for (let i = 0; i < 10; i++) peers.push(await connect(listener))
    await until('all are accepted', () => listener.stats().open === 10)
    for (const peer of peers.slice(5)) peer.socket.pause()
    const payload = randomBytes(2 * MiB)
    for (const piece of pieces(payload, 100 * KiB)) await peers[0]!.send(piece)
    for (const peer of peers.slice(0, 5)) expectBytes(await peer.bytes(payload.length), payload)
    for (const peer of peers.slice(5)) peer.socket.resume()
    for (const peer of peers) expectBytes(await peer.bytes(payload.length), payload)
    for (const conn of listener.connections) conn.close()
  })
})

test('a part of a chunk stands for its chunk, and retains count', async () => {
  const done = deferred<string[]>()
  const listener = await serve(tcp4, {
    data(conn, chunk) {
      const codes: string[] = []
      const attempt = (act: () => void) => {
        try {
          act()
          codes.push('ok')
        } catch (error) {
          codes.push((error as { code: string }).code)
        }
      }
      const part = chunk.subarray(2, 4)
      attempt(() => conn.release(chunk)) // nobody has retained it
      attempt(() => conn.retain(part))
      attempt(() => conn.retain(new Uint8Array(chunk.buffer, chunk.byteOffset, 1)))
      attempt(() => conn.release(part))
      attempt(() => conn.release(chunk)) // the whole for its part
      attempt(() => conn.release(part)) // once too often
      attempt(() => conn.retain(Buffer.from('mine')))
      attempt(() => conn.retain('text' as unknown as Buffer))
      attempt(() => conn.release(undefined as unknown as Buffer))
      done.resolve(codes)
    },
  })
  const peer = await connect(listener)
  peer.socket.write('abcdef')
  const bad = 'ERR_NOT_RETAINED'
  expect(await within('the handler runs', done.promise)).toEqual([bad, 'ok', 'ok', 'ok', 'ok', bad, bad, bad, bad])
})

test('chunks that waited for resume() are lent like any other, small ones too', async () => {
  const kept: [Conn, Buffer][] = []
  const listener = await serve(unix, {
    open: (conn) => conn.pause(),
    data(conn, chunk) {
      kept.push([conn, conn.retain(chunk)])
      conn.pause()
      setImmediate(() => conn.resume())
    },
    end() {},
  })
  const peer = await connect(listener)
  const payload = randomBytes(64 * KiB + 100)
  await peer.send(payload)
  await sleep(20)
  const [conn] = [...listener.connections]
  conn!.resume()
  await until('all has come', () => conn!.bytesRead === payload.length && sum(kept) === payload.length)
  expectBytes(Buffer.concat(kept.map(([, chunk]) => chunk)), payload)
  for (const [owner, chunk] of kept) owner.release(chunk)
  expect(conn!.state).toBe('open')
})

const sum = (kept: [Conn, Buffer][]) => kept.reduce((bytes, [, chunk]) => bytes + chunk.length, 0)

test('a chunk that is kept without retain() can neither be retained nor released later', async () => {
  const stale = deferred<[Conn, Buffer]>()
  const listener = await serve(tcp4, { data: (conn, chunk) => stale.resolve([conn, chunk]) })
  const peer = await connect(listener)
  peer.socket.write('abcdef')
  const [conn, chunk] = await within('a chunk comes', stale.promise)
  await turn()
  expect(() => conn.retain(chunk)).toThrow(expect.objectContaining({ code: 'ERR_NOT_RETAINED' }))
  expect(() => conn.release(chunk)).toThrow(expect.objectContaining({ code: 'ERR_NOT_RETAINED' }))
})

test('writing a large stale chunk sends some bytes, of that length, and harms nothing', async () => {
  let stale: Buffer | undefined
  const listener = await serve(tcp4, {
    data(_, chunk) {
      if (chunk.length > 8 * KiB) stale ??= chunk
    },
    end() {},
  })
  const peer = await connect(listener)
  await peer.send(randomBytes(MiB))
  await until('a large chunk came', () => stale !== undefined)
  const [conn] = [...listener.connections]
  conn!.write(stale!)
  await peer.bytes(stale!.length)
  conn!.close()
})

test('small leases share chunks: two hundred retained messages do not take two hundred chunks', async () => {
  const kept: [Conn, Buffer][] = []
  const listener = await serve(tcp4, {
    data(conn, chunk) {
      kept.push([conn, conn.retain(chunk)])
      conn.write('.')
    },
  })
  const peer = await connect(listener)
  for (let i = 0; i < 200; i++) {
    await peer.send(Buffer.from(`message ${i}`.padEnd(64)))
    await peer.bytes(i + 1)
  }
  expect(kept.length).toBe(200)
  expect(stats().slabInUseBytes).toBeLessThanOrEqual(MiB)
  kept.forEach(([, chunk], i) => {
    expect(chunk.toString().trim()).toBe(`message ${i}`)
  })
  for (const [conn, chunk] of kept) conn.release(chunk)
})

test('a chunk that waited is held until its handler settles, also when that closes the connection', async () => {
  const end = await run(
    `
    const held = []
    const settle = []
    const other = await listen({ host: '127.0.0.1', port: 0 }, { data() {} })
    const server = await listen({ host: '127.0.0.1', port: 0 }, {
      data(conn, chunk) {
        if (chunk[0] !== 0x61) return
        if (conn.data === undefined) {
          conn.data = 'paused'
          conn.pause()
          setTimeout(() => conn.resume(), 20)
          return
        }
        held.push(chunk)
        conn.close()
        void other.close() // anything that flushes
        return new Promise((resolve) => settle.push(resolve))
      },
    })
    for (let i = 0; i < 10; i++) {
      const client = net.connect(server.port, '127.0.0.1').on('error', () => {})
      client.write(Buffer.alloc(400000, 'a'))
      while (held.length === i) await sleep(1)
      const noise = net.connect(server.port, '127.0.0.1')
      for (let k = 0; k < 5; k++) { noise.write(Buffer.alloc(100000, 'n')); await sleep(1) }
      noise.destroy()
      const [chunk] = held.slice(-1)
      if (chunk.length < 4096) throw new Error('no large chunk was held: ' + chunk.length)
      if (!chunk.every((byte) => byte === 0x61)) throw new Error('the chunk was overwritten')
      settle.pop()()
      await sleep(2)
      if (chunk.every((byte) => byte === 0x61)) throw new Error('the chunk was not let go')
      client.destroy()
    }
    await server.shutdown()
    print(stats().slabInUseBytes)
  `,
    { EDGEWIRE_DEBUG: '1' },
  )
  expect(end, end.stderr).toMatchObject({ code: 0, signal: null, stdout: '0\n' })
})

test('EDGEWIRE_DEBUG=1 poisons a chunk that is kept without retain()', async () => {
  const end = await run(
    `
    let stale
    const server = await listen({ host: '127.0.0.1', port: 0 }, { data(conn, chunk) { stale = chunk } })
    const client = net.connect(server.port, '127.0.0.1')
    client.write('the original bytes')
    while (stale === undefined) await sleep(1)
    await sleep(20)
    print(stale.toString('latin1') === 'the original bytes' ? 'kept' : 'poisoned')
    client.destroy()
    await server.shutdown()
  `,
    { EDGEWIRE_DEBUG: '1' },
  )
  expect(end, end.stderr).toMatchObject({ code: 0, stdout: 'poisoned\n' })
})
