// How connections of a pool end, one by one or all: by age, by validation, by drain(); and who forgets to give them back.

import { AsyncLocalStorage } from 'node:async_hooks'
import { type Conn, createPool, type Lease, type PoolOptions } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { atEnd, deferred, rejection, until, within } from './harness.ts'
import { idOf, PoolServer, pooled, take, use } from './pool_server.ts'
import { run } from './programs.ts'

describe('time', () => {
  test('a connection that nobody uses is closed, but minIdle are kept', async () => {
    const pool = pooled(await PoolServer.start(), { idleTimeoutMs: 30, minIdle: 1 })
    const leases = [await take(pool), await take(pool), await take(pool)]
    for (const lease of leases) lease.release()
    await until('the others are closed', () => pool.stats().total === 1)
    expect(pool.stats().expiredIdle).toBeGreaterThanOrEqual(2)
  })

  test('a connection that is too old is closed, in use when it comes back', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server, { maxLifetimeMs: 40 })
    const lease = await take(pool)
    expect(await idOf(lease.conn)).toBe(1)
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(await idOf(lease.conn)).toBe(1)
    lease.release()
    expect(pool.stats().expiredAge).toBe(1)
    expect(await use(pool)).toBe(2)
    await until('the idle one is closed', () => pool.stats().expiredAge === 2)
  })
})

describe('validate', () => {
  test('before lending: what fails is closed, and the next one is tried', async () => {
    const server = await PoolServer.start()
    const asked: number[] = []
    const bad = new Set([2])
    const validate = async (conn: Conn) => {
      const id = await idOf(conn)
      asked.push(id)
      return !bad.has(id)
    }
    const pool = pooled(server, { validate, validateAfterMs: 0, validateEveryMs: 0 })
    const leases = [await take(pool), await take(pool)]
    for (const lease of leases) await idOf(lease.conn)
    for (const lease of leases) lease.release()
    expect(await use(pool)).toBe(1)
    expect(asked).toEqual([2, 1])
    expect(pool.stats()).toMatchObject({ validations: 2, validationFailures: 1 })
  })

  const failing: [string, PoolOptions['validate']][] = [
    ['throws', () => Promise.reject(new Error('broken'))],
    ['takes too long', () => new Promise(() => {})],
    ['leaves bytes unread', (conn) => conn.write('?') || true],
  ]
  test.each(failing)('that %s has failed', async (_, validate) => {
    const server = await PoolServer.start()
    const pool = pooled(server, { validate, validateAfterMs: 0, validateTimeoutMs: 30 } as PoolOptions)
    const lease = await take(pool)
    await idOf(lease.conn)
    lease.release()
    expect(await use(pool)).toBe(2)
    expect(pool.stats().validationFailures).toBe(1)
  })

  test('of idle ones, now and then', async () => {
    const server = await PoolServer.start()
    let isGood = true
    const pool = pooled(server, { validate: () => isGood, validateEveryMs: 20, validateAfterMs: 60_000 })
    await use(pool)
    await until('it is asked', () => pool.stats().validations > 1)
    expect(pool.stats().total).toBe(1)
    isGood = false
    await until('it is closed', () => pool.stats().total === 0)
  })
})

describe('leaks', () => {
  test('a connection that is held for too long is reported, once, with who took it', async () => {
    const warnings: (Error & { code?: string; detail?: string })[] = []
    const onWarning = (warning: Error) => warnings.push(warning)
    process.on('warning', onWarning)
    atEnd(() => process.off('warning', onWarning))
    const pool = pooled(await PoolServer.start(), { leakDetectionMs: 20, maxTotal: 2 })
    async function forgetfulHandler(): Promise<Lease> {
      return pool.acquire()
    }
    const lease = await forgetfulHandler()
    const other = await take(pool)
    other.release()
    await until('it is reported', () => warnings.length > 0)
    await new Promise((resolve) => setTimeout(resolve, 60))
    lease.release()
    expect(warnings.length).toBe(1)
    expect(warnings[0]).toMatchObject({ name: 'EdgewireWarning', code: 'EDGEWIRE_POOL_LEAK' })
    expect(warnings[0]?.detail).toContain('forgetfulHandler')
    expect(pool.stats().leakSuspects).toBe(1)
  })
})

