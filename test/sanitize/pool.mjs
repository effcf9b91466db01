// Under AddressSanitizer and UndefinedBehaviorSanitizer: dials by name that race addresses and abort the losers; pools of
// which one server is well, one stalls and one resets, with more borrowers than connections, deadlines, signals and
// validation; drain() with leases out; processes that end while a pool is open. Exits with 0 when no connection was lent
// to two, every call of acquire() was counted once, and nothing is left open.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createPool, createResolver, dial, listen, NetError, stats } from 'edgewire'
import { Random } from '../soak/random.mjs'

const SECONDS = Number(process.env.STRESS_SECONDS ?? 8)
const BORROWERS = 24
const DIALERS = 4
const EXIT_CODE = 7
const seed = Number(process.env.STRESS_SEED ?? Date.now() & 0x7fffffff)

const random = new Random(seed)
const int = (min, max) => random.int(min, max)
const pick = (list) => random.pick(list)
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

function fail(message) {
  console.error(`pool: ${message}`)
  process.exit(1)
}
process.on('uncaughtException', (error) => fail(`uncaught: ${error.stack}`))
process.on('unhandledRejection', (error) => fail(`unhandled: ${error?.stack ?? error}`))

// ---- upstreams: each on an address of its own, all on one port -------------------------------------------------------

const echo = { data: (conn, chunk) => void conn.write(chunk) }

const stalling = {
  data(conn, chunk) {
    if (int(0, 3) > 0) conn.write(chunk)
    else if (int(0, 1) === 0) setTimeout(() => conn.state === 'open' && conn.write('late'), int(1, 10))
  },
}

const resetting = {
  open(conn) {
    const how = int(0, 5)
    if (how < 2) conn.abort()
    else if (how === 2) conn.close()
  },
  data(conn, chunk) {
    if (int(0, 4) === 0) conn.abort()
    else conn.write(chunk)
    if (int(0, 4) === 0) conn.close()
  },
}

async function openUpstreams() {
  const well = await listen({ host: '127.0.0.1', port: 0, lingerMs: 200 }, echo)
  const { port } = well
  const others = [
    await listen({ host: '127.0.0.3', port, lingerMs: 200 }, stalling),
    await listen({ host: '127.0.0.4', port, lingerMs: 200 }, resetting),
  ]
  return { port, servers: [well, ...others] }
}

