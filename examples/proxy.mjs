// A TCP proxy: bytes go both ways, each as fast as its receiver reads, and a FIN becomes a FIN on the other side.
//   node examples/proxy.mjs [port] [target port] [target host]
import { dial, listen } from 'edgewire'

const [port = '7000', targetPort = '7001', targetHost = '127.0.0.1'] = process.argv.slice(2)
const DialMs = 5_000
const IdleMs = 10 * 60_000

/** Copies until the FIN of `from`. Waiting for `to` to drain is not reading `from`: its sender's window closes. */
async function pipe(from, to) {
  for await (const chunk of from) {
    if (!to.write(chunk)) await to.drained()
  }
  to.closeWrite()
}

const listener = await listen({ host: '127.0.0.1', port: Number(port), idleTimeoutMs: IdleMs }, async (client) => {
  const target = await dial({ host: targetHost, port: Number(targetPort), timeoutMs: DialMs }).catch((error) => {
    console.error(error.message)
    throw error
  })
  try {
    await Promise.all([pipe(client, target), pipe(target, client)])
    target.close()
  } catch (error) {
    // One side broke: both end with RST, so that neither mistakes it for the end of the data.
    target.abort(error)
    throw error
  }
})
console.log(`listening on ${listener.address}:${listener.port}`)
process.once('SIGINT', () => void listener.shutdown())
