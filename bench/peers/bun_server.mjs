// @ts-check
// The apps of the benchmark on Bun.listen, written as a careful user would write them.
//
//   bun bun_server.mjs --port 0 [--host 127.0.0.1] [--app echo]      prints "listening on 127.0.0.1:PORT"
//
// The apps are described in bench/README.md. SIGTERM or SIGINT ends it with status 0.
//
// What is special about Bun.listen: write() may take fewer bytes than it is given, and `drain` says when to go on, so
// the rest is kept here; TCP_NODELAY is on by itself; the backlog is always 512. `data` gives a buffer of the handler's
// own, so a rest need not be copied.
import { Buffer } from 'node:buffer'
import { FanOut } from './fan_out.mjs'
import { endOnSignals, readOptions } from './options.mjs'
import { CountParser, encodeCount, encodeFrames, FrameParser, LineParser, nextPiece } from './protocols.mjs'

const { host, port, app, deadlineMs } = readOptions('bun_server')

const deadlineS = deadlineMs / 1000

// Bun's types are not installed here: `any` is its Socket.

/** What the system did not take of a connection's output. `parser` and what else an app keeps of it stand beside that. */
class Output {
  /** @type {Buffer | undefined} */
  rest
  /** Close when the rest has been sent. */
  ending = false
}

/**
 * Returns false when something has to wait for `drain`.
 * @param {any} socket its data is an Output
 * @param {Buffer} bytes
 */
function send(socket, bytes) {
  const output = socket.data
  if (output.rest !== undefined) {
    output.rest = Buffer.concat([output.rest, bytes])
    return false
  }
  const sent = socket.write(bytes)
  if (sent === bytes.length || sent < 0) return true // negative: closed, and `close` follows
  output.rest = bytes.subarray(sent)
  return false
}

/** The same for ASCII text, of which a rest becomes bytes. */
function sendText(socket, text) {
  const output = socket.data
  if (output.rest !== undefined) return send(socket, Buffer.from(text, 'latin1'))
  const sent = socket.write(text)
  if (sent === text.length || sent < 0) return true
  output.rest = Buffer.from(text.slice(sent), 'latin1')
  return false
}

/** In `drain`: returns true when nothing is left. */
function sendRest(socket) {
  const output = socket.data
  if (output.rest === undefined) return true
  const sent = socket.write(output.rest)
  if (sent < 0) return false
  output.rest = sent === output.rest.length ? undefined : output.rest.subarray(sent)
  return output.rest === undefined
}

function end(socket) {
  if (socket.data.rest === undefined) socket.end()
  else socket.data.ending = true
}

function resumeWhenSent(socket) {
  if (!sendRest(socket)) return
  if (socket.data.ending) socket.end()
  else socket.resume()
}

/** Echo keeps nothing for a connection but its rest, so that is the socket's data. While there is one, it is paused. */
function echo(socket, chunk) {
  if (socket.data !== undefined) {
    socket.data = Buffer.concat([socket.data, chunk])
    return
  }
  const sent = socket.write(chunk)
  if (sent === chunk.length || sent < 0) return
  socket.data = chunk.subarray(sent)
  socket.pause()
}

function echoRest(socket) {
  if (socket.data === undefined) return
  const sent = socket.write(socket.data)
  if (sent < 0) return
  socket.data = sent === socket.data.length ? undefined : socket.data.subarray(sent)
  if (socket.data === undefined) socket.resume()
}

function sendPieces(socket) {
  const { data } = socket
  while (data.left > 0) {
    const piece = nextPiece(data.left)
    data.left -= piece.length
    if (!send(socket, piece)) return
  }
  end(socket)
}

/** @type {FanOut<any>} */
const fanOut = new FanOut((socket, bytes) =>
  typeof bytes === 'string' ? sendText(socket, bytes) : send(socket, bytes),
)

/** @type {Record<string, Record<string, (socket: any, chunk: Buffer) => void>>} */
const apps = {
  echo: { data: echo, drain: echoRest },

  deadline: {
    open(socket) {
      socket.timeout(deadlineS)
    },
    data(socket, chunk) {
      socket.timeout(deadlineS)
      echo(socket, chunk)
    },
    drain: echoRest,
    timeout(socket) {
      socket.terminate()
    },
  },

  fanout: {
    open(socket) {
      socket.data = new Output()
    },
    data(socket, chunk) {
      fanOut.received(socket, chunk)
    },
    drain(socket) {
      if (sendRest(socket)) fanOut.drained(socket)
    },
    close(socket) {
      fanOut.left(socket)
    },
  },

  lines: {
    open(socket) {
      socket.data = Object.assign(new Output(), { parser: new LineParser() })
    },
    data(socket, chunk) {
      const { parser } = socket.data
      if (parser.broken) return
      const replies = parser.feed(chunk.toString('latin1'))
      if (replies !== '' && !sendText(socket, replies)) socket.pause()
      if (parser.broken) end(socket)
    },
    drain: resumeWhenSent,
  },

  frames: {
    open(socket) {
      socket.data = Object.assign(new Output(), { parser: new FrameParser() })
    },
    data(socket, chunk) {
      const { parser } = socket.data
      if (parser.broken) return
      const payloads = parser.feed(chunk)
      if (payloads.length > 0 && !send(socket, encodeFrames(payloads))) socket.pause()
      if (parser.broken) end(socket)
    },
    drain: resumeWhenSent,
  },

  sink: {
    open(socket) {
      socket.data = Object.assign(new Output(), { count: 0 })
    },
    data(socket, chunk) {
      socket.data.count += chunk.length
    },
    end(socket) {
      send(socket, encodeCount(socket.data.count))
      end(socket)
    },
    drain: resumeWhenSent,
  },

  source: {
    open(socket) {
      socket.data = Object.assign(new Output(), { parser: new CountParser(), left: undefined })
    },
    data(socket, chunk) {
      const { data } = socket
      if (data.left !== undefined) return
      data.left = data.parser.feed(chunk)
      if (data.left !== undefined) sendPieces(socket)
    },
    drain(socket) {
      if (sendRest(socket)) sendPieces(socket)
    },
    end(socket) {
      if (socket.data.left === undefined) socket.end()
    },
  },
}

// These two answer after the peer's FIN. The others are not read from, and so do not see it, before they have answered:
// there the socket may close by itself, with fewer system calls.
const allowHalfOpen = app === 'sink' || app === 'source'

endOnSignals()

const { Bun } = /** @type {any} */ (globalThis)
const server = Bun.listen({ hostname: host, port, allowHalfOpen, socket: { ...apps[app], error() {} } })
console.log(`listening on ${host}:${server.port}`)
