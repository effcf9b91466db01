// worker_threads: each has its own reactor; its end, however sudden, leaves no crash, no descriptor and no neighbour
// harmed.

import { expect, test } from 'vitest'
import { run } from './programs.ts'
import { isDeno } from './runtime.ts'

/** 50 workers start and end: seconds alone, much longer beside other work. */
const LongRunMs = 60_000

/** Starts a worker that serves; resolves with where, when it is ready. */
const frame = (body: string) => `
  import { readdirSync } from 'node:fs'
  import { Worker } from 'node:worker_threads'
  const source = \`
    import { parentPort, workerData } from 'node:worker_threads'
    const { listen, dial, configure, stats } = await import(workerData.edgewire)
    const kept = []
    const echo = {
      data(conn, chunk) {
        if (chunk[0] === 0x21) process.exit(5) // '!'
        if (!conn.write(chunk)) conn.pause()
        if (workerData.retain) kept.push(conn.retain(chunk))
      },
      drain(conn) { conn.resume() },
    }
    const server = await listen({ host: '127.0.0.1', port: 0 }, workerData.style === 'task'
      ? async (conn) => { for await (const chunk of conn) if (!conn.write(chunk)) await conn.drained() }
      : echo)
    const local = []
    for (let i = 0; i < 4; i++) {
      const conn = await dial({ host: '127.0.0.1', port: server.port }, echo)
      conn.setDeadline(Date.now() + 60000)
      conn.write(Buffer.alloc(200000))
      local.push(conn)
    }
    parentPort.on('message', (m) => m === 'stop' && (parentPort.close(), local.forEach((c) => c.abort()), server.shutdown()))
    parentPort.postMessage(server.port)
  \`
  const edgewire = import.meta.resolve('edgewire')
  const start = async (data = {}) => {
    const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(source)), { workerData: { edgewire, ...data } })
    worker.on('error', (error) => { print('worker error: ' + error.stack); process.exitCode = 3 })
    const [port] = await once(worker, 'message')
    return { worker, port }
  }
  const chatter = (port) => {
    const client = net.connect(port, '127.0.0.1').on('error', () => {})
    client.on('data', (chunk) => client.write(chunk))
    client.echoed = new Promise((resolve) => client.once('data', resolve))
    client.gone = new Promise((resolve) => client.once('close', resolve))
    client.write(Buffer.alloc(50000, 1))
    return client
  }
  const sockets = () => readdirSync('/proc/self/fd').length
  const settle = async (wanted) => { for (let i = 0; i < 500 && sockets() > wanted; i++) await sleep(10); const left = sockets() - wanted; return left === own ? 0 : left }
  // The first of everything opens what stays: this thread's loop, libuv's and V8's threads, the first worker;
  // Bun a second stdout.
  process.stdout.write('')
  await (await listen({ host: '127.0.0.1', port: 0 })).close()
  { const { worker } = await start(); await worker.terminate() }
  await sleep(100)
  // Deno opens a pair for itself, once.
  const own = 'deno' in process.versions ? 2 : 0
  const before = sockets()
  ${body}
`

test(
  'a worker that is terminated in the middle of traffic, 50 times',
  async () => {
    const end = await run(
      frame(`
    for (let round = 0; round < 50; round++) {
      const { worker, port } = await start({ style: round % 3 === 0 ? 'task' : 'handlers', retain: round % 5 === 1 })
      const clients = Array.from({ length: 3 }, () => chatter(port))
      await Promise.all(clients.map((client) => client.echoed))
      if (round % 2 === 0) await sleep(round % 7)
      await worker.terminate()
      await Promise.all(clients.map((client) => client.gone))
    }
    print('descriptors left: ' + await settle(before))
  `),
      {},
      LongRunMs,
    )
    expect(end, end.stderr).toMatchObject({ code: 0, signal: null, stdout: 'descriptors left: 0\n', stderr: '' })
  },
  2 * LongRunMs,
)

test('a worker that calls process.exit() in a handler ends alone', async () => {
  const end = await run(
    frame(`
    for (let round = 0; round < 10; round++) {
      const { worker, port } = await start()
      const clients = Array.from({ length: 3 }, () => chatter(port))
      await Promise.all(clients.map((client) => client.echoed))
      const exited = once(worker, 'exit')
      net.connect(port, '127.0.0.1').on('error', () => {}).write('!')
      const [code] = await exited
      if (code !== 5) print('exit code ' + code)
      for (const client of clients) client.destroy()
    }
    print('descriptors left: ' + await settle(before))
  `),
  )
  expect(end, end.stderr).toMatchObject({ code: 0, signal: null, stdout: 'descriptors left: 0\n', stderr: '' })
})

// Deno's parentPort has no close().
test.skipIf(isDeno)(
  'several workers and the main thread serve side by side; one that is terminated does not disturb the others',
  async () => {
    const end = await run(
      frame(`
    const server = await listen({ host: '127.0.0.1', port: 0 }, { data(conn, chunk) { conn.write(chunk) } })
    const workers = await Promise.all([start(), start({ style: 'task' }), start()])
    const echoes = async (port, letter) => {
      const client = net.connect(port, '127.0.0.1')
      const payload = Buffer.alloc(300000, letter)
      client.end(payload)
      const parts = []
      for await (const part of client) parts.push(part)
      return Buffer.concat(parts).equals(payload)
    }
    await workers[0].worker.terminate()
    print(await Promise.all([echoes(server.port, 'a'), echoes(workers[1].port, 'b'), echoes(workers[2].port, 'c')]))
    print(stats().accepted)
    for (const { worker } of workers.slice(1)) { const exit = once(worker, 'exit'); worker.postMessage('stop'); print('exit ' + (await exit)[0]) }
    await server.shutdown()
    print('descriptors left: ' + await settle(before))
  `),
    )
    expect(end, end.stderr).toMatchObject({ code: 0, signal: null, stderr: '' })
    expect(end.stdout.trim().split('\n')).toEqual(['[true,true,true]', '1', 'exit 0', 'exit 0', 'descriptors left: 0'])
  },
)
