// The whole pool over connections that are made up, with a clock in hand: what happens when, to the millisecond.

import { AsyncLocalStorage } from 'node:async_hooks'
import type { PoolOptions } from 'edgewire'
import { beforeEach, describe, expect, test } from 'vitest'
import { ConnPool } from '../../dist/pool.js'
import type { PoolParts } from '../../dist/pool_parts.js'
import { planPool } from '../../dist/pool_plan.js'
import { ManualClock } from './manual_clock.ts'

const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

/** As much of a connection as a pool looks at. */
class MadeUpConn {
  isQuiet = true
  mayHaveInput = false
  state = 'open'
  isAtRest = false
  keeper!: { stirred(): void; ended(error: undefined): void }

  keep(keeper: typeof this.keeper): void {
    this.keeper = keeper
  }

  rest(): void {
    this.isAtRest = true
  }

  rouse(): void {
    this.isAtRest = false
  }

  /** The peer's FIN has come. */
  stir(): void {
    this.isAtRest = false
    this.keeper.stirred()
  }

  /** It is over some time later, as after a command to the reactor. */
  close(): void {
    if (this.state === 'closed') return
    this.state = 'closed'
    this.isQuiet = false
    queueMicrotask(() => this.keeper.ended(undefined))
  }

  abort(): void {
    this.close()
  }
}

interface MadeUpDial {
  /** Address and port, as in errors. */
  to: string
  signal: AbortSignal
  accept(): MadeUpConn
  refuse(): void
}

let clock: ManualClock
let dials: MadeUpDial[]

beforeEach(() => {
  clock = new ManualClock()
  dials = []
})

function poolOf(
  options: Partial<PoolOptions>,
  ask: PoolParts['ask'] = () => Promise.reject(new Error('asked')),
): ConnPool {
  const dial = (place: { host?: string; signal?: AbortSignal }) =>
    new Promise((resolve, reject) => {
      const signal = place.signal as AbortSignal
      signal.addEventListener('abort', () => reject(signal.reason))
      const accept = () => {
        const conn = new MadeUpConn()
        resolve(conn)
        return conn
      }
      dials.push({ to: String(place.host), signal, accept, refuse: () => reject(new Error('refused')) })
    })
  const place = options.upstreams === undefined && options.host === undefined ? { host: '10.0.0.1', port: 80 } : {}
  return new ConnPool(planPool({ ...place, ...options } as PoolOptions), { clock, dial, ask, turn: settled } as never)
}

/** Takes so many connections, each of which is dialed. */
async function taken(pool: ConnPool, count: number) {
  const from = dials.length
  const leases = Array.from({ length: count }, () => pool.acquire())
  for (const dial of dials.slice(from)) dial.accept()
  return Promise.all(leases)
}

