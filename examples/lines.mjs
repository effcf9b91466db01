// A line protocol with a deadline for every line and a bound on its length:
//   echo TEXT -> TEXT      time -> the time      quit -> bye
//   node examples/lines.mjs [port]        then: nc 127.0.0.1 7000
import { listen } from 'edgewire'

const LineBytesMax = 4096
const LineMs = 30_000

class ProtocolError extends Error {}

/** The lines of a connection. Each must be complete within LineMs, however slowly its bytes trickle in. */
async function* linesOf(conn) {
  const buffer = Buffer.alloc(LineBytesMax)
  let filled = 0
  for (;;) {
    conn.setReadDeadline(Date.now() + LineMs)
    let end = buffer.subarray(0, filled).indexOf('\n')
    while (end < 0) {
      if (filled === buffer.length) throw new ProtocolError('line too long')
      const count = await conn.read(buffer.subarray(filled))
      if (count === null) return
      filled += count
      end = buffer.subarray(0, filled).indexOf('\n')
    }
    yield buffer.toString('utf8', 0, end).trimEnd()
    buffer.copyWithin(0, end + 1, filled)
    filled -= end + 1
  }
}

function answer(line) {
  if (line.startsWith('echo ')) return line.slice('echo '.length)
  if (line === 'time') return new Date().toISOString()
  throw new ProtocolError('unknown command')
}

const listener = await listen({ host: '127.0.0.1', port: Number(process.argv[2] ?? 7000) }, async (conn) => {
  try {
    for await (const line of linesOf(conn)) {
      if (line === 'quit') {
        conn.write('bye\n')
        return
      }
      if (!conn.write(`${answer(line)}\n`)) await conn.drained()
    }
  } catch (error) {
    // A passed deadline does not harm the connection: there is time for a last word. Returning closes it in order.
    if (error.code === 'ERR_DEADLINE_EXCEEDED') conn.write('error: too slow\n')
    else if (error instanceof ProtocolError) conn.write(`error: ${error.message}\n`)
    else throw error
  }
})
console.log(`listening on ${listener.address}:${listener.port}`)
process.once('SIGINT', () => void listener.shutdown())
