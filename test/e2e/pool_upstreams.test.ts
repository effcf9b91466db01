// Upstreams that fail, come back, are many: what those who wait are told, and who gets the connections.

import { createPool, type FoundAddress, type Pool, type PoolOptions } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { atEnd, rejection, until, within } from './harness.ts'
import { idOf, PoolServer } from './pool_server.ts'

function drained(options: PoolOptions): Pool {
  const pool = createPool(options)
  atEnd(() => pool.drain({ timeoutMs: 100 }))
  return pool
}

/** A server that has been there, and is gone. */
async function absent(): Promise<PoolServer> {
  const server = await PoolServer.start()
  await server.vanish()
  return server
}

describe('an upstream that is down', () => {
  test('fails those who wait when its breaker opens, with its name and its last error', async () => {
    const server = await absent()
    const pool = drained({ host: server.host, port: server.port, breakerFailures: 3, backoffMs: 1 })
    const errors = await Promise.all([rejection(pool.acquire()), rejection(pool.acquire())])
    for (const error of errors) {
      expect(error).toMatchObject({ code: 'ERR_POOL_UPSTREAM', op: 'acquire', remoteAddress: server.name })
      expect(error.message).toContain('connection refused')
      expect(error.cause).toMatchObject({ code: 'ECONNREFUSED', remoteAddress: server.name })
    }
    expect(pool.stats()).toMatchObject({ upstreamFailures: 2, breakerOpenings: 1, waiting: 0 })
  })

  test('fails later calls at once, and none of them dials', async () => {
    const server = await absent()
    const pool = drained({ host: server.host, port: server.port, breakerFailures: 1, backoffMs: 60_000 })
    await rejection(pool.acquire())
    const { dials } = pool.stats()
    for (let count = 0; count < 20; count++) await rejection(pool.acquire())
    expect(pool.stats().dials).toBe(dials)
    expect(pool.snapshot().addresses[0]).toMatchObject({ breaker: 'open', failures: 1 })
  })

  test('holds nobody longer than acquireTimeoutMs while its breaker is closed', async () => {
    const server = await absent()
    const pool = drained({ host: server.host, port: server.port, backoffMs: 60_000, acquireTimeoutMs: 50 })
    const error = await rejection(pool.acquire())
    expect(error).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', timeout: true })
    expect(error.cause).toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('serves those who wait when it comes back', async () => {
    const server = await absent()
    const pool = drained({
      host: server.host,
      port: server.port,
      breakerFailures: 1_000,
      backoffMs: 1,
      backoffMaxMs: 5,
    })
    const waiting = pool.use(idOf)
    await until('it is dialed several times', () => pool.stats().dialFailures > 2)
    await server.appear()
    expect(await within('it is used', waiting)).toBe(1)
  })

  test('is probed by one dial when its pause is over', async () => {
    const server = await absent()
    const options = { breakerFailures: 1, backoffMs: 20, backoffMaxMs: 20 }
    const pool = drained({ host: server.host, port: server.port, maxTotal: 5, ...options })
    await rejection(pool.acquire())
    await until('it may be probed', () => pool.snapshot().addresses[0]?.breaker === 'half-open')
    const { dials } = pool.stats()
    const failing = Promise.all([1, 2, 3].map(() => rejection(pool.acquire())))
    expect(pool.stats().dials).toBe(dials + 1)
    await failing
    await server.appear()
    await until('it may be probed', () => pool.snapshot().addresses[0]?.breaker === 'half-open')
    await within('all are served', Promise.all([1, 2, 3].map(() => pool.use(idOf))))
    expect(pool.snapshot().addresses[0]).toMatchObject({ breaker: 'closed', failures: 0, lastError: undefined })
  })

  test('that accepts and resets opens its breaker too', async () => {
    const server = await PoolServer.start()
    server.isResetting = true
    const pool = drained({ host: server.host, port: server.port, breakerFailures: 2, backoffMs: 1, maxTotal: 1 })
    const outcomes: unknown[] = []
    while (pool.stats().breakerOpenings === 0 && outcomes.length < 100) {
      outcomes.push(await pool.use(idOf).catch((error: unknown) => error))
    }
    expect(pool.stats().breakerOpenings).toBe(1)
  })

  test('a caller’s discard(error) counts as a failure, discard() does not', async () => {
    const server = await PoolServer.start()
    const pool = drained({ host: server.host, port: server.port, breakerFailures: 2, backoffMs: 1 })
    const failures = () => pool.snapshot().addresses[0]?.failures
    ;(await pool.acquire()).discard()
    expect(failures()).toBe(0)
    ;(await pool.acquire()).discard(new Error('it talks nonsense'))
    expect(failures()).toBe(1)
  })

  test('a connection that breaks in use counts as a failure, one that breaks while it is idle does not', async () => {
    const server = await PoolServer.start()
    const pool = drained({ host: server.host, port: server.port, backoffMs: 1 })
    const failures = () => pool.snapshot().addresses[0]?.failures
    expect(await pool.use(idOf)).toBe(1)
    server.sockets.get(1)?.resetAndDestroy()
    await until('the pool has noticed', () => pool.stats().stirred === 1)
    expect(failures()).toBe(0)
    const lease = await pool.acquire()
    expect(await idOf(lease.conn)).toBe(2)
    server.sockets.get(2)?.resetAndDestroy()
    await within('it breaks', lease.conn.closed)
    lease.release()
    expect(failures()).toBe(1)
  })

  test('a name that does not exist', async () => {
    const lookup = () => Promise.reject(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }))
    const pool = drained({ host: 'nowhere.test', port: 1, lookup })
    const error = await rejection(pool.acquire())
    expect(error).toMatchObject({ code: 'ERR_POOL_UPSTREAM', remoteAddress: 'nowhere.test:1' })
    expect(error.cause).toMatchObject({ code: 'ENOTFOUND' })
    expect(pool.stats()).toMatchObject({ lookups: 1, lookupFailures: 1 })
  })
})

