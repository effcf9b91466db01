// @ts-check
// The apps of the benchmark on Deno.listen: an async loop per connection, written as a careful user would write them.
//
//   deno run --allow-net deno_server.mjs --port 0 [--host 127.0.0.1] [--app echo]
//                                                                    prints "listening on 127.0.0.1:PORT"
//
// The apps are described in bench/README.md. SIGTERM or SIGINT ends it with status 0.
import { Buffer } from 'node:buffer'
import { BACKLOG, endOnSignals, readOptions } from './options.mjs'
import { CountParser, encodeCount, encodeFrames, FrameParser, LineParser, nextPiece } from './protocols.mjs'

const { host, port, app, deadlineMs } = readOptions('deno_server')

// Deno's types are not installed here: `any` is its TcpConn.
const { Deno } = /** @type {any} */ (globalThis)

const READ_BYTES = 68 * 1024 // as the floor's: a message of 64 KiB is a short read, after which nobody asks again
const SUBSCRIBE = 0x53 // S

/**
 * Buffers of connections that are over: a fresh one for each that comes would keep the garbage collector busy.
 * @type {Buffer[]}
 */
const spareBuffers = []
const SPARE_BUFFERS_MAX = 1024

/**
 * write() may take fewer bytes than it is given.
 * @param {any} conn
 * @param {Uint8Array} bytes
 */
async function writeAll(conn, bytes) {
  let sent = await conn.write(bytes)
  while (sent < bytes.length) sent += await conn.write(bytes.subarray(sent))
}

const subscribers = new Set()
/** Publishers take turns, so that no message lies within another one. */
let published = Promise.resolve()

/** A publisher is not read from until all subscribers have its message. */
function publish(message) {
  published = published.then(async () => {
    await Promise.all([...subscribers].map((conn) => writeAll(conn, message).catch(() => subscribers.delete(conn))))
  })
  return published
}

/** @type {Record<string, (conn: any, buffer: Buffer) => Promise<void>>} */
const apps = {
  async echo(conn, buffer) {
    for (let count = await conn.read(buffer); count !== null; count = await conn.read(buffer)) {
      await writeAll(conn, buffer.subarray(0, count))
    }
  },

  async deadline(conn, buffer) {
    let deadline = 0
    const restart = () => {
      clearTimeout(deadline)
      deadline = /** @type {any} */ (setTimeout(() => conn.close(), deadlineMs))
    }
    try {
      restart()
      for (let count = await conn.read(buffer); count !== null; count = await conn.read(buffer)) {
        restart()
        await writeAll(conn, buffer.subarray(0, count))
      }
    } finally {
      clearTimeout(deadline)
    }
  },

  async fanout(conn, buffer) {
    let count = await conn.read(buffer)
    if (count === null) return
    if (buffer[0] !== SUBSCRIBE) {
      for (; count !== null; count = await conn.read(buffer)) await publish(buffer.subarray(0, count))
      return
    }
    await writeAll(conn, Buffer.from('S'))
    subscribers.add(conn)
    try {
      while (count !== null) count = await conn.read(buffer)
    } finally {
      subscribers.delete(conn)
    }
  },

  async lines(conn, buffer) {
    const parser = new LineParser()
    const decoder = new TextDecoder()
    const encoder = new TextEncoder()
    while (!parser.broken) {
      const count = await conn.read(buffer)
      if (count === null) return
      const replies = parser.feed(decoder.decode(buffer.subarray(0, count)))
      if (replies !== '') await writeAll(conn, encoder.encode(replies))
    }
  },

  async frames(conn, buffer) {
    const parser = new FrameParser()
    while (!parser.broken) {
      const count = await conn.read(buffer)
      if (count === null) return
      const payloads = parser.feed(buffer.subarray(0, count))
      if (payloads.length > 0) await writeAll(conn, encodeFrames(payloads))
    }
  },

  async sink(conn, buffer) {
    let total = 0
    for (let count = await conn.read(buffer); count !== null; count = await conn.read(buffer)) total += count
    await writeAll(conn, encodeCount(total))
  },

  async source(conn, buffer) {
    const parser = new CountParser()
    let left
    while (left === undefined) {
      const count = await conn.read(buffer)
      if (count === null) return
      left = parser.feed(buffer.subarray(0, count))
    }
    while (left > 0) {
      const piece = nextPiece(left)
      await writeAll(conn, piece)
      left -= piece.length
    }
  },
}

const serve = apps[app]

async function serveOne(conn) {
  const buffer = spareBuffers.pop() ?? Buffer.alloc(READ_BYTES)
  try {
    conn.setNoDelay(true)
    await serve(conn, buffer)
  } catch {
    // The peer is gone.
  }
  try {
    conn.close()
  } catch {
    // Closed by its deadline.
  }
  if (spareBuffers.length < SPARE_BUFFERS_MAX) spareBuffers.push(buffer)
}

endOnSignals()

const listener = Deno.listen({ hostname: host, port, tcpBacklog: BACKLOG })
console.log(`listening on ${host}:${listener.addr.port}`)
for await (const conn of listener) void serveOne(conn)
