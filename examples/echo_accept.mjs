// An echo that accepts its connections itself and iterates over their bytes.
//   node examples/echo_accept.mjs [port]        then: nc 127.0.0.1 7000
import { listen } from 'edgewire'

const listener = await listen({ host: '127.0.0.1', port: Number(process.argv[2] ?? 7000) })
console.log(`listening on ${listener.address}:${listener.port}`)
process.once('SIGINT', () => void listener.shutdown())

async function echo(conn) {
  try {
    // These chunks are ours: each is a copy that nobody else will touch.
    for await (const chunk of conn) {
      if (!conn.write(chunk)) await conn.drained()
    }
  } catch (error) {
    // Nobody waits for echo(), so nobody else would catch this: a reset by the client, or our own shutdown().
    if (error.code !== 'ERR_CONN_CLOSED') console.error(error.message)
  } finally {
    conn.close()
  }
}

for await (const conn of listener) void echo(conn)
