// createPool(): lending and giving back, waiting, limits, idle connections; always with servers of node:net.

import { type Conn, createPool, type Lease, NetError } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { freshPath, rejection, serve, turn, unix, until, within } from './harness.ts'
import { idOf, PoolServer, pooled, take, use } from './pool_server.ts'

/** Reads of up to so much take so much from the kernel. */
const READ_BYTES = 4096

describe('a connection', () => {
  test('is dialed when it is needed, and reused', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server)
    await turn()
    expect(server.accepted).toBe(0)
    expect([await use(pool), await use(pool), await use(pool)]).toEqual([1, 1, 1])
    expect(pool.stats()).toMatchObject({ total: 1, idle: 1, dials: 1, acquired: 3, acquiredAtOnce: 2, released: 3 })
  })

  test('that was used last is lent first', async () => {
    const pool = pooled(await PoolServer.start())
    const leases = [await take(pool), await take(pool), await take(pool)]
    const ids = await Promise.all(leases.map(({ conn }) => idOf(conn)))
    for (const lease of leases) lease.release()
    expect([await use(pool), await use(pool)]).toEqual([ids[2], ids[2]])
  })

  test('over a Unix socket', async () => {
    const listener = await serve(unix, { data: (conn, chunk) => conn.write(chunk) }, { path: freshPath() })
    const pool = createPool({ path: listener.address })
    const answer = await pool.use(async (conn) => {
      conn.write('over there')
      const bytes = new Uint8Array(100)
      return Buffer.from(bytes.subarray(0, (await conn.read(bytes)) ?? 0)).toString()
    })
    expect(answer).toBe('over there')
    await pool.drain()
  })

  test('is given back without the deadlines of its last use', async () => {
    const pool = pooled(await PoolServer.start())
    await pool.use(async (conn) => {
      await idOf(conn)
      conn.setDeadline(Date.now() - 1)
      conn.setIdleTimeout(20)
    })
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(await use(pool)).toBe(1)
  })

  test('is given back by `await using`, also after release()', async () => {
    const pool = pooled(await PoolServer.start())
    const lease = await take(pool)
    await lease[Symbol.asyncDispose]()
    expect(pool.stats().idle).toBe(1)
    await lease[Symbol.asyncDispose]()
    expect(pool.stats().released).toBe(1)
  })
})

describe('a lease that is over', () => {
  test('gives nothing, and is given back once', async () => {
    const pool = pooled(await PoolServer.start())
    const lease = await take(pool)
    lease.release()
    for (const call of [() => lease.conn, () => lease.release(), () => lease.discard(), () => pool.release(lease)]) {
      expect(call).toThrow(expect.objectContaining({ code: 'ERR_POOL_RELEASED', op: 'release' }))
    }
    expect(pool.stats()).toMatchObject({ released: 1, idle: 1 })
  })

  test('does not take the connection away from the next holder', async () => {
    const pool = pooled(await PoolServer.start(), { maxTotal: 1 })
    const first = await take(pool)
    first.release()
    const second = await take(pool)
    expect(() => first.release()).toThrow(NetError)
    expect(pool.stats().busy).toBe(1)
    second.release()
  })

  test('of another pool, or none at all, is refused', async () => {
    const server = await PoolServer.start()
    const [pool, other] = [pooled(server), pooled(server)]
    const foreign = await take(other)
    for (const given of [foreign, foreign.conn, undefined, {}]) {
      expect(() => pool.release(given as Lease)).toThrow(expect.objectContaining({ code: 'ERR_POOL_FOREIGN' }))
    }
    pool.release(await take(pool))
    foreign.release()
  })
})

describe('what the last use has left', () => {
  const remains: [string, (conn: Conn, server: PoolServer) => unknown][] = [
    ['a read that waits', (conn) => void conn.read(new Uint8Array(8)).catch(() => {})],
    ['its side closed', (conn) => conn.closeWrite()],
    ['bytes unsent', (conn) => conn.write(Buffer.alloc(1_000))],
    ['the connection closed', (conn) => conn.close()],
    ['the connection aborted', (conn) => conn.abort()],
    [
      'bytes unread',
      async (conn) => {
        conn.write('??')
        for (let have = 0; have < 5; ) have += (await conn.read(new Uint8Array(5 - have))) ?? 0
      },
    ],
  ]

  test.each(remains)('%s: another connection is lent', async (_, leave) => {
    const server = await PoolServer.start()
    const pool = pooled(server, { maxTotal: 1 })
    const lease = await take(pool)
    await leave(lease.conn, server)
    lease.release()
    expect(await use(pool)).toBe(2)
    expect(pool.stats()).toMatchObject({ unfit: 1, total: 1 })
  })

  test('bytes that were written are sent all the same', async () => {
    const server = await PoolServer.start()
    const lease = await take(pooled(server))
    lease.conn.write('?????')
    lease.release()
    await until('the server has got them', () => server.answers === 5)
  })

  test('bytes that still lie in the kernel: nobody gets the connection before the reactor has looked', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server, { maxTotal: 1 })
    const lease = await take(pool)
    lease.conn.write(Buffer.alloc((2 * READ_BYTES) / 4))
    await until('all is answered', () => server.answers === (2 * READ_BYTES) / 4)
    await turn()
    // Exactly so much as is read at once: whether there is more is not known yet.
    expect(await lease.conn.read(new Uint8Array(READ_BYTES))).toBe(READ_BYTES)
    lease.release()
    expect(pool.tryAcquire()).toBeUndefined()
    expect(await use(pool)).toBe(2)
    expect(pool.stats()).toMatchObject({ unfit: 0, stirred: 1 })
  })

  test('a read that took all there was: the connection is lent again', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server, { maxTotal: 1 })
    const lease = await take(pool)
    lease.conn.write(Buffer.alloc(READ_BYTES / 4))
    await until('all is answered', () => server.answers === READ_BYTES / 4)
    expect(await lease.conn.read(new Uint8Array(READ_BYTES))).toBe(READ_BYTES)
    lease.release()
    expect(await use(pool)).toBe(1)
    expect(pool.stats()).toMatchObject({ unfit: 0, stirred: 0, dials: 1 })
  })

  test('use() that throws', async () => {
    const pool = pooled(await PoolServer.start())
    const failure = new Error('in the middle')
    expect(await rejection(pool.use(() => Promise.reject(failure)))).toBe(failure)
    expect(pool.stats()).toMatchObject({ discarded: 1, idle: 0 })
    expect(await use(pool)).toBe(2)
  })
})

