// What createPool(), acquire() and drain() refuse, before anything is opened.

import { createPool, type PoolOptions } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { rejection } from './harness.ts'

describe('what is not an option', () => {
  const place = { host: '127.0.0.1', port: 1 }
  const wrong: [string, unknown][] = [
    ['no options', undefined],
    ['an unknown one', { ...place, maxTotals: 3 }],
    ['no port', { host: '127.0.0.1' }],
    ['path and port', { port: 1, path: '/x' }],
    ['upstreams and port', { port: 1, upstreams: [place] }],
    ['no upstream', { upstreams: [] }],
    ['a wrong upstream', { upstreams: [{ host: '127.0.0.1', port: 0 }] }],
    ['what is neither an address nor a name', { host: '127.0.0.1%eth0', port: 1 }],
    ['a name that DNS does not take', { upstreams: [{ host: 'two words', port: 1 }] }],
    ['maxTotal 0', { ...place, maxTotal: 0 }],
    ['minIdle above maxTotal', { ...place, maxTotal: 2, minIdle: 3 }],
    ['a fraction', { ...place, acquireTimeoutMs: 0.5 }],
    ['backoffMaxMs below backoffMs', { ...place, backoffMs: 100, backoffMaxMs: 10 }],
    ['an unknown balance', { ...place, balance: 'fair' }],
    ['validate', { ...place, validate: true }],
    ['a resolver', { ...place, resolver: {} }],
    ['resolver and lookup', { ...place, resolver: { resolve() {} }, lookup() {} }],
    ['highWaterMark', { ...place, highWaterMark: -1 }],
    ['localAddress', { ...place, localAddress: 'here' }],
    ['leakDetectionMs below 10', { ...place, leakDetectionMs: 5 }],
  ]
  test.each(wrong)('%s', (_, options) => {
    expect(() => createPool(options as PoolOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG', op: 'pool' }),
    )
  })

  test('acquire() and drain()', async () => {
    const pool = createPool(place)
    for (const options of [{ timeoutMs: -1 }, { signal: 1 }, { timeout: 1 }, 5]) {
      expect(await rejection(pool.acquire(options as never))).toMatchObject({ code: 'ERR_INVALID_ARG', op: 'acquire' })
    }
    expect(await rejection(pool.drain({ timeoutMs: -1 }))).toMatchObject({ code: 'ERR_INVALID_ARG', op: 'pool' })
    expect(await rejection(pool.use('fn' as never))).toMatchObject({ code: 'ERR_INVALID_ARG', value: 'fn' })
    expect(pool.stats()).toMatchObject({ waiting: 0, dials: 0 })
    await pool.drain()
  })
})
