// Orderly ends: whatever else goes on, what was written arrives, what came is delivered, and each end is told once.

import net from 'node:net'
import { type Conn, dial, type Handlers, stats, type Task } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  allClosed,
  atEnd,
  connect,
  deferred,
  expectBytes,
  KiB,
  MiB,
  mainTransports,
  type Peer,
  placeOf,
  randomBytes,
  serve,
  sleep,
  tcp4,
  turn,
  until,
  within,
} from './harness.ts'

const named = mainTransports.map((transport) => [transport.name, transport] as const)

/** Reads at most 64 KiB at a time, and waits in between. */
function readSlowly({ socket }: Peer, ms: number): void {
  socket.on('data', () => {
    socket.pause()
    setTimeout(() => socket.resume(), ms)
  })
  socket.resume()
}

const payload = randomBytes(3_000_000)

const waitingStyles: [string, Handlers | Task][] = [
  ['handlers', { open: (conn) => void conn.write(payload), data() {} }],
  [
    'a task in read()',
    async (conn) => {
      conn.write(payload)
      const into = new Uint8Array(100)
      while ((await conn.read(into)) !== null);
    },
  ],
  [
    'a task in for await',
    async (conn) => {
      conn.write(payload)
      for await (const _ of conn) void _
    },
  ],
  [
    'a task in read() that closes',
    async (conn) => {
      await using closing = conn
      closing.write(payload)
      await closing.read(new Uint8Array(100))
    },
  ],
]

describe.each(named)('%s: shutdown() with megabytes queued for a slow reader', (_, transport) => {
  test.each(waitingStyles)('%s: every byte and FIN arrive', async (_, style) => {
    const errors: unknown[] = []
    const listener = await serve(transport, style, { onError: (error) => void errors.push(error) })
    const peer = await connect(listener)
    peer.socket.pause()
    await until('it is accepted', () => listener.stats().accepted === 1)
    const [conn] = [...listener.connections] as [Conn]
    await until('it has written', () => conn.bytesWritten > 0)
    await sleep(20)
    const down = listener.shutdown()
    readSlowly(peer, 2)
    await within('the peer gets FIN', peer.ended)
    expectBytes(peer.received, payload)
    await within('it shuts down', down)
    expect(await within('the peer closes', peer.closed)).toBeUndefined()
    expect(await conn.closed).toBeUndefined()
    expect(errors).toEqual([])
    expect(listener.stats()).toMatchObject({ open: 0, handlerErrors: 0 })
  })

  test.each(waitingStyles)('%s: the peer closes in order', async (_, style) => {
    const errors: unknown[] = []
    const listener = await serve(transport, style, { onError: (error) => void errors.push(error) })
    const peer = await connect(listener)
    await peer.bytes(payload.length)
    peer.finish()
    await within('the peer gets FIN', peer.ended)
    expect(await within('the peer closes', peer.closed)).toBeUndefined()
    await allClosed(listener)
    expect(errors).toEqual([])
  })
})

// The megabytes are with the kernel within a moment; the reader needs seconds for them and sends all the while.
test('close() waits for a slow reader that keeps sending until it has everything, not for a second', async () => {
  const closed = deferred<unknown>()
  let answered = false
  const listener = await serve(tcp4, {
    data(conn) {
      if (answered) return
      answered = true
      conn.write(payload)
      conn.close()
    },
    close: (_, error) => closed.resolve(error),
  })
  const peer = await dial(placeOf(listener))
  atEnd(() => peer.abort())
  // With a buffer that grew, the peer's kernel could have everything long before the peer.
  peer.setRecvBufferSize(64 * KiB)
  peer.write('request')
  const got: Buffer[] = []
  const into = new Uint8Array(200_000)
  const began = Date.now()
  for (let bytes = 0; ; ) {
    const count = await within('more comes', peer.read(into), 25_000)
    if (count === null) break
    got.push(Buffer.from(into.subarray(0, count)))
    bytes += count
    peer.write('more')
    while (bytes > (Date.now() - began) * 1100) await sleep(5)
  }
  expectBytes(Buffer.concat(got), payload)
  expect(Date.now() - began, 'it was over too soon to show anything').toBeGreaterThan(1500)
  expect(await within('the server closes', closed.promise)).toBeUndefined()
})

/** A node:net server that answers FIN with `answer` and FIN; its port. */
async function answering(answer: Buffer): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {}).resume()
    socket.on('end', () => void socket.end(answer))
  })
  atEnd(() => server.close())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as net.AddressInfo).port
}