describe('dials', () => {
  test('are as many as are needed, and no more than maxTotal', async () => {
    const pool = poolOf({ maxTotal: 3 })
    const leases = Array.from({ length: 5 }, () => pool.acquire())
    expect(dials.length).toBe(3)
    for (const dial of dials) dial.accept()
    await settled()
    expect(pool.stats()).toMatchObject({ busy: 3, waiting: 2, total: 3 })
    ;(await leases[0])?.release()
    ;(await leases[1])?.release()
    await Promise.all(leases)
    expect(dials.length).toBe(3)
  })

  test('are bound to nobody: the first that connects serves who came first', async () => {
    const pool = poolOf({})
    const [first, second] = [pool.acquire(), pool.acquire()]
    dials[1]?.accept()
    const lease = await first
    lease.release()
    await second
    dials[0]?.accept()
    await settled()
    expect(pool.stats()).toMatchObject({ idle: 1, busy: 1, dials: 2 })
  })

  test('that are no longer needed make idle connections', async () => {
    const pool = poolOf({})
    const controller = new AbortController()
    const waiting = pool.acquire({ signal: controller.signal })
    await settled()
    controller.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    dials[0]?.accept()
    await settled()
    expect(pool.stats()).toMatchObject({ idle: 1, busy: 0 })
  })

  test('for minIdle have their pauses where a server accepts and ends connections at once', async () => {
    const pool = poolOf({ minIdle: 1, backoffMs: 100 })
    const endAt = async (ms: number) => {
      const conn = dials.at(-1)?.accept()
      await settled()
      clock.advance(ms)
      conn?.stir()
      await settled()
    }
    await endAt(99)
    expect(dials.length).toBe(1)
    clock.advance(100)
    expect(dials.length).toBe(2)
    await endAt(0)
    clock.advance(199)
    expect(dials.length).toBe(2)
    clock.advance(1)
    expect(dials.length).toBe(3)
    expect(pool.snapshot().addresses[0]).toMatchObject({ failures: 2, lastError: { code: 'ERR_CONN_CLOSED' } })
    // One that has lived for a while, or has been of use, is the server's to end.
    await endAt(100)
    expect(dials.length).toBe(4)
  })

  test('a connection that has been of use and ends is no failure of its address', async () => {
    const pool = poolOf({ minIdle: 1 })
    const conn = dials[0]?.accept()
    await settled()
    ;(await pool.acquire()).release()
    conn?.stir()
    await settled()
    expect(dials.length).toBe(2)
    expect(pool.snapshot().addresses[0]).toMatchObject({ failures: 0 })
  })

  test('a connection that has ended in the turn that opened it is a dial that failed', async () => {
    const pool = poolOf({ minIdle: 1 })
    const conn = dials[0]?.accept()
    if (conn) conn.state = 'closed'
    await settled()
    expect(pool.stats()).toMatchObject({ total: 0, dialFailures: 1 })
  })

  test('that take long are joined by one to another address, and by none to the same', async () => {
    const pool = poolOf({
      upstreams: [
        { host: '10.0.0.1', port: 80 },
        { host: '10.0.0.2', port: 80 },
      ],
    })
    const waiting = pool.acquire()
    clock.advance(249)
    expect(dials.length).toBe(1)
    clock.advance(1)
    expect(dials.map(({ to }) => to)).toEqual(['10.0.0.1', '10.0.0.2'])
    clock.advance(1_000)
    expect(dials.length).toBe(2)
    dials[1]?.accept()
    expect((await waiting).upstream).toBe('10.0.0.2:80')
  })

  test('of an only address are not joined', async () => {
    const pool = poolOf({})
    const waiting = pool.acquire({ timeoutMs: 0 })
    clock.advance(2_000)
    expect(dials.length).toBe(1)
    dials[0]?.accept()
    await waiting
  })

  test('are tried again when the pause is over, while somebody waits', async () => {
    const pool = poolOf({ backoffMs: 100 })
    const waiting = pool.acquire()
    dials[0]?.refuse()
    await settled()
    clock.advance(99)
    expect(dials.length).toBe(1)
    clock.advance(1)
    expect(dials.length).toBe(2)
    dials[1]?.accept()
    await waiting
  })

  test('are not tried again when nobody waits any more', async () => {
    const pool = poolOf({ backoffMs: 100 })
    const waiting = pool.acquire({ timeoutMs: 50 })
    dials[0]?.refuse()
    await settled()
    clock.advance(50)
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' })
    clock.advance(10_000)
    expect(dials.length).toBe(1)
  })
})

test('drain() closes what a dial brings that could not be given up, also after its time', async () => {
  const conn = new MadeUpConn()
  let connect: ((made: MadeUpConn) => void) | undefined
  const dial = () =>
    new Promise<MadeUpConn>((resolve) => {
      connect = resolve
    })
  const plan = planPool({ host: '10.0.0.1', port: 80 })
  const ask = () => Promise.reject(new Error('asked'))
  const pool = new ConnPool(plan, { clock, dial, ask, turn: settled } as never)
  const waiting = pool.acquire()
  const end = pool.drain({ timeoutMs: 10 })
  await expect(waiting).rejects.toMatchObject({ code: 'ERR_POOL_CLOSED' })
  clock.advance(10)
  expect(pool.stats().total).toBe(1)
  connect?.(conn)
  await end
  expect({ state: conn.state, total: pool.stats().total }).toEqual({ state: 'closed', total: 0 })
})

