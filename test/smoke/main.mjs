// What an installed edgewire must be able to do on any machine, as one program without a test framework: it runs in the
// repository, and in any folder that has the package. It ends by itself and prints one line, `smoke: ok ...`.
//
//   node test/smoke/main.mjs
//   PREBUILDS_ONLY=1 node test/smoke/main.mjs     with the binary in prebuilds/, not the one in build/

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { dial, listen, stats } from 'edgewire'

const PAYLOAD_BYTES = 1024 * 1024
const READ_BYTES = 16 * 1024
const DEADLINE_MS = 50
// An emulated machine takes seconds for what takes milliseconds here; a hang must still end.
const LIMIT_MS = 120_000

const limit = setTimeout(() => {
  console.error(`smoke: still running after ${LIMIT_MS / 1000} s`)
  process.exit(1)
}, LIMIT_MS)
limit.unref()

/** Neither a constant nor of a period that divides a chunk: bytes that are lost, doubled or moved show. */
const payload = Buffer.alloc(PAYLOAD_BYTES, Buffer.from(Array.from({ length: 251 }, (_, index) => (index * 7) & 255)))

const echoHandlers = {
  data(conn, chunk) {
    if (!conn.write(chunk)) conn.pause()
  },
  drain(conn) {
    conn.resume()
  },
}

async function echoTask(conn) {
  const buffer = new Uint8Array(READ_BYTES)
  for (let count = await conn.read(buffer); count !== null; count = await conn.read(buffer)) {
    if (!conn.write(buffer.subarray(0, count))) await conn.drained()
  }
}

/** Sends the payload, half-closes, and compares what comes back until the end. */
async function echo(address, server) {
  const listener = await listen(address, server)
  const target = address.path === undefined ? { host: '127.0.0.1', port: listener.port } : address
  const conn = await dial(target)
  conn.setDeadline(Date.now() + LIMIT_MS)
  conn.write(payload)
  conn.closeWrite()
  const received = []
  for await (const chunk of conn) received.push(chunk)
  assert.ok(Buffer.concat(received).equals(payload), 'the echo differs from what was sent')
  assert.equal(await conn.closed, undefined)
  await listener.shutdown()
}

/** A deadline fails the read and leaves the connection as it was; an idle timeout ends it. */
async function deadlines() {
  const listener = await listen({ host: '127.0.0.1', port: 0 }, echoHandlers)
  const conn = await dial({ host: '127.0.0.1', port: listener.port })
  const buffer = new Uint8Array(1)
  conn.setReadDeadline(Date.now() + DEADLINE_MS)
  const error = await conn.read(buffer).then(
    () => undefined,
    (reason) => reason,
  )
  assert.equal(error?.code, 'ERR_DEADLINE_EXCEEDED')
  assert.equal(error.timeout, true)
  conn.setReadDeadline(null)
  conn.write('x')
  assert.equal(await conn.read(buffer), 1)
  conn.setIdleTimeout(DEADLINE_MS)
  assert.ok((await conn.closed) instanceof Error, 'the idle timeout did not end the connection')
  await listener.shutdown()
}

/** A worker that is terminated in the middle of traffic takes its connections along, and this thread goes on. */
async function worker() {
  const source = `
    import { parentPort, workerData } from 'node:worker_threads'
    const { listen } = await import(workerData)
    const listener = await listen({ host: '127.0.0.1', port: 0 }, { data: (conn, chunk) => void conn.write(chunk) })
    parentPort.postMessage(listener.port)
  `
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`)
  const thread = new Worker(url, { workerData: import.meta.resolve('edgewire') })
  const [port] = await once(thread, 'message')
  const conn = await dial({ host: '127.0.0.1', port })
  // Half of what was sent comes back, and then it is still under way both ways.
  conn.setDeadline(Date.now() + LIMIT_MS)
  conn.write(payload)
  const buffer = new Uint8Array(READ_BYTES)
  for (let received = 0; received < PAYLOAD_BYTES / 2; ) received += (await conn.read(buffer)) ?? assert.fail('no echo')
  await thread.terminate()
  const rest = async () => {
    while ((await conn.read(buffer)) !== null);
  }
  await rest().catch(() => {}) // FIN or RST, as it happened to be
  conn.abort()
  await conn.closed
}

const folder = mkdtempSync(join(tmpdir(), 'edgewire-smoke-'))
const start = performance.now()
try {
  await echo({ host: '127.0.0.1', port: 0 }, echoHandlers)
  await echo({ host: '127.0.0.1', port: 0 }, echoTask)
  await echo({ path: join(folder, 'socket') }, echoHandlers)
  await echo({ path: join(folder, 'socket') }, echoTask)
  await deadlines()
  await worker()
  await echo({ host: '127.0.0.1', port: 0 }, echoTask) // after all that, this thread's reactor works as before
} finally {
  rmSync(folder, { recursive: true })
}
assert.equal(stats().open, 0)
assert.equal(stats().slabInUseBytes, 0)
const seconds = ((performance.now() - start) / 1000).toFixed(1)
const runtime = ['bun', 'deno', 'node'].find((name) => name in process.versions)
const where = `${runtime} ${process.versions[runtime]} ${process.platform}-${process.arch}`
console.log(`smoke: ok with ${loaded()} on ${where} in ${seconds} s`)

/** The addon's file as the loader has it: more than one would fit. Deno's report does not tell, nor Bun's. */
function loaded() {
  const { sharedObjects } = /** @type {{ sharedObjects?: string[] }} */ (process.report.getReport())
  const addons = (sharedObjects ?? []).filter((path) => path.endsWith('.node'))
  return addons.length === 0 ? 'an addon' : addons.map((path) => path.split('/').slice(-2).join('/'))
}