describe('both directions have ended while the connection is paused', () => {
  const answer = randomBytes(120_000)

  /** Dials, and lets everything come in one batch; `data` pauses at the first chunk. */
  async function heldClosed(later: (conn: Conn) => unknown) {
    const seen: string[] = []
    const got: Buffer[] = []
    const conn = await dial(
      { host: '127.0.0.1', port: await answering(answer) },
      {
        data(it, chunk) {
          got.push(Buffer.from(chunk))
          if (seen.at(-1) !== 'data') seen.push('data')
          return got.length === 1 ? it.pause() : later(it)
        },
        end: () => seen.push('end'),
        close: (_, error) => seen.push(`close ${error}`),
      },
    )
    conn.closeWrite()
    await until('all has been read', () => conn.state === 'closed')
    await sleep(5)
    expect(seen).toEqual(['data'])
    expect(conn.bytesRead).toBe(answer.length)
    expect(got.length).toBe(1)
    return { seen, got, conn }
  }

  test('resume() delivers what is held, then one `end`, then one `close`', async () => {
    const { seen, got, conn } = await heldClosed(() => {})
    conn.resume()
    await until('it is told', () => seen.length >= 3)
    expectBytes(Buffer.concat(got), answer)
    expect(seen).toEqual(['data', 'end', 'close undefined'])
    expect(await within('closed resolves', conn.closed)).toBeUndefined()
    conn.resume()
    await sleep(5)
    expect(seen.length).toBe(3)
  })

  test('`data` may pause it again', async () => {
    const { seen, got, conn } = await heldClosed((it) => it.pause())
    const resumed = () => {
      conn.resume()
      return seen.length >= 3
    }
    await until('it is told', resumed, () => seen.join(), 500)
    expectBytes(Buffer.concat(got), answer)
    expect(seen).toEqual(['data', 'end', 'close undefined'])
  })

  test('`data` may throw: it is closed all the same', async () => {
    const { seen, conn } = await heldClosed((it) => it.write('an answer, too late'))
    conn.resume()
    await sleep(20)
    expect(seen.filter((what) => what.startsWith('close')).length).toBe(1)
  })

  test.each(['close', 'abort'] as const)('%s() gives up what is held, and `close` is told', async (how) => {
    const { seen, conn } = await heldClosed(() => {})
    const over = conn.closed
    conn[how]()
    conn.pause()
    expect(seen).toEqual(['data'])
    await until('close is told', () => seen.length > 1)
    expect(seen).toEqual(['data', 'close undefined'])
    conn.resume()
    conn[how]()
    await sleep(5)
    expect(seen.length).toBe(2)
    expect(await within('closed resolves', over)).toBeUndefined()
    expect(stats().slabInUseBytes).toBe(0)
  })

  test.each(['close', 'abort'] as const)('after %s() in `data` there is only `close`', async (how) => {
    const { seen, conn } = await heldClosed((it) => it[how]())
    conn.resume()
    await until('close is told', () => seen.length > 1)
    await sleep(5)
    expect(seen).toEqual(['data', 'close undefined'])
  })

  test('a task reads what is held, then null', async () => {
    const conn = await dial({ host: '127.0.0.1', port: await answering(answer) })
    conn.closeWrite()
    const first = new Uint8Array(1)
    expect(await within('a read', conn.read(first))).toBe(1)
    await sleep(30)
    const got: Buffer[] = [Buffer.from(first)]
    for await (const chunk of conn) got.push(chunk)
    expectBytes(Buffer.concat(got), answer)
    expect(await within('it ends', conn.closed)).toBeUndefined()
  })
})