describe('drain()', () => {
  test('closes idle ones at once, those in use when they come back, and lends no more', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server, { maxTotal: 2 })
    const [busy, idle] = [await take(pool), await take(pool)]
    await idOf(busy.conn)
    idle.release()
    const [end, again] = [pool.drain(), pool.drain()]
    await until('the idle one is closed', () => server.sockets.size === 1)
    expect(await rejection(pool.acquire())).toMatchObject({ code: 'ERR_POOL_CLOSED', op: 'acquire' })
    expect(pool.tryAcquire()).toBeUndefined()
    expect(await idOf(busy.conn)).toBe(1)
    busy.release()
    await within('it ends', Promise.all([end, again]))
    expect(pool.stats().total).toBe(0)
  })

  test('fails those who wait', async () => {
    const pool = pooled(await PoolServer.start(), { maxTotal: 1 })
    const lease = await take(pool)
    const waiting = rejection(pool.acquire())
    const end = pool.drain()
    expect(await waiting).toMatchObject({ code: 'ERR_POOL_CLOSED' })
    lease.release()
    await within('it ends', end)
  })

  test('gives dials up', async () => {
    const pool = pooled(await PoolServer.start(), { minIdle: 3 })
    await within('it ends', pool.drain())
    expect(pool.stats()).toMatchObject({ total: 0, dialFailures: 0 })
  })

  test('aborts those in use after its time', async () => {
    const pool = pooled(await PoolServer.start())
    const lease = await take(pool)
    const reading = rejection(lease.conn.read(new Uint8Array(1)))
    await within('it ends', pool.drain({ timeoutMs: 20 }))
    expect(await reading).toMatchObject({ code: 'ERR_POOL_CLOSED' })
    lease.release()
    expect(pool.stats()).toMatchObject({ total: 0, busy: 0, released: 1 })
  })

  test('of a pool that was never used', async () => {
    await within('it ends', createPool({ host: '127.0.0.1', port: 1 }).drain())
  })
})

test('a connection does not live in the async context of the request that it was dialed for', async () => {
  const storage = new AsyncLocalStorage<string>()
  const seen = deferred<string | undefined>()
  const server = await PoolServer.start()
  const pool = pooled(server, {
    validateAfterMs: 0,
    validate: () => {
      seen.resolve(storage.getStore())
      return true
    },
  })
  await storage.run('of the first request', () => use(pool))
  await storage.run('of the second', () => use(pool))
  expect(await within('it is validated', seen.promise)).toBeUndefined()
})

test('a pooled connection has no room for what only few connections need', async () => {
  const pool = pooled(await PoolServer.start(), {})
  await use(pool)
  await use(pool)
  const lease = await take(pool)
  expect(Reflect.get(lease.conn, 'rare')).toBeUndefined()
  lease.release()
  expect(pool.stats()).toMatchObject({ idle: 1, dials: 1 })
})

test('who waits for warmUp() keeps the process alive, also between two dials', async () => {
  const { code, stdout } = await run(`import { createPool } from 'edgewire'
    const gone = await listen({ host: '127.0.0.1', port: 0 }, { data() {} })
    const { port } = gone
    await gone.close()
    const pool = createPool({ host: '127.0.0.1', port, minIdle: 1, breakerFailures: 3, acquireTimeoutMs: 0 })
    await pool.warmUp().catch((error) => print(error.code))`)
  expect({ code, stdout }).toEqual({ code: 0, stdout: 'ERR_POOL_UPSTREAM\n' })
})

test('idle connections let the process end', async () => {
  const server = await PoolServer.start()
  const { code, stdout, stderr } = await run(`import { createPool } from 'edgewire'
    const pool = createPool({ host: '127.0.0.1', port: ${server.port}, minIdle: 2, idleTimeoutMs: 60_000 })
    await pool.use(async (conn) => {
      conn.write('?')
      await sleep(50)
      print(await conn.read(new Uint8Array(4)))
    })`)
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: '4\n', stderr: '' })
})
