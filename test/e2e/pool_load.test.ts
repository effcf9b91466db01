// The pool under load: no connection is lost, none has two holders, and nobody notices that addresses change.

import { createPool, type FoundAddress, type PoolOptions } from 'edgewire'
import { expect, test } from 'vitest'
import { atEnd, random, until, within } from './harness.ts'
import { idOf, PoolServer } from './pool_server.ts'

const USES = 10_000
const CONCURRENCY = 200
const LOAD_MS = 100_000

/** Does `use` so often, so many at a time. */
async function load(count: number, concurrency: number, use: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async () => {
    while (next < count) await use(next++)
  }
  await within('the load is done', Promise.all(Array.from({ length: concurrency }, worker)), LOAD_MS)
}

test(`${USES} uses, ${CONCURRENCY} at a time, in every way: each connection has one holder`, {
  timeout: LOAD_MS,
}, async () => {
  const server = await PoolServer.start()
  const maxTotal = 20
  const pool = createPool({ host: server.host, port: server.port, maxTotal, acquireTimeoutMs: 0 })
  atEnd(() => pool.drain({ timeoutMs: 100 }))
  const holders = new Map<number, number>()
  const used = new Set<number>()
  let uses = 0
  await load(USES, CONCURRENCY, async (index) => {
    const lease = await pool.acquire()
    const id = await idOf(lease.conn)
    const holder = holders.get(id)
    if (holder !== undefined) throw new Error(`connection ${id} is lent to ${index} while ${holder} has it`)
    holders.set(id, index)
    // Held over turns, so that the others have time to be wrong.
    if (random() < 0.3) await new Promise((resolve) => setImmediate(resolve))
    expect(await idOf(lease.conn)).toBe(id)
    holders.delete(id)
    used.add(id)
    uses++
    if (random() < 0.01) lease.discard()
    else lease.release()
  })
  await until('all is quiet', () => pool.stats().closing + pool.stats().dialing === 0)
  const stats = pool.stats()
  expect(uses).toBe(USES)
  expect(stats).toMatchObject({ acquired: USES, released: USES, busy: 0, waiting: 0, unfit: 0, stirred: 0 })
  // Each connection that was dialed is idle, or was given up on purpose.
  expect(stats.idle + stats.discarded).toBe(stats.dials)
  expect(stats.total).toBe(stats.idle)
  await until('the server has as many', () => server.sockets.size === stats.idle)
  expect(server.accepted).toBe(stats.dials)
  // Those that came when nobody waited any more.
  expect(stats.dials - used.size).toBeLessThanOrEqual(stats.idle)
})

test('addresses change under load, and no use fails', { timeout: LOAD_MS }, async () => {
  const first = await PoolServer.start('127.0.0.1')
  const others = await Promise.all(['127.0.0.2', '127.0.0.3'].map((host) => PoolServer.start(host, first.port)))
  const servers = [first, ...others]
  const dnsTtlMs = 40
  let answer = [first.host]
  const lookup = async (): Promise<FoundAddress[]> => answer.map((address) => ({ address, family: 4, ttl: 1 }))
  const options: PoolOptions = { host: 'service.test', port: first.port, maxTotal: 12, dnsTtlMs, lookup }
  const pool = createPool(options)
  atEnd(() => pool.drain({ timeoutMs: 100 }))
  let isOver = false
  let uses = 0
  const worker = async () => {
    while (!isOver) {
      await pool.use(idOf)
      uses++
    }
  }
  const workers = Promise.all(Array.from({ length: 30 }, worker))
  // A worker that fails shows in `workers`, and at once.
  const failed = workers.then(() => {})
  for (const hosts of [['127.0.0.1', '127.0.0.2'], ['127.0.0.2'], ['127.0.0.3'], ['127.0.0.1', '127.0.0.3']]) {
    answer = hosts
    const isThere = () => {
      const live = servers.filter(({ sockets }) => sockets.size > 0).map(({ host }) => host)
      return live.join() === hosts.join()
    }
    await Promise.race([failed, until(`exactly ${hosts.join()} are used`, isThere)])
  }
  isOver = true
  await within('the load ends', workers)
  expect(uses).toBeGreaterThan(0)
  expect(pool.stats()).toMatchObject({ dialFailures: 0, timeouts: 0, upstreamFailures: 0, unfit: 0 })
  expect(pool.stats().departed).toBeGreaterThan(0)
  expect(
    pool
      .snapshot()
      .addresses.map(({ name }) => name)
      .sort(),
  ).toEqual([servers[0]?.name, servers[2]?.name])
})
