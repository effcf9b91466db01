// An echo with shared event handlers, the style with the least work per message.
//   node examples/echo_handlers.mjs [port]        then: nc 127.0.0.1 7000
import { listen } from 'edgewire'

const listener = await listen(
  { host: '127.0.0.1', port: Number(process.argv[2] ?? 7000) },
  {
    data(conn, chunk) {
      // `chunk` is lent until this handler returns; writing it is allowed, keeping it is not.
      // Above the high watermark we stop reading, so that a client that never reads cannot fill our memory.
      if (!conn.write(chunk)) conn.pause()
    },
    drain(conn) {
      conn.resume()
    },
    close(_conn, error) {
      if (error !== undefined) console.error(error.message)
    },
  },
)
console.log(`listening on ${listener.address}:${listener.port}`)
process.once('SIGINT', () => void listener.shutdown())
