// @ts-check
// The server that edgewire has to beat: the same echo on node:net, written as a careful user would write it
// (no Nagle delay, backpressure respected, errors of a peer ignored).
//
//   node net_server.mjs --port 0 [--host 127.0.0.1]     prints "listening on 127.0.0.1:PORT"
//   node net_server.mjs --path SOCKET                   prints "listening on SOCKET"
//
// SIGTERM or SIGINT ends it with status 0.
import net from 'node:net'
import process from 'node:process'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string' },
    path: { type: 'string' },
  },
})
if ((values.port === undefined) === (values.path === undefined)) {
  console.error('net_server: give either --port or --path.')
  process.exit(2)
}

const server = net.createServer({ noDelay: true }, (socket) => {
  socket.on('data', (chunk) => {
    if (!socket.write(chunk)) socket.pause()
  })
  socket.on('drain', () => socket.resume())
  socket.on('error', () => {}) // 'close' follows by itself
})

const BACKLOG = 4096 // the same for every server here; net's own default is 511
const where = values.path === undefined ? { host: values.host, port: Number(values.port) } : { path: values.path }
server.listen({ ...where, backlog: BACKLOG }, () => {
  const address = server.address()
  const name = typeof address === 'object' && address !== null ? `${values.host}:${address.port}` : values.path
  console.log(`listening on ${name}`)
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    server.close() // removes the Unix socket
    process.exit(0)
  })
}