describe.each(named)('%s', (_, transport) => {
  test('`end` is told once, however often it is paused and resumed after it', async () => {
    const seen: string[] = []
    const listener = await serve(transport, {
      data: (_, chunk) => seen.push(chunk.toString()),
      end: () => seen.push('end'),
      close: () => seen.push('close'),
    })
    const peer = await connect(listener, { allowHalfOpen: true })
    peer.socket.end('x')
    await until('end is told', () => seen.includes('end'))
    const [conn] = [...listener.connections] as [Conn]
    for (let i = 0; i < 3; i++) {
      conn.pause()
      conn.resume()
      await turn()
      conn.pause()
      await turn()
      conn.resume()
      await turn()
    }
    expect(seen).toEqual(['x', 'end'])
    conn.close()
    await allClosed(listener)
    expect(seen).toEqual(['x', 'end', 'close'])
  })

  test('`end` that came while it was paused is not told after `close`', async () => {
    const seen: string[] = []
    const paused = deferred<Conn>()
    const listener = await serve(transport, {
      data(conn) {
        conn.pause()
        paused.resolve(conn)
      },
      end: () => seen.push('end'),
      close: (_, error) => seen.push(`close ${error?.code}`),
    })
    const peer = await connect(listener, { allowHalfOpen: true })
    peer.socket.end('x')
    const conn = await within('it is paused', paused.promise)
    await until('the FIN is there', () => conn.state === 'read-closed')
    conn.abort()
    await allClosed(listener)
    conn.resume()
    await turn()
    expect(seen).toEqual(['close ERR_CONN_ABORTED'])
  })

  test('`end` that came while it was paused is told once, after the bytes', async () => {
    const seen: string[] = []
    const listener = await serve(transport, {
      open: (conn) => conn.pause(),
      data: (_, chunk) => seen.push(chunk.toString()),
      end: () => seen.push('end'),
    })
    const peer = await connect(listener, { allowHalfOpen: true })
    peer.socket.end('x')
    await sleep(10)
    expect(seen).toEqual([])
    const [conn] = [...listener.connections] as [Conn]
    for (let i = 0; i < 3; i++) {
      conn.resume()
      conn.pause()
      conn.resume()
      await turn()
    }
    await until('end is told', () => seen.includes('end'))
    await sleep(5)
    expect(seen).toEqual(['x', 'end'])
    conn.close()
  })

  test.each(['close', 'abort'] as const)(
    '%s() of a paused connection: nothing follows `close` at resume()',
    async (act) => {
      const seen: string[] = []
      const listener = await serve(transport, {
        open: (conn) => conn.pause(),
        data: () => seen.push('data'),
        end: () => seen.push('end'),
        close: () => seen.push('close'),
      })
      const peer = await connect(listener, { allowHalfOpen: true })
      peer.finish()
      await until('it is accepted', () => listener.stats().open === 1)
      const [conn] = [...listener.connections] as [Conn]
      await until('FIN is noticed', () => conn.state === 'read-closed')
      conn[act]()
      await until('it is closed', () => seen.includes('close'))
      conn.resume()
      await turn()
      expect(seen).toEqual(['close'])
    },
  )

  test('an async handler that answers when the peer has gone is no uncaught exception', async () => {
    const errors: unknown[] = []
    const attempts: string[] = []
    const listener = await serve(
      transport,
      {
        async data(conn) {
          await sleep(20)
          attempts.push(conn.state)
          conn.write('too late')
        },
      },
      { onError: (error) => void errors.push(error) },
    )
    const gone = await connect(listener)
    gone.socket.end('request')
    const broken = await connect(listener)
    await broken.send('request')
    await until('both are asked', () => [...listener.connections].every((conn) => conn.bytesRead > 0))
    broken.reset()
    await allClosed(listener)
    await until('both have answered', () => attempts.length === 2)
    await sleep(5)
    expect(attempts).not.toContain('open')
    expect(errors).toEqual([])
    expect(listener.stats().handlerErrors).toBe(0)
  })

  test('a task that answers after shutdown() is no uncaught exception', async () => {
    const errors: unknown[] = []
    const asked = deferred()
    const answered = deferred<unknown>()
    const listener = await serve(
      transport,
      async (conn) => {
        await conn.read(new Uint8Array(100))
        asked.resolve()
        await sleep(20)
        try {
          conn.write('too late')
        } catch (error) {
          answered.resolve(error)
          throw error
        }
      },
      { onError: (error) => void errors.push(error) },
    )
    const peer = await connect(listener)
    peer.socket.write('request')
    await within('it is asked', asked.promise)
    await within('it shuts down', listener.shutdown())
    expect(await within('it has answered', answered.promise)).toMatchObject({ code: 'ERR_CONN_CLOSED', op: 'write' })
    await sleep(5)
    expect(errors).toEqual([])
    expect(listener.stats().handlerErrors).toBe(0)
    expect(await within('the peer closes', peer.closed)).toBeUndefined()
  })
})

test('the bytes that a dying process sent last are read though the answer to it fails', async () => {
  const got: Buffer[] = []
  const ended = deferred<unknown>()
  const listener = await serve(
    tcp4,
    async (conn) => {
      const into = new Uint8Array(10 * KiB)
      for (let count = await conn.read(into); count !== null; count = await conn.read(into)) {
        got.push(Buffer.from(into.subarray(0, count)))
        conn.write('ok')
      }
    },
    { onError: ended.resolve },
  )
  const peer = await connect(listener)
  const words = randomBytes(MiB / 4)
  await peer.send(words)
  peer.reset()
  await allClosed(listener)
  const read = Buffer.concat(got)
  expectBytes(read, words.subarray(0, read.length))
})
