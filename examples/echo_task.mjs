// An echo as one task per connection: blocking style, as in Go. When the task returns or throws, its connection ends.
//   node examples/echo_task.mjs [port]        then: nc 127.0.0.1 7000
import { listen } from 'edgewire'

// Less than 32 KiB: larger writes are sent from the caller's memory, and this buffer is filled again at once.
const ReadBytes = 16 * 1024

const listener = await listen({ host: '127.0.0.1', port: Number(process.argv[2] ?? 7000) }, async (conn) => {
  const buffer = new Uint8Array(ReadBytes)
  for (;;) {
    const count = await conn.read(buffer)
    if (count === null) return // the client has sent its FIN
    if (!conn.write(buffer.subarray(0, count))) await conn.drained()
  }
})
console.log(`listening on ${listener.address}:${listener.port}`)
process.once('SIGINT', () => void listener.shutdown())
