// @ts-check
// The apps of edgewire_server.mjs as a task per connection: blocking style, as in Go. When a task returns, its connection
// is closed.
import { Buffer } from 'node:buffer'
import { FrameParser, HEADER_BYTES, LineParser } from './protocols.mjs'

/** @typedef {import('../../dist/index.js').Task} Task */

const READ_BYTES = 16 * 1024

/** Small writes are copied at once, so that one header serves all frames. */
const header = Buffer.alloc(HEADER_BYTES)

/**
 * @param {number} deadlineMs
 * @returns {Record<string, Task>}
 */
export const tasksOf = (deadlineMs) => ({
  async echo(conn) {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
    for (;;) {
      const count = await conn.read(buffer)
      if (count === null) return
      if (!conn.write(buffer.subarray(0, count))) await conn.drained()
    }
  },

  async deadline(conn) {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
    for (;;) {
      conn.setReadDeadline(Date.now() + deadlineMs)
      const count = await conn.read(buffer)
      if (count === null) return
      if (!conn.write(buffer.subarray(0, count))) await conn.drained()
    }
  },

  async lines(conn) {
    const parser = new LineParser()
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
    while (!parser.broken) {
      const count = await conn.read(buffer)
      if (count === null) return
      const replies = parser.feed(buffer.toString('latin1', 0, count))
      if (replies !== '' && !conn.write(replies)) await conn.drained()
    }
  },

  async frames(conn) {
    const parser = new FrameParser()
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
    while (!parser.broken) {
      const count = await conn.read(buffer)
      if (count === null) return
      let mayGoOn = true
      // All writes of a turn go out together.
      for (const payload of parser.feed(buffer.subarray(0, count))) {
        header.writeUInt32BE(payload.length)
        conn.write(header)
        mayGoOn = conn.write(payload)
      }
      if (!mayGoOn) await conn.drained()
    }
  },
})
