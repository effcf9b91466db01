// Under AddressSanitizer and UndefinedBehaviorSanitizer: echo over every transport while connections are reset, closed
// in handlers, aborted, timed out, paused, and buffers are detached under their writes. Exits with 0 when every byte
// that must come back has come back and nothing is left open.

import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { configure, dial, listen, stats } from 'edgewire'
import { Random } from '../soak/random.mjs'

const SECONDS = Number(process.env.STRESS_SECONDS ?? 12)
const CLIENTS = 12
const seed = Number(process.env.STRESS_SEED ?? Date.now() & 0x7fffffff)
console.log(`STRESS_SEED=${seed}`)

const random = new Random(seed)
const int = (min, max) => random.int(min, max)
const pick = (list) => random.pick(list)
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

function fail(message) {
  console.error(`stress: ${message}`)
  process.exit(1)
}
process.on('uncaughtException', (error) => fail(`uncaught: ${error.stack}`))
process.on('unhandledRejection', (error) => fail(`unhandled: ${error?.stack ?? error}`))

/** A call that may fail because the other side has ended the connection meanwhile. */
function attempt(act) {
  try {
    return act()
  } catch (error) {
    if (error.name !== 'NetError') fail(`a call threw ${error.stack}`)
  }
}

// ---- servers: the first byte of a connection says what it will meet --------------------------------------------------

const tricks = {
  echo(conn, chunk) {
    if (!conn.write(chunk)) conn.pause()
  },
  close(conn, chunk) {
    conn.write(chunk)
    conn.close()
  },
  abort(conn) {
    conn.abort()
  },
  write(conn, chunk) {
    attempt(() => conn.write(chunk))
    conn.closeWrite()
  },
  pause(conn) {
    conn.pause()
    setTimeout(() => attempt(() => conn.resume()), int(0, 5))
  },
  timeout(conn) {
    conn.setDeadline(Date.now() + int(0, 4))
  },
  detach,
  flood,
  async reject(conn, chunk) {
    await sleep(int(0, 3))
    attempt(() => conn.write(chunk))
    if (int(0, 1) === 0) throw new Error('thrown on purpose')
  },
  lease,
  x() {
    throw new Error('thrown on purpose')
  },
  others: closeOthers,
}
const trickOf = new Map(Object.keys(tricks).map((name) => [name.charCodeAt(0), name]))

function detach(conn) {
  const size = int(40_000, 3_000_000)
  const bytes = new Uint8Array(size)
  attempt(() => conn.write(bytes))
  if (int(0, 1) === 0) structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  else setTimeout(() => structuredClone(bytes.buffer, { transfer: [bytes.buffer] }), int(0, 3))
  const resizable = new ArrayBuffer(size, { maxByteLength: size })
  attempt(() => conn.write(new Uint8Array(resizable)))
  setTimeout(() => resizable.resize(int(0, size)), int(0, 2))
}

function flood(conn) {
  for (let i = 0; i < 5000; i++) {
    if (conn.state !== 'open') return
    attempt(() => conn.write(i % 40 === 0 ? Buffer.alloc(int(1, 50_000)) : Buffer.alloc(int(1, 500))))
  }
}

function lease(conn, chunk) {
  conn.retain(chunk)
  // Kept here: a lease ends when its object is collected. It is released by the whole that it is a part of.
  const part = chunk.length > 2 ? conn.retain(chunk.subarray(1, 2)) : undefined
  setTimeout(
    () => {
      attempt(() => conn.write(chunk))
      conn.release(chunk)
      if (part !== undefined && part.length > 0) conn.release(chunk)
    },
    int(0, 4),
  )
}

function closeOthers(conn) {
  for (const other of conn.listener.connections) {
    if (int(0, 2) > 0) continue
    if (other.data === 'echo' || other.data === undefined) continue
    if (int(0, 1) === 0) other.abort()
    else other.close()
  }
}

const handlers = {
  open(conn) {
    if (int(0, 50) === 0) conn.setIdleTimeout(5000)
  },
  data(conn, chunk) {
    if (conn.data === undefined) {
      conn.data = trickOf.get(chunk[0])
      if (conn.data !== 'echo') conn.setNoDelay(int(0, 1) === 0)
    }
    return tricks[conn.data]?.(conn, chunk)
  },
  drain(conn) {
    conn.resume()
  },
  timeout(conn) {
    if (int(0, 1) === 0) conn.abort()
    else conn.close()
  },
  close(conn) {
    if (conn.state !== 'closed') fail(`the state in close is ${conn.state}`)
  },
}

async function task(conn) {
  const buffer = new Uint8Array(int(1, 20_000))
  for (;;) {
    conn.setReadDeadline(Date.now() + 5000)
    const count = await conn.read(buffer)
    if (count === null) return
    if (!conn.write(Buffer.from(buffer.subarray(0, count)))) await conn.drained()
    if (buffer[0] === 0x7a && int(0, 30) === 0) return
    if (buffer[0] === 0x7a && int(0, 30) === 0) throw new Error('thrown on purpose')
  }
}

