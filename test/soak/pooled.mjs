// @ts-check
// Sessions over connections of one pool, which leads to the server by a name, by an address and by a path: well-behaved
// ones, which check every byte, and rude ones, which give back what nobody should have. Whoever had a connection before,
// the next holder must find it as if it were new.
import { setTimeout as sleep } from 'node:timers/promises'
import { createPool, NetError } from 'edgewire'
import { Checker, pattern } from './pattern.mjs'
import { offsetOf } from './polite.mjs'
import { Command, header } from './protocol.mjs'
import { violation } from './worker.mjs'

/** @import { AcquireOptions, Conn, Pool, PoolStats, Upstream } from 'edgewire' */
/** @import { Place } from './protocol.mjs' */
/** @import { Session } from './session.mjs' */

const READ_BYTES = 16_384
const ROUND_MAX_BYTES = 48_000
const ROUNDS_MAX = 6
const PING_BYTES = 4
const ANSWER_MS = 20_000
const DRAIN_MS = 5_000
const OPTIONS = {
  maxTotal: 6, // about ten of the crowd want one at any time
  minIdle: 2,
  acquireTimeoutMs: ANSWER_MS,
  idleTimeoutMs: 1_000, // far below the server's patience: it must not be first
  maxLifetimeMs: 4_000,
  validateAfterMs: 200,
  validateEveryMs: 300,
  validateTimeoutMs: ANSWER_MS,
  backoffMaxMs: 1_000,
  lingerMs: 5_000,
}

/** What the sessions know of a pool, to be compared with what it says of itself: by the calls that they have made. */
export class Pooled {
  calls = 0
  leases = 0
  /** @type {PoolStats | undefined} after the load */
  stats
  /** @type {Set<Conn>} */
  #held = new Set()
  /** @type {Pool} */
  #pool

  /** @param {{ name: string, place: Place }[]} places */
  constructor(places) {
    this.#pool = createPool({ ...OPTIONS, upstreams: upstreamsOf(places), validate: (conn) => this.#ping(conn) })
  }

  /**
   * @template T
   * @param {AcquireOptions} options
   * @param {(conn: Conn) => Promise<T>} fn
   */
  async use(options, fn) {
    this.calls++
    return this.#pool.use((conn) => {
      this.leases++
      return this.#alone(conn, () => fn(conn))
    }, options)
  }

  /**
   * Gives the connection back as it is, or gives it up.
   * @param {AcquireOptions} options
   * @param {(conn: Conn) => Promise<boolean>} fn whether it may be released
   */
  async abuse(options, fn) {
    this.calls++
    const lease = await this.#pool.acquire(options)
    this.leases++
    let releases = false
    try {
      releases = await this.#alone(lease.conn, () => fn(lease.conn))
    } finally {
      if (releases) lease.release()
      else lease.discard()
    }
  }

  /** The load is over, and every session with it. */
  async end() {
    const before = this.#pool.stats()
    if (before.busy !== 0 || before.waiting !== 0) violation(`pool: ${before.busy} in use, ${before.waiting} waiting`)
    await this.#pool.drain({ timeoutMs: DRAIN_MS })
    this.stats = this.#pool.stats()
  }

  /**
   * @template T
   * @param {Conn} conn
   * @param {() => Promise<T>} fn
   */
  async #alone(conn, fn) {
    if (this.#held.has(conn)) violation('pool: a connection is lent to two')
    this.#held.add(conn)
    return fn().finally(() => this.#held.delete(conn))
  }

  /** @param {Conn} conn */
  async #ping(conn) {
    await this.#alone(conn, () => exchange(conn, 0, PING_BYTES, () => {}))
    return true
  }
}

/** @type {Pooled} */
let pooled

/** @param {{ name: string, place: Place }[]} places */
export function openPool(places) {
  pooled = new Pooled(places)
  return pooled
}

/**
 * @param {{ name: string, place: Place }[]} places
 * @returns {Upstream[]}
 */
function upstreamsOf(places) {
  const at = (/** @type {string} */ name) => {
    const found = places.find((each) => each.name === name)
    if (found === undefined) throw new Error(`no listener is called ${name}`)
    return found.place
  }
  const handlers = at('tcp handlers')
  // Nobody listens on localhost's other address: that one stays with its breaker.
  const byName = 'path' in handlers ? handlers : { host: 'localhost', port: handlers.port }
  return [byName, at('tcp task'), at('unix handlers')]
}

/**
 * So many bytes there and back. The first use of a connection says what it is for: everything comes back until FIN.
 * Not as a well-behaved client, because the pool ends it as it likes.
 * @param {Conn} conn
 * @param {number} offset
 * @param {number} length
 * @param {(bytes: number) => void} verified
 */
async function exchange(conn, offset, length, verified) {
  if (conn.data === undefined) {
    conn.data = 'used'
    conn.write(header(Command.Echo))
  }
  const checker = new Checker(offset, length)
  const into = Buffer.alloc(READ_BYTES)
  conn.setReadDeadline(Date.now() + ANSWER_MS)
  conn.write(pattern(offset, length))
  while (!checker.complete) {
    const count = await conn.read(into)
    if (count === null) throw new Error(`FIN after ${checker.position} of ${length} bytes`)
    checker.take(into.subarray(0, count))
    verified(count)
  }
}

/** Every byte comes back, whoever had the connection before. @param {Session} session */
export async function pooledEcho(session) {
  const { random } = session
  session.step = 'waits for a connection of the pool'
  await pooled.use({}, async (conn) => {
    for (let rounds = random.int(1, ROUNDS_MAX); rounds > 0; rounds--) {
      session.step = `has ${rounds} rounds to go`
      await exchange(conn, offsetOf(session), random.size(1, ROUND_MAX_BYTES), (bytes) => {
        session.verifiedBytes += bytes
      })
      if (random.chance(0.2)) await sleep(random.int(0, 5))
    }
  })
}

/** Whatever comes of it is right for this one, as long as it is a NetError or its own signal. @param {Session} session */
export async function pooledRude(session) {
  const { random } = session
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(), random.int(1, 200))
  const options = random.chance(0.5) ? { timeoutMs: random.int(1, 30) } : { signal: controller.signal }
  try {
    await pooled.abuse(options, async (conn) => {
      const length = random.size(1, ROUND_MAX_BYTES)
      if (conn.data === undefined) conn.write(header(Command.Echo))
      conn.data = 'used'
      const end = random.int(0, 5)
      if (end > 0) conn.write(pattern(0, length))
      if (end === 1) conn.closeWrite()
      if (end === 2) conn.abort()
      if (end === 3) void conn.read(Buffer.alloc(length)).catch(() => {})
      if (end === 4) conn.setDeadline(1)
      if (random.chance(0.5)) await sleep(random.int(0, 10))
      // A pool cannot know of a reply that is still under way: docs/pool.md. The first three show.
      return end < 3
    })
  } catch (error) {
    const isOwn = controller.signal.aborted && error === controller.signal.reason
    if (!isOwn && !(error instanceof NetError)) throw error
  } finally {
    clearTimeout(timer)
  }
}
