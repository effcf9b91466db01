// Whatever one client sends, all the others get. A client that does not read is thrown out, not waited for.
//   node examples/broadcast.mjs [port]        then, in several terminals: nc 127.0.0.1 7000
import { listen } from 'edgewire'

const MaxBufferedBytes = 256 * 1024
const members = new Set()

const listener = await listen(
  {
    host: '127.0.0.1',
    port: Number(process.argv[2] ?? 7000),
    maxBufferedBytes: MaxBufferedBytes,
    // The other policies: 'drop' leaves the message out for this client only, 'throw' lets us decide.
    overflow: 'abort',
  },
  {
    open(conn) {
      members.add(conn)
    },
    data(sender, chunk) {
      for (const conn of members) {
        if (conn !== sender) send(conn, chunk)
      }
    },
    close(conn, error) {
      members.delete(conn)
      if (error !== undefined) console.error(error.message)
    },
  },
)

/** A chunk of 4 KiB or more is not copied: all receivers are sent the same memory of the pool. */
function send(conn, chunk) {
  try {
    conn.write(chunk)
  } catch {
    // The receiver has too much queued, or is about to end. Its own `close` says so; what a handler lets through would
    // cost the sender's connection.
  }
}

console.log(`listening on ${listener.address}:${listener.port}`)
process.once('SIGINT', () => void listener.shutdown())
