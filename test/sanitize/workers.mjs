// Under AddressSanitizer and UndefinedBehaviorSanitizer: workers that serve and are terminated in the middle of traffic,
// some of them inside a handler. Exits with 0 when all of them have gone and the main thread still serves.

import { once } from 'node:events'
import net from 'node:net'
import { Worker } from 'node:worker_threads'
import { listen } from 'edgewire'

const ROUNDS = Number(process.env.STRESS_ROUNDS ?? 25)
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const source = `
  import { parentPort, workerData } from 'node:worker_threads'
  const { listen, dial } = await import(workerData.edgewire)
  const kept = []
  const server = await listen({ host: '127.0.0.1', port: 0 }, {
    data(conn, chunk) {
      if (chunk[0] === 0x21) process.exit(0)
      if (kept.length < 50) kept.push(conn.retain(chunk))
      if (!conn.write(chunk)) conn.pause()
      if (Math.random() < 0.01) conn.write(new Uint8Array(500000))
    },
    drain(conn) { conn.resume() },
  })
  for (let i = 0; i < 3; i++) {
    const conn = await dial({ host: '127.0.0.1', port: server.port }, { data(conn, chunk) { conn.write(chunk) } })
    conn.setDeadline(Date.now() + 60000)
    conn.write(Buffer.alloc(100000))
  }
  void dial({ host: '127.0.0.1', port: 1 }).catch(() => {})
  parentPort.postMessage(server.port)
`

const workerData = { edgewire: import.meta.resolve('edgewire') }
const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`)
const server = await listen({ host: '127.0.0.1', port: 0 }, { data: (conn, chunk) => void conn.write(chunk) })

async function round(number) {
  const worker = new Worker(url, { workerData })
  worker.on('error', (error) => {
    console.error(`worker: ${error.stack}`)
    process.exit(1)
  })
  const [port] = await once(worker, 'message')
  const exited = once(worker, 'exit')
  const sockets = Array.from({ length: 3 }, () => {
    const socket = net.connect(port, '127.0.0.1').on('error', () => {})
    socket.on('data', (chunk) => socket.write(chunk)).write(Buffer.alloc(60_000, 1))
    return socket
  })
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('data', resolve))))
  await sleep(number % 5)
  if (number % 4 === 3)
    net
      .connect(port, '127.0.0.1')
      .on('error', () => {})
      .write('!')
  else await worker.terminate()
  await exited
  for (const socket of sockets) socket.destroy()
}

for (let number = 0; number < ROUNDS; number++) {
  await round(number)
  if (number % 5 === 0) await Promise.all([round(number + 1), round(number + 2)])
}

const client = net.connect(server.port, '127.0.0.1')
client.end('still there')
const [answer] = await once(client, 'data')
await once(client, 'close')
await server.shutdown()
if (String(answer) !== 'still there') throw new Error(`the main thread answered ${answer}`)
console.log(`${ROUNDS} rounds`)
