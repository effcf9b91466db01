// @ts-check
// The server that edgewire has to beat: the apps of the benchmark on node:net, written as a careful user would write them
// (no Nagle delay, backpressure respected, errors of a peer ignored).
//
//   node net_server.mjs --port 0 [--host 127.0.0.1] [--app echo]     prints "listening on 127.0.0.1:PORT"
//   node net_server.mjs --path SOCKET [--app echo]                   prints "listening on SOCKET"
//
// The apps are described in bench/README.md. SIGTERM or SIGINT ends it with status 0.
import net from 'node:net'
import { FanOut } from './fan_out.mjs'
import { BACKLOG, endOnSignals, readOptions } from './options.mjs'
import { CountParser, encodeCount, encodeFrames, FrameParser, LineParser, nextPiece } from './protocols.mjs'

const { host, port, path, app, deadlineMs } = readOptions('net_server', { unix: true })

/**
 * Not read from while too much of what it was sent waits.
 * @param {net.Socket} socket
 */
function resumeOnDrain(socket) {
  socket.on('drain', () => socket.resume())
}

/** @type {FanOut<net.Socket>} */
const fanOut = new FanOut((socket, bytes) => socket.write(bytes))

/** @type {Record<string, (socket: net.Socket) => void>} */
const apps = {
  echo(socket) {
    socket.on('data', (chunk) => {
      if (!socket.write(chunk)) socket.pause()
    })
    resumeOnDrain(socket)
  },

  // Not socket.setTimeout(): what the server itself writes puts that off, too, so it is no deadline for the peer.
  deadline(socket) {
    const deadline = setTimeout(() => socket.destroy(), deadlineMs)
    socket.on('data', (chunk) => {
      deadline.refresh()
      if (!socket.write(chunk)) socket.pause()
    })
    resumeOnDrain(socket)
    socket.on('close', () => clearTimeout(deadline))
  },

  fanout(socket) {
    socket.on('data', (chunk) => fanOut.received(socket, chunk))
    socket.on('drain', () => fanOut.drained(socket))
    socket.on('end', () => fanOut.left(socket))
    socket.on('close', () => fanOut.left(socket))
  },

  lines(socket) {
    const parser = new LineParser()
    socket.on('data', (chunk) => {
      if (parser.broken) return
      const replies = parser.feed(chunk.toString('latin1'))
      if (parser.broken) socket.end(replies, 'latin1')
      else if (replies !== '' && !socket.write(replies, 'latin1')) socket.pause()
    })
    resumeOnDrain(socket)
  },

  frames(socket) {
    const parser = new FrameParser()
    socket.on('data', (chunk) => {
      if (parser.broken) return
      const payloads = parser.feed(chunk)
      if (payloads.length > 0 && !socket.write(encodeFrames(payloads))) socket.pause()
      if (parser.broken) socket.end()
    })
    resumeOnDrain(socket)
  },

  sink(socket) {
    let count = 0
    socket.on('data', (chunk) => {
      count += chunk.length
    })
    socket.on('end', () => socket.end(encodeCount(count)))
  },

  source(socket) {
    const parser = new CountParser()
    /** @type {number | undefined} */
    let left
    const send = () => {
      while (left > 0) {
        const piece = nextPiece(left)
        left -= piece.length
        if (!socket.write(piece)) return
      }
      socket.end()
    }
    socket.on('data', (chunk) => {
      if (left !== undefined) return
      left = parser.feed(chunk)
      if (left !== undefined) send()
    })
    socket.on('drain', send)
    socket.on('end', () => {
      if (left === undefined) socket.end()
    })
  },
}

// These two answer after the peer's FIN.
const allowHalfOpen = app === 'sink' || app === 'source'
const serve = apps[app]

const server = net.createServer({ noDelay: true, allowHalfOpen }, (socket) => {
  serve(socket)
  socket.on('error', () => {}) // 'close' follows by itself
})

endOnSignals(() => server.close()) // removes the Unix socket

server.listen({ ...(path === undefined ? { host, port } : { path }), backlog: BACKLOG }, () => {
  const address = server.address()
  console.log(`listening on ${typeof address === 'object' && address !== null ? `${host}:${address.port}` : path}`)
})