describe('several upstreams', () => {
  async function three(): Promise<PoolServer[]> {
    return [await PoolServer.start(), await PoolServer.start(), await PoolServer.start()]
  }
  const upstreamsOf = (servers: PoolServer[]) => servers.map(({ host, port }) => ({ host, port }))
  const answersOf = (servers: PoolServer[]) => servers.map(({ answers }) => answers)

  test('round-robin: each gets as many uses', async () => {
    const servers = await three()
    const pool = drained({ upstreams: upstreamsOf(servers), balance: 'round-robin' })
    // The first time that an address is chosen it has no connection yet, and another one helps out.
    while (pool.stats().idle < 3) await pool.use(idOf)
    const before = answersOf(servers)
    for (let count = 0; count < 30; count++) await pool.use(idOf)
    expect(answersOf(servers).map((answers, index) => answers - (before[index] ?? 0))).toEqual([10, 10, 10])
  })

  test('least-connections: held ones are spread', async () => {
    const servers = await three()
    const pool = drained({ upstreams: upstreamsOf(servers), maxTotal: 9 })
    const leases = await within('all', Promise.all(Array.from({ length: 9 }, () => pool.acquire())))
    expect(pool.snapshot().addresses.map(({ busyCount }) => busyCount)).toEqual([3, 3, 3])
    for (const lease of leases) lease.release()
  })

  test('p2c and a function of the caller’s', async () => {
    const servers = await three()
    for (const balance of ['p2c', (all: readonly { name: string }[]) => all[0]] as PoolOptions['balance'][]) {
      const pool = drained({ upstreams: upstreamsOf(servers), ...(balance === undefined ? {} : { balance }) })
      await within('all', Promise.all(Array.from({ length: 20 }, () => pool.use(idOf))))
      expect(pool.stats()).toMatchObject({ acquired: 20, balanceFailures: 0 })
    }
  })

  test('one that is down costs the others nothing', async () => {
    const servers = await three()
    await servers[1]?.vanish()
    const pool = drained({ upstreams: upstreamsOf(servers), balance: 'round-robin', breakerFailures: 1, maxTotal: 6 })
    await within('all', Promise.all(Array.from({ length: 60 }, () => pool.use(idOf))))
    expect(pool.stats()).toMatchObject({ acquired: 60, upstreamFailures: 0 })
    const dead = pool.snapshot().addresses.find(({ name }) => name === servers[1]?.name)
    expect(dead).toMatchObject({ breaker: 'open', busyCount: 0, idleCount: 0 })
  })

  test('an address that comes back to DNS is the one it was', async () => {
    const server = await PoolServer.start()
    const other = await PoolServer.start('127.0.0.2', server.port)
    let answer: FoundAddress[] = [{ address: server.host, family: 4 }]
    const pool = drained({ host: 'a.test', port: server.port, dnsTtlMs: 20, lookup: async () => answer })
    const lease = await pool.acquire()
    answer = [{ address: other.host, family: 4 }]
    await until('it has left', () => pool.snapshot().addresses[0]?.leaving === true)
    expect(pool.snapshot().addresses.length).toBe(2)
    answer = [{ address: server.host, family: 4 }]
    await until('it is back', () => pool.snapshot().addresses.every(({ leaving }) => !leaving))
    lease.release()
    expect(pool.stats()).toMatchObject({ idle: 1, departed: 0 })
  })
})
