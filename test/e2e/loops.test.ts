// The usual loop: read into a buffer, write from it, read into it again. It never sends what was not read, whatever the
// buffer's size and however slow the reader is.

import { type Conn, dial, type Task } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  connect,
  deferred,
  echoHandlers,
  expectBytes,
  KiB,
  MiB,
  type Peer,
  pieces,
  placeOf,
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

const sizes = [32 * KiB, 100_000, MiB]
const payload = randomBytes(8 * MiB)

/** Reads for a while and stalls for a while, so that the kernel's buffers are full again and again. */
function readInFits({ socket }: Peer): void {
  let unread = randomInt(1, 600 * KiB)
  socket.on('data', (chunk) => {
    unread -= chunk.length
    if (unread > 0) return
    unread = randomInt(1, 600 * KiB)
    socket.pause()
    setTimeout(() => socket.resume(), randomInt(1, 8))
  })
}

/** Everything sent at once, read in fits, and compared. */
async function expectEcho(transport: typeof tcp4, task: Task): Promise<void> {
  const peer = await connect(await serve(transport, task, { maxBufferedBytes: 64 * MiB }))
  peer.socket.pause()
  peer.socket.write(payload)
  await sleep(20)
  readInFits(peer)
  peer.socket.resume()
  peer.finish()
  await within('the echo ends', peer.ended)
  expectBytes(peer.received, payload)
}

describe.each([tcp4, unix].map((transport) => [transport.name, transport] as const))('%s', (_, transport) => {
  test.each(sizes)('read, write, drained, with a buffer of %i bytes', async (size) => {
    await expectEcho(transport, async (conn) => {
      const buffer = new Uint8Array(size)
      for (;;) {
        const count = await conn.read(buffer)
        if (count === null) return
        conn.write(buffer.subarray(0, count))
        await conn.drained()
      }
    })
  })

  test.each(sizes)('read and write without waiting, with a buffer of %i bytes', async (size) => {
    await expectEcho(transport, async (conn) => {
      const buffer = Buffer.alloc(size)
      for (let count = await conn.read(buffer); count !== null; count = await conn.read(buffer)) {
        conn.write(buffer.subarray(0, count))
      }
    })
  })

  test.each(sizes)('small reads in between, so that bytes are held: a buffer of %i bytes', async (size) => {
    await expectEcho(transport, async (conn) => {
      const buffer = Buffer.alloc(size)
      for (let round = 0; ; round++) {
        // A header into the same memory, and the body behind it.
        const into = round % 3 === 0 ? buffer.subarray(0, randomInt(1, 2000)) : buffer
        const count = await conn.read(into)
        if (count === null) return
        conn.write(into.subarray(0, count))
        if (round % 2 === 0) await conn.drained()
      }
    })
  })

  test.each(sizes)('a message of several reads is written whole: a buffer of %i bytes', async (size) => {
    await expectEcho(transport, async (conn) => {
      const buffer = Buffer.alloc(size)
      for (;;) {
        let filled = 0
        while (filled < size) {
          const count = await conn.read(buffer.subarray(filled))
          if (count === null) break
          filled += count
        }
        if (filled === 0) return
        conn.write(buffer.subarray(0, filled))
        await conn.drained()
      }
    })
  })

  test.each(sizes)('two reads at a time into two buffers of %i bytes', async (size) => {
    await expectEcho(transport, async (conn) => {
      const buffers = [Buffer.alloc(size), Buffer.alloc(size)] as const
      const reads = [conn.read(buffers[0]), conn.read(buffers[1])]
      for (let turns = 0; ; turns++) {
        const which = turns % 2
        const count = await reads[which]!
        if (count === null || count === undefined) return
        conn.write(buffers[which]!.subarray(0, count))
        reads[which] = conn.read(buffers[which]!)
      }
    })
  })
})

