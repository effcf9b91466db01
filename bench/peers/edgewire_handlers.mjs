// @ts-check
// The apps of edgewire_server.mjs as event handlers. A chunk is lent until `data` returns; writing it is allowed.
import { Buffer } from 'node:buffer'
import { FanOut } from './fan_out.mjs'
import { CountParser, encodeCount, FrameParser, HEADER_BYTES, LineParser, nextPiece } from './protocols.mjs'

/** @typedef {import('../../dist/index.js').Conn} Conn */
/** @typedef {import('../../dist/index.js').Handlers} Handlers */

/** @type {FanOut<Conn>} */
const fanOut = new FanOut((conn, bytes) => conn.write(bytes))

/** Small writes are copied at once, so that one header serves all frames. */
const header = Buffer.alloc(HEADER_BYTES)

/** @param {Conn} conn */
function resume(conn) {
  conn.resume()
}

/** @param {Conn} conn */
function sendPieces(conn) {
  const stream = conn.data
  while (stream.left > 0) {
    const piece = nextPiece(stream.left)
    stream.left -= piece.length
    if (!conn.write(piece)) return
  }
  conn.close()
}

/**
 * @param {number} deadlineMs
 * @returns {Record<string, Handlers>}
 */
export const handlersOf = (deadlineMs) => ({
  echo: {
    data(conn, chunk) {
      if (!conn.write(chunk)) conn.pause()
    },
    drain: resume,
  },

  deadline: {
    open(conn) {
      conn.setReadDeadline(Date.now() + deadlineMs)
    },
    data(conn, chunk) {
      conn.setReadDeadline(Date.now() + deadlineMs)
      if (!conn.write(chunk)) conn.pause()
    },
    drain: resume,
  },

  fanout: {
    data(conn, chunk) {
      fanOut.received(conn, chunk)
    },
    drain(conn) {
      fanOut.drained(conn)
    },
    end(conn) {
      fanOut.left(conn)
      conn.close()
    },
    close(conn) {
      fanOut.left(conn)
    },
  },

  lines: {
    open(conn) {
      conn.data = new LineParser()
    },
    data(conn, chunk) {
      const parser = conn.data
      const replies = parser.feed(chunk.toString('latin1'))
      if (replies !== '' && !conn.write(replies)) conn.pause()
      if (parser.broken) conn.close()
    },
    drain: resume,
  },

  frames: {
    open(conn) {
      conn.data = new FrameParser()
    },
    data(conn, chunk) {
      const parser = conn.data
      let mayGoOn = true
      // All writes of a turn go out together.
      for (const payload of parser.feed(chunk)) {
        header.writeUInt32BE(payload.length)
        conn.write(header)
        mayGoOn = conn.write(payload)
      }
      if (!mayGoOn) conn.pause()
      if (parser.broken) conn.close()
    },
    drain: resume,
  },

  sink: {
    open(conn) {
      conn.data = { count: 0 }
    },
    data(conn, chunk) {
      conn.data.count += chunk.length
    },
    end(conn) {
      conn.write(encodeCount(conn.data.count))
      conn.close()
    },
  },

  source: {
    open(conn) {
      conn.data = { parser: new CountParser(), left: undefined }
    },
    data(conn, chunk) {
      const stream = conn.data
      if (stream.left !== undefined) return
      stream.left = stream.parser.feed(chunk)
      if (stream.left !== undefined) sendPieces(conn)
    },
    drain: sendPieces,
    end(conn) {
      if (conn.data.left === undefined) conn.close()
    },
  },
})
