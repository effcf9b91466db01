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
      // A chunk of 4 KiB or more is not copied: all receivers are sent the same memory of the pool.
      for (const conn of members) {
        if (conn !== sender) conn.write(chunk)
      }
    },
    close(conn, error) {
      members.delete(conn)
      if (error !== undefined) console.error(error.message)
    },
  },
)

console.log(`listening on ${listener.address}:${listener.port}`)
process.once('SIGINT', () => void listener.shutdown())