test.each(sizes)('a proxy whose target stalls, with a buffer of %i bytes', async (size) => {
  const released = deferred()
  const got: Buffer[] = []
  const target = await serve(tcp4, async (conn) => {
    await released.promise
    for await (const chunk of conn) {
      got.push(chunk)
      if (randomInt(0, 20) === 0) await sleep(2)
    }
  })
  const proxied = deferred<Conn>()
  const proxy = await serve(
    tcp4,
    async (from) => {
      const to = await dial({ ...placeOf(target), maxBufferedBytes: 64 * MiB })
      proxied.resolve(to)
      const buffer = new Uint8Array(size)
      for (let count = await from.read(buffer); count !== null; count = await from.read(buffer)) {
        to.write(buffer.subarray(0, count))
      }
      await to[Symbol.asyncDispose]()
    },
    { maxBufferedBytes: 64 * MiB },
  )
  const peer = await connect(proxy)
  peer.socket.end(payload)
  const to = await within('the proxy dials', proxied.promise)
  await until('output is queued', () => to.bufferedAmount > MiB)
  released.resolve()
  await until('all arrives', () => got.reduce((sum, chunk) => sum + chunk.length, 0) === payload.length)
  expectBytes(Buffer.concat(got), payload)
  await within('the proxy ends', peer.ended)
})

test('one buffer for two connections that both stall', async () => {
  const listener = await serve(tcp4, echoHandlers, { maxBufferedBytes: 64 * MiB })
  const opened: Conn[] = []
  const sink = await serve(tcp4, { open: (conn) => void opened.push(conn) }, { maxBufferedBytes: 64 * MiB })
  const peers = [await connect(sink), await connect(sink)]
  for (const peer of peers) peer.socket.pause()
  await until('both are accepted', () => opened.length === 2)
  const source = await dial(placeOf(listener))
  const buffer = Buffer.alloc(256 * KiB)
  for (const piece of pieces(payload, 256 * KiB, 128 * KiB)) {
    source.write(Buffer.from(piece))
    for (let left = piece.length; left > 0; ) {
      const count = await within('the echo', source.read(buffer))
      for (const conn of opened) conn.write(buffer.subarray(0, count!))
      left -= count!
    }
  }
  expect(opened[0]!.bufferedAmount).toBeGreaterThan(MiB)
  for (const peer of peers) readInFits(peer)
  for (const peer of peers) peer.socket.resume()
  for (const peer of peers) {
    await until('all arrives', () => peer.receivedBytes >= payload.length)
    expectBytes(peer.received, payload)
  }
  source.close()
})

test('a read that fails, and one that is cut off, leave the written bytes as they were', async () => {
  const { conn, peer } = await stalled()
  const buffer = Buffer.alloc(100 * KiB)
  const sent = randomBytes(150 * KiB)
  await peer.send(sent)
  const count = (await within('a read', conn.read(buffer)))!
  conn.write(buffer.subarray(0, count))
  conn.setReadDeadline(Date.now() - 1)
  await conn.read(buffer).catch(() => {})
  conn.setReadDeadline(null)
  for (let read = count; read < sent.length; ) {
    const more = (await within('the rest', conn.read(buffer)))!
    conn.write(buffer.subarray(0, more))
    read += more
  }
  await turn()
  buffer.fill(0xee) // what the kernel has not taken is no longer sent from here
  peer.socket.resume()
  await until('all arrives', () => peer.receivedBytes >= fill.length + sent.length)
  expectBytes(peer.received.subarray(fill.length), sent)
  conn.close()
})

const fill = randomBytes(12 * MiB)

/** A connection whose peer does not read and whose kernel takes no more. */
async function stalled(): Promise<{ conn: Conn; peer: Peer }> {
  const opened = deferred<Conn>()
  const listener = await serve(
    tcp4,
    async (conn) => {
      opened.resolve(conn)
      await conn.closed
    },
    { maxBufferedBytes: 64 * MiB },
  )
  const peer = await connect(listener)
  peer.socket.pause()
  const conn = await within('the server accepts', opened.promise)
  conn.write(fill)
  let before = -1
  await until('the kernel takes no more', () => {
    const same = before === conn.bytesWritten && before > 0
    before = conn.bytesWritten
    return same
  })
  expect(conn.bufferedAmount).toBeGreaterThan(0)
  return { conn, peer }
}
