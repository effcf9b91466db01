// One connection's output from every kind of memory at once (the arena, lent and retained chunks of the pool, buffers
// by reference) to a reader that stalls and then reads in pieces of any size.

import { type Conn, dial, type Handlers, stats } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  atEnd,
  deferred,
  expectBytes,
  KiB,
  MiB,
  mainTransports,
  pieces,
  placeOf,
  randomBytes,
  randomInt,
  serve,
  sleep,
  type Transport,
  until,
  within,
} from '../e2e/harness.ts'
import './pipes.ts'

const InputBytes = 3 * MiB

/** A server that answers each chunk with a mix of its own and the chunk's bytes, and keeps a copy of what it wrote. */
async function composer(
  transport: Transport,
  handlers: Handlers = {},
): Promise<{ client: Conn; written: Buffer[]; ended: Promise<void> }> {
  const written: Buffer[] = []
  const retained: Buffer[] = []
  const ended = deferred()
  const byReference = randomBytes(100_000)
  const put = (conn: Conn, data: Buffer | string) => {
    written.push(Buffer.from(data as string))
    conn.write(data)
  }
  const parts: ((conn: Conn, chunk: Buffer) => void)[] = [
    (conn, chunk) => put(conn, `${chunk.length}:漢`),
    (conn, chunk) => put(conn, chunk),
    (conn, chunk) => put(conn, chunk.subarray(randomInt(0, 100), randomInt(100, chunk.length))),
    (conn, chunk) => put(conn, chunk.subarray(0, Math.min(chunk.length, 4096))),
    (conn) => put(conn, byReference.subarray(randomInt(0, 999), randomInt(40_000, 100_000))),
    (conn) => put(conn, byReference.subarray(randomInt(0, 999), randomInt(5000, 30_000))),
    (conn, chunk) => void (retained.length < 20 && retained.push(conn.retain(chunk))),
    (conn) => {
      const kept = retained.shift()
      if (kept === undefined) return
      put(conn, kept)
      // Released while it may still wait to be sent: the write holds the chunk.
      conn.release(kept)
    },
  ]
  const listener = await serve(
    transport,
    {
      ...handlers,
      data(conn, chunk) {
        for (let i = randomInt(1, 6); i > 0; i--) parts[randomInt(0, parts.length - 1)]!(conn, chunk)
      },
      end(conn) {
        for (const chunk of retained.splice(0)) conn.release(chunk)
        conn.closeWrite()
        ended.resolve()
      },
    },
    { maxBufferedBytes: 1024 * MiB },
  )
  const client = await dial(placeOf(listener))
  atEnd(() => client.abort())
  return { client, written, ended: ended.promise }
}

async function feed(client: Conn, pause: boolean): Promise<void> {
  for (const piece of pieces(randomBytes(InputBytes), 70_000)) {
    if (!client.write(Buffer.from(piece))) await client.drained()
    if (pause && randomInt(0, 9) === 0) await sleep(1)
  }
  client.closeWrite()
}

async function collect(client: Conn, bufferBytes: () => number): Promise<Buffer> {
  const got: Buffer[] = []
  for (;;) {
    const into = new Uint8Array(bufferBytes())
    const count = await within('more comes', client.read(into))
    if (count === null) return Buffer.concat(got)
    got.push(Buffer.from(into.subarray(0, count)))
  }
}

describe.each(mainTransports.map((transport) => [transport.name, transport] as const))('%s', (_, transport) => {
  test('a composite of all kinds of memory, to a reader that first stalls', async () => {
    const { client, written, ended } = await composer(transport)
    await within('all is fed', feed(client, false))
    await within('all is answered', ended)
    expect(stats().slabInUseBytes).toBeGreaterThan(0)
    const got = await collect(client, () => (randomInt(0, 3) === 0 ? randomInt(1, 3000) : 200_000))
    expectBytes(got, Buffer.concat(written))
    await within('it is over', client.closed)
    await until('the pool has its chunks back', () => stats().slabInUseBytes === 0)
  })

  test('the same, to a reader that reads slowly all the while', async () => {
    const { client, written } = await composer(transport)
    const [got] = await within(
      'all is moved',
      Promise.all([collect(client, () => randomInt(KiB, 100_000)), feed(client, true)]),
      20_000,
    )
    expectBytes(got, Buffer.concat(written))
    await within('it is over', client.closed)
  })

  test('the smallest send buffer that the kernel gives: a few kilobytes fit into each send', async () => {
    const { client, written } = await composer(transport, { open: (conn) => conn.setSendBufferSize(1) })
    const flushes = stats().flushes
    const [got] = await within(
      'all is moved',
      Promise.all([collect(client, () => randomInt(KiB, 100_000)), feed(client, false)]),
      25_000,
    )
    expectBytes(got, Buffer.concat(written))
    expect(got.length / (stats().flushes - flushes), 'bytes that a send took').toBeLessThan(64 * KiB)
    await within('it is over', client.closed)
  })

  test('aborted half way, with output of all kinds queued, nothing is left', async () => {
    const { client, ended } = await composer(transport)
    await within('all is fed', feed(client, false))
    await within('all is answered', ended)
    client.abort()
    await within('it is over', client.closed)
    await until('the pool has its chunks back', () => stats().slabInUseBytes === 0)
  })
})