test('a dial does not belong to the async context of who waits', async () => {
  const storage = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  const dial = () => {
    seen.push(storage.getStore())
    return new Promise(() => {})
  }
  const plan = planPool({ host: '10.0.0.1', port: 80 })
  const pool = new ConnPool(plan, {
    clock,
    dial,
    ask: () => Promise.reject(new Error('asked')),
    turn: settled,
  } as never)
  void storage.run('of a request', () => pool.acquire())
  expect(seen).toEqual([undefined])
})

describe('time', () => {
  test('idleTimeoutMs closes the oldest first, and keeps minIdle', async () => {
    const pool = poolOf({ idleTimeoutMs: 1_000, minIdle: 1, maxTotal: 3 })
    dials[0]?.accept()
    await settled()
    const leases = [await pool.acquire(), ...(await taken(pool, 2))]
    dials[3]?.accept()
    await settled()
    for (const lease of leases) lease.release()
    const before = pool.stats().idle
    clock.advance(999)
    expect(pool.stats().idle).toBe(before)
    clock.advance(251)
    expect(pool.stats().idle).toBe(1)
  })

  test('maxLifetimeMs, less up to a tenth by chance', async () => {
    const pool = poolOf({ maxLifetimeMs: 1_000, idleTimeoutMs: 0 })
    clock.chance = 0.5
    const [lease] = await taken(pool, 1)
    lease?.release()
    clock.advance(949)
    expect(pool.stats().idle).toBe(1)
    clock.advance(251)
    expect(pool.stats()).toMatchObject({ idle: 0, expiredAge: 1 })
  })

  test('nothing ticks when there is no connection', async () => {
    const pool = poolOf({})
    const [lease] = await taken(pool, 1)
    lease?.discard()
    await settled()
    clock.advance(10_000)
    expect(clock.pending).toBe(0)
  })
})