// ---- clients -----------------------------------------------------------------------------------------------------------

let echoes = 0

/** Must get back all it sends. */
async function faithful(place) {
  const payload = Buffer.alloc(int(1, 400_000), 'e')
  const socket = net.connect(place)
  socket.on('error', (error) => fail(`a faithful client: ${error.message}`))
  let got = 0
  socket.on('data', (chunk) => {
    got += chunk.length
  })
  for (let at = 0; at < payload.length; ) {
    const end = at + int(1, 90_000)
    socket.write(payload.subarray(at, end))
    at = end
    if (int(0, 2) === 0) await sleep(0)
  }
  socket.end()
  await new Promise((resolve) => socket.once('close', resolve))
  if (got !== payload.length) fail(`${got} of ${payload.length} bytes came back`)
  echoes++
}

/** Does something rude; whatever comes back is right. */
async function rude(place) {
  const socket = net.connect(place).on('error', () => {})
  if (int(0, 1) === 0) socket.resume()
  const kind = pick([...Object.keys(tricks), 'z', 'z'].filter((name) => name !== 'echo'))[0]
  socket.write(Buffer.alloc(int(1, 120_000), kind))
  await sleep(int(0, 12))
  if (!socket.destroyed && int(0, 1) === 0) socket.write(Buffer.alloc(int(1, 1000), kind))
  const end = int(0, 3)
  if (end === 0 && place.path === undefined) socket.resetAndDestroy()
  else if (end === 1) socket.destroy()
  else {
    socket.resume().end()
    await Promise.race([new Promise((resolve) => socket.once('close', resolve)), sleep(50)])
    socket.destroy()
  }
}

/** The same with edgewire on both sides. */
async function dialed(place) {
  let conn
  try {
    conn = await dial({ ...place, lingerMs: 200, signal: AbortSignal.timeout(int(0, 1) === 0 ? 1 : 5000) })
    conn.write(pick(['z', 'w', 'f', 'd']).repeat(int(1, 100_000)))
    conn.setReadDeadline(Date.now() + int(1, 20))
    if (int(0, 3) === 0) conn.closeWrite()
    let got = 0
    for await (const chunk of conn) {
      got += chunk.length
      if (got > 200_000 || int(0, 20) === 0) break
    }
  } catch (error) {
    if (error.name !== 'NetError' && error.name !== 'TimeoutError') fail(`dial: ${error.stack}`)
  }
  if (int(0, 1) === 0) conn?.abort()
  else conn?.close()
  await conn?.closed
}

// ---- main --------------------------------------------------------------------------------------------------------------

configure({ slabBudgetBytes: 32 << 20 })
const folder = mkdtempSync(join(tmpdir(), 'edgewire-'))
const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'))
const places = [{ host: '127.0.0.1', port: 0 }, { path: join(folder, 's') }]
if (hasIpv6) places.push({ host: '::1', port: 0 })
if (process.platform === 'linux') places.push({ path: `\0edgewire-stress-${process.pid}`.padEnd(108, 'x') })

const onError = (error) => {
  if (error?.message !== 'thrown on purpose') fail(`onError: ${error?.stack ?? error}`)
}
const options = { onError, lingerMs: 200, maxBufferedBytes: 8 << 20 }
const servers = []
for (const style of [handlers, task]) {
  for (const place of places) {
    const own = place.path === undefined ? place : { path: style === task ? place.path.replace(/.$/, 't') : place.path }
    servers.push(await listen({ ...own, ...options }, style))
  }
}
const placeOf = (server) =>
  server.family === 'unix' ? { path: server.address } : { host: server.address, port: server.port }

const end = Date.now() + SECONDS * 1000
const clients = Array.from({ length: CLIENTS }, async (_, i) => {
  while (Date.now() < end) {
    const place = placeOf(pick(servers))
    if (i % 3 === 0) await faithful(place)
    else if (i % 3 === 1) await rude(place)
    else await dialed(place)
    if (int(0, 100) === 0) globalThis.gc?.()
  }
})
await Promise.all(clients)
setTimeout(() => fail('shutdown() does not end'), 20_000).unref()
await Promise.all(servers.map((server) => server.shutdown()))
await sleep(50)
rmSync(folder, { recursive: true, force: true })

const { accepted, dialed: dials, closed, slabInUseBytes } = stats()
console.log(`${accepted} accepted, ${dials} dialed, ${echoes} whole echoes`)
if (accepted + dials !== closed) fail(`${accepted + dials - closed} connections are open`)
if (slabInUseBytes !== 0) fail(`${slabInUseBytes} bytes of the pool are in use`)
if (echoes < 10) fail('hardly anything was echoed')