describe('an idle connection to which something comes is not lent again', () => {
  const events: [string, (server: PoolServer) => void][] = [
    ['FIN', (server) => server.sockets.get(1)?.end()],
    ['bytes', (server) => server.sockets.get(1)?.write('surprise')],
    ['RST', (server) => server.sockets.get(1)?.resetAndDestroy()],
  ]

  test.each(events)('%s', async (_, happen) => {
    const server = await PoolServer.start()
    const pool = pooled(server)
    expect(await use(pool)).toBe(1)
    happen(server)
    await until('the pool has noticed', () => pool.stats().stirred === 1)
    expect(await use(pool)).toBe(2)
    await until('nothing is under way', () => pool.stats().closing + pool.stats().dialing === 0)
    expect(pool.stats()).toMatchObject({ stirred: 1, total: 1, idle: 1 })
    await until('the server has lost it, too', () => server.sockets.size === 1)
  })
})

describe('who waits', () => {
  test('is served in the order of coming', async () => {
    const pool = pooled(await PoolServer.start(), { maxTotal: 1 })
    const lease = await take(pool)
    const order: number[] = []
    const all = [1, 2, 3, 4].map((number) => pool.use(() => void order.push(number)))
    expect(pool.tryAcquire()).toBeUndefined()
    lease.release()
    await within('all are served', Promise.all(all))
    expect(order).toEqual([1, 2, 3, 4])
    expect(pool.stats()).toMatchObject({ dials: 1, waiting: 0 })
  })

  test('is not overtaken by who comes when a connection has just come back', async () => {
    const pool = pooled(await PoolServer.start(), { maxTotal: 1 })
    const lease = await take(pool)
    const first = pool.acquire()
    lease.release()
    expect(pool.tryAcquire()).toBeUndefined()
    ;(await first).release()
  })

  test('waits for so long at most, and is told why', async () => {
    const pool = pooled(await PoolServer.start(), { maxTotal: 1, acquireTimeoutMs: 20 })
    const lease = await take(pool)
    const error = await rejection(pool.acquire())
    expect(error).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', op: 'acquire', timeout: true })
    expect(error.message).toMatch(/within 20 ms: 1 of 1 connections in use/)
    expect(await rejection(pool.acquire({ timeoutMs: 30 }))).toMatchObject({ timeout: true })
    expect(pool.stats()).toMatchObject({ timeouts: 2, waiting: 0 })
    lease.release()
    expect(await use(pool)).toBe(1)
  })

  test('can be called off; what was dialed for it is the next one’s', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server)
    const controller = new AbortController()
    const waiting = pool.acquire({ signal: controller.signal })
    const reason = new Error('no longer needed')
    controller.abort(reason)
    expect(await rejection(waiting)).toBe(reason)
    await until('the dial has ended', () => pool.stats().idle === 1)
    expect(await use(pool)).toBe(1)
    expect(await rejection(pool.acquire({ signal: controller.signal }))).toBe(reason)
    expect(pool.stats()).toMatchObject({ aborts: 2, dials: 1, busy: 0 })
  })

  test('are so many at most', async () => {
    const pool = pooled(await PoolServer.start(), { maxTotal: 1, maxWaiters: 1 })
    const lease = await take(pool)
    const waiting = pool.acquire()
    expect(await rejection(pool.acquire())).toMatchObject({ code: 'ERR_POOL_FULL', op: 'acquire' })
    lease.release()
    ;(await waiting).release()
    expect(pool.stats().refusals).toBe(1)
  })
})

describe('limits', () => {
  test('no more dials than who waits needs', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server, { maxTotal: 50 })
    const leases = await within('all', Promise.all([pool.acquire(), pool.acquire(), pool.acquire()]))
    for (const lease of leases) lease.release()
    await until('the server has seen them', () => server.accepted === 3)
    await turn()
    expect({ dials: pool.stats().dials, accepted: server.accepted }).toEqual({ dials: 3, accepted: 3 })
  })

  test('maxPerAddress', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server, { maxTotal: 5, maxPerAddress: 2, acquireTimeoutMs: 30 })
    const leases = [await take(pool), await take(pool)]
    expect(await rejection(pool.acquire())).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' })
    for (const lease of leases) lease.release()
    expect(pool.stats().dials).toBe(2)
  })

  test('minIdle: they are dialed at once, and again when they are used or lost', async () => {
    const server = await PoolServer.start()
    const pool = pooled(server, { minIdle: 2, maxTotal: 4 })
    await within('it is warm', pool.warmUp())
    expect(pool.stats()).toMatchObject({ idle: 2, total: 2 })
    const lease = await take(pool)
    server.sockets.get(1)?.resetAndDestroy()
    server.sockets.get(2)?.resetAndDestroy()
    lease.discard()
    await until('two are idle again', () => pool.stats().idle === 2)
    expect(pool.stats().total).toBeLessThanOrEqual(4)
  })
})