describe('addresses', () => {
  const upstreams = [
    { host: '10.0.0.1', port: 80 },
    { host: '10.0.0.2', port: 80 },
  ]

  test('a full pool makes room for a new one, one connection at a time, until the spread is even', async () => {
    let addresses = ['10.0.0.1']
    const ask = async () => ({ addresses, ttlMs: 100 })
    const pool = poolOf({ host: 'a.test', port: 80, maxTotal: 4, dnsTtlMs: 100 }, ask)
    const first = pool.acquire()
    await settled()
    dials[0]?.accept()
    const leases = [await first, ...(await taken(pool, 3))]
    addresses = ['10.0.0.1', '10.0.0.2']
    clock.advance(150)
    await settled()
    const waiting = [pool.acquire(), pool.acquire(), pool.acquire(), pool.acquire()]
    for (const lease of leases) lease.release()
    await settled()
    expect(dials.slice(4).map(({ to }) => to)).toEqual(['10.0.0.2'])
    dials[4]?.accept()
    for (const lease of await Promise.all(waiting)) lease.release()
    await settled()
    expect(pool.stats().moved).toBe(2)
    expect(dials.slice(5).map(({ to }) => to)).toEqual([])
  })

  test('one that has left DNS loses its idle connections and its dials at once', async () => {
    let addresses = ['10.0.0.1']
    const ask = async () => ({ addresses, ttlMs: 100 })
    const pool = poolOf({ host: 'a.test', port: 80, dnsTtlMs: 100 }, ask)
    const first = pool.acquire()
    await settled()
    dials[0]?.accept()
    const [held] = [await first, ...(await taken(pool, 1))]
    const controller = new AbortController()
    pool.acquire({ signal: controller.signal }).catch(() => {})
    await settled()
    controller.abort()
    held.release()
    expect(pool.stats()).toMatchObject({ idle: 1, dialing: 1, busy: 1 })
    addresses = ['10.0.0.2']
    clock.advance(150)
    await settled()
    expect(dials[2]?.signal.aborted).toBe(true)
    expect(pool.stats()).toMatchObject({ idle: 0, dialing: 0, busy: 1, total: 1, departed: 1, dialFailures: 0 })
  })

  test('a chosen one without connection is dialed for the next time, and another helps out', async () => {
    const pool = poolOf({ upstreams, balance: 'round-robin' })
    const [lease] = await taken(pool, 1)
    lease?.release()
    const now = pool.tryAcquire()
    expect(now?.upstream).toBe('10.0.0.1:80')
    expect(dials.map(({ to }) => to)).toEqual(['10.0.0.1', '10.0.0.2'])
  })

  test('all open: who waits fails at once; one left: not', async () => {
    const pool = poolOf({ upstreams, breakerFailures: 1, backoffMs: 1_000 })
    const waiting = pool.acquire()
    dials[0]?.refuse()
    await settled()
    expect(pool.stats().waiting).toBe(1)
    dials[1]?.refuse()
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_POOL_UPSTREAM' })
  })

  test('a pause that ends while the pool looks is not missed', async () => {
    for (let earlyMs = 0; earlyMs < 0.3; earlyMs += 0.01) {
      clock = new ManualClock()
      dials = []
      const pool = poolOf({ backoffMs: 100, acquireTimeoutMs: 0, maxTotal: 1 })
      void pool.acquire()
      dials[0]?.refuse()
      await settled()
      // Time passes at each look at the clock.
      clock.now = () => {
        clock.ms += 0.01
        return clock.ms
      }
      clock.ms += 100 - earlyMs
      void pool.acquire()
      clock.advance(2)
      expect(dials.length, `looked at ${earlyMs} ms before the end`).toBe(2)
    }
  })

  test('all open: warmUp() fails at once as well', async () => {
    const pool = poolOf({ minIdle: 1, breakerFailures: 1, backoffMs: 1_000 })
    dials[0]?.refuse()
    await settled()
    await expect(pool.warmUp()).rejects.toMatchObject({ code: 'ERR_POOL_UPSTREAM' })
  })

  test('what was given up for may be anything, as what is caught may be', async () => {
    const pool = poolOf({ maxTotal: 1, acquireTimeoutMs: 50 })
    for (const [thrown, failures] of [
      [null, 0],
      [undefined, 0],
      ['a string', 1],
    ] as const) {
      const [lease] = await taken(pool, 1)
      lease?.discard(thrown as never)
      expect(pool.snapshot().addresses[0]?.failures).toBe(failures)
      await settled()
    }
    const waiting = pool.acquire()
    clock.advance(50)
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', cause: new Error('a string') })
    expect(pool.stats().waiting).toBe(0)
  })

  test('are counted, also of addresses that have left since', async () => {
    let addresses = ['10.0.0.1']
    const ask = async () => ({ addresses, ttlMs: 100 })
    const pool = poolOf({ host: 'service.test', port: 80, breakerFailures: 1, minIdle: 1 }, ask)
    await settled()
    dials[0]?.refuse()
    await settled()
    expect(pool.stats().breakerOpenings).toBe(1)
    addresses = ['10.0.0.2']
    clock.advance(2_000)
    await settled()
    expect(pool.snapshot().addresses.map(({ name }) => name)).toEqual(['10.0.0.2:80'])
    expect(pool.stats().breakerOpenings).toBe(1)
  })

  test('all open, but a connection is in use: who waits may still get that', async () => {
    const pool = poolOf({ breakerFailures: 1, backoffMs: 1_000 })
    const [lease] = await taken(pool, 1)
    const waiting = pool.acquire()
    dials[1]?.refuse()
    await settled()
    expect(pool.snapshot().addresses[0]?.breaker).toBe('open')
    lease?.release()
    expect((await waiting).upstream).toBe('10.0.0.1:80')
  })
})