/** A process whose backlog is full and that accepts nothing: who connects to it waits. */
async function openSilent(port) {
  const source = `const net = require('node:net')
    net.createServer().listen({ port: ${port}, host: '127.0.0.2', backlog: 1 }, () => {
      for (let i = 0; i < 4; i++) net.connect(${port}, '127.0.0.2').on('error', () => {})
      process.stdout.write('up', () => { for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000) })
    })`
  const env = { ...process.env, LD_PRELOAD: '' }
  const child = spawn(process.execPath, ['-e', source], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

// ---- dials -----------------------------------------------------------------------------------------------------------

let races = 0

function addresses(hosts) {
  return async () => hosts.map((address) => ({ address, family: 4, ttl: 1 }))
}

async function failingLookup() {
  await sleep(5)
  throw new Error('nobody knows')
}

/** The silent address comes first, so that whoever wins has losers to abort. */
async function dialByName(port, resolver) {
  const names = [
    { host: 'localhost', timeoutMs: int(0, 3) === 0 ? 1 : 2000 },
    { host: 'upstream.test', resolver },
    { host: 'race.test', attemptDelayMs: 10, lookup: addresses(['127.0.0.2', '127.0.0.2', '127.0.0.1']) },
    { host: 'silent.test', attemptDelayMs: 10, timeoutMs: int(1, 40), lookup: addresses(['127.0.0.2']) },
    { host: 'refused.test', attemptDelayMs: 10, lookup: addresses(['127.0.0.5', '127.0.0.6', '127.0.0.4']) },
    { host: 'race.test', attemptDelayMs: 10, lookup: failingLookup },
  ]
  const controller = new AbortController()
  if (int(0, 3) === 0) setTimeout(() => controller.abort(), int(0, 15))
  try {
    const conn = await dial({ ...pick(names), port, signal: controller.signal, lingerMs: 200 })
    conn.write('hello')
    conn.setReadDeadline(Date.now() + 200)
    await conn.read(new Uint8Array(5))
    races++
    if (int(0, 1) === 0) conn.abort()
    else conn.close()
    await conn.closed
  } catch (error) {
    if (!(error instanceof NetError) && error.name !== 'AbortError') fail(`dial: ${error.stack}`)
  }
}

// ---- borrowers -------------------------------------------------------------------------------------------------------

const held = new Set()
const asked = { calls: 0, leases: 0 }
let answers = 0

/** One question and its answer, or something that the pool has to notice. */
async function converse(conn) {
  if (held.has(conn)) fail('a connection is lent to two')
  held.add(conn)
  try {
    if (int(0, 20) === 0) return conn.write('left unread')
    if (int(0, 20) === 0) return conn.closeWrite()
    if (int(0, 20) === 0) return conn.close()
    conn.setDeadline(Date.now() + int(1, 30))
    const question = Buffer.alloc(int(1, 30_000), 'q')
    conn.write(question)
    const into = new Uint8Array(16_384)
    for (let got = 0; got < question.length; ) {
      const count = await conn.read(into)
      if (count === null) return
      got += count
    }
    answers++
  } finally {
    held.delete(conn)
  }
}

function counted(conn) {
  asked.leases++
  return converse(conn)
}

function acquireOptions() {
  const kind = int(0, 3)
  if (kind === 0) return undefined
  if (kind === 1) return { timeoutMs: int(1, 20) }
  const controller = new AbortController()
  setTimeout(() => controller.abort(), int(0, 20))
  return kind === 2 ? { signal: controller.signal, timeoutMs: 0 } : { signal: controller.signal }
}

async function borrow(pool) {
  const kind = int(0, 4)
  try {
    if (kind === 0) {
      const lease = pool.tryAcquire()
      if (lease === undefined) return void (await sleep(int(0, 3)))
      asked.calls++
      asked.leases++
      await converse(lease.conn).finally(() => lease.release())
      return
    }
    asked.calls++
    if (kind === 1) return await pool.use(counted, acquireOptions())
    const lease = await pool.acquire(acquireOptions())
    asked.leases++
    await converse(lease.conn).finally(() => (int(0, 5) === 0 ? lease.discard(new Error('given up')) : lease.release()))
  } catch (error) {
    if (!(error instanceof NetError) && error.name !== 'AbortError') fail(`a borrower: ${error.stack}`)
  }
}

async function ping(conn) {
  conn.setReadDeadline(Date.now() + 20)
  conn.write('ping')
  return (await conn.read(new Uint8Array(4))) === 4
}

async function poolUnderLoad(port, balance, end) {
  const upstreams = ['localhost', '127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5'].map((host) => ({ host, port }))
  const pool = createPool({
    upstreams,
    balance,
    maxTotal: 8,
    maxPerAddress: 4,
    minIdle: 2,
    maxWaiters: BORROWERS - 6,
    acquireTimeoutMs: 100,
    dialTimeoutMs: 40,
    idleTimeoutMs: 30,
    maxLifetimeMs: 200,
    dnsTtlMs: 50,
    validate: ping,
    validateAfterMs: 5,
    validateEveryMs: 10,
    validateTimeoutMs: 30,
    backoffMs: 2,
    backoffMaxMs: 20,
    lingerMs: 200,
  })
  Object.assign(asked, { calls: 0, leases: 0 })
  const borrowers = Array.from({ length: BORROWERS }, async () => {
    while (Date.now() < end) {
      await borrow(pool)
      if (int(0, 200) === 0) globalThis.gc?.()
    }
  })
  await Promise.all(borrowers)
  await drain(pool)
}

/** With a lease out that nobody gives back, and calls that wait. */
async function drain(pool) {
  const lease = await pool.acquire({ timeoutMs: 0 }).catch((error) => error)
  asked.calls++
  const waiting = pool.warmUp().catch(() => {})
  const reading = lease.conn?.read(new Uint8Array(1)).catch(() => {})
  await Promise.all([pool.drain(), pool.drain({ timeoutMs: 50 })])
  await Promise.all([waiting, reading])
  if (!(lease instanceof NetError)) {
    asked.leases++
    lease.release()
  }
  const { acquired, released, total, timeouts, aborts, refusals, upstreamFailures } = pool.stats()
  if (total !== 0) fail(`${total} connections are left in the pool`)
  if (acquired !== released) fail(`${acquired} were lent, ${released} given back`)
  if (acquired !== asked.leases) fail(`${acquired} were lent, ${asked.leases} arrived`)
  const outcomes = acquired + timeouts + aborts + refusals + upstreamFailures
  if (outcomes !== asked.calls) fail(`${asked.calls} calls became ${outcomes}`)
}

// ---- the end of the process ------------------------------------------------------------------------------------------

/** `leave`: nothing is awaited any more. `exit`: in the middle of everything. */
async function endWithPoolOpen(how, port) {
  const options = { maxTotal: 4, minIdle: 2, idleTimeoutMs: 0 }
  const pool = createPool({ host: 'localhost', port, ...options })
  await pool.warmUp()
  await pool.use(ping)
  if (how === 'leave') return
  const silent = createPool({ host: '127.0.0.2', port, ...options })
  const leases = await Promise.all(Array.from({ length: 4 }, () => pool.acquire()))
  for (const { conn } of leases) void conn.read(new Uint8Array(1))
  void pool.acquire()
  void silent.acquire()
  leases[0].conn.write('x')
  await sleep(10)
  process.exit(EXIT_CODE)
}

async function endings(port) {
  for (const [how, wanted] of [
    ['leave', 0],
    ['exit', EXIT_CODE],
  ]) {
    // Node frees nothing of its own in process.exit().
    const leaks = how === 'exit' ? ':detect_leaks=0' : ''
    const env = { ...process.env, ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}${leaks}` }
    const args = [...process.execArgv, fileURLToPath(import.meta.url), how, String(port)]
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'inherit', 'inherit'], timeout: 30_000 })
    const [code, signal] = await once(child, 'exit')
    if (code !== wanted) fail(`a process with an open pool, ${how}: ${signal ?? code}`)
  }
}

// ---- main ------------------------------------------------------------------------------------------------------------

async function main() {
  console.log(`STRESS_SEED=${seed}`)
  const { port, servers } = await openUpstreams()
  const silent = await openSilent(port)
  const folder = mkdtempSync(join(tmpdir(), 'edgewire-'))
  const hostsFile = join(folder, 'hosts')
  writeFileSync(hostsFile, '127.0.0.1 upstream.test\n127.0.0.3 upstream.test\n')
  const resolver = createResolver({ hostsFile })

  const end = Date.now() + SECONDS * 1000
  const dialers = Array.from({ length: DIALERS }, async () => {
    while (Date.now() < end) await dialByName(port, resolver)
  })
  const balances = ['round-robin', 'least-connections', 'p2c', (candidates) => pick(candidates)]
  for (const [i, balance] of balances.entries()) {
    await poolUnderLoad(port, balance, end - ((balances.length - 1 - i) * SECONDS * 1000) / balances.length)
  }
  await Promise.all(dialers)
  await endings(port)

  setTimeout(() => fail('shutdown() does not end'), 20_000).unref()
  await Promise.all(servers.map((server) => server.shutdown()))
  silent.kill('SIGKILL')
  resolver.close()
  rmSync(folder, { recursive: true, force: true })
  await sleep(50)
  const { accepted, dialed, closed, slabInUseBytes } = stats()
  console.log(`${accepted} accepted, ${dialed} dialed, ${races} races, ${answers} answers`)
  if (accepted + dialed !== closed) fail(`${accepted + dialed - closed} connections are open`)
  if (slabInUseBytes !== 0) fail(`${slabInUseBytes} bytes of the pool are in use`)
  if (races < 10 || answers < 100) fail('hardly anything was answered')
}

if (process.argv.length > 2) await endWithPoolOpen(process.argv[2], Number(process.argv[3]))
else await main()
