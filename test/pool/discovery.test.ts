// Names and their answers over time: when they are asked for again, and what holds meanwhile.

import { beforeEach, describe, expect, test } from 'vitest'
import { type Answer, askFunction, askResolver, Discovery } from '../../dist/pool_discovery.js'
import { ManualClock } from './manual_clock.ts'

const SETTINGS = { breakerFailures: 3, backoffMs: 100, backoffMaxMs: 1_000, dnsTtlMs: 5_000 }
const microtasks = () => new Promise<void>((resolve) => setImmediate(resolve))

const { signal } = new AbortController()

let clock: ManualClock
let asked: string[]
let signals: AbortSignal[]
let answer: (host: string) => Promise<Answer>

beforeEach(() => {
  clock = new ManualClock()
  asked = []
  signals = []
  answer = async () => ({ addresses: ['10.0.0.1', '10.0.0.2'], ttlMs: 1_000 })
})

function discover(hosts: string[], fixed: string[] = []): Discovery {
  const upstreams = [
    ...hosts.map((host) => ({ kind: 'name' as const, host, port: 80 })),
    ...fixed.map((host) => ({ kind: 'address' as const, host, port: 80 })),
  ]
  const ask = (host: string, signal: AbortSignal) => {
    asked.push(host)
    signals.push(signal)
    return answer(host)
  }
  return new Discovery(upstreams, SETTINGS, ask, clock, () => {})
}

async function refreshed(discovery: Discovery): Promise<string[]> {
  discovery.refresh()
  await microtasks()
  return [...discovery.places().keys()]
}

test('addresses and paths need no look-up', async () => {
  const upstreams = [
    { kind: 'address' as const, host: '::1', port: 80 },
    { kind: 'path' as const, path: '/run/x.sock' },
  ]
  const discovery = new Discovery(
    upstreams,
    SETTINGS,
    () => Promise.reject(new Error('asked')),
    clock,
    () => {},
  )
  expect(await refreshed(discovery)).toEqual(['[::1]:80', '/run/x.sock'])
  expect(discovery.lookups).toBe(0)
})

test('several upstreams with one address are one', async () => {
  expect(await refreshed(discover(['a', 'b'], ['10.0.0.2']))).toEqual(['10.0.0.2:80', '10.0.0.1:80'])
})

describe('a name is asked for again', () => {
  test('when there has been no answer for so long', async () => {
    const discovery = discover(['a'])
    answer = () => new Promise(() => {})
    expect(await refreshed(discovery)).toEqual([])
    clock.advance(29_999)
    await refreshed(discovery)
    expect({ asked, aborted: signals[0]?.aborted }).toEqual({ asked: ['a'], aborted: false })
    clock.advance(1)
    await microtasks()
    expect(discovery.lastError).toMatchObject({ code: 'ETIMEOUT', timeout: true })
    answer = async () => ({ addresses: ['10.0.0.1'], ttlMs: 1_000 })
    clock.advance(100)
    expect(await refreshed(discovery)).toEqual(['10.0.0.1:80'])
    expect({ failures: discovery.failures, aborted: signals[0]?.aborted }).toEqual({ failures: 1, aborted: true })
  })

  test('but not when the pool is drained: who is asked is told', async () => {
    const discovery = discover(['a'])
    answer = () => new Promise(() => {})
    await refreshed(discovery)
    discovery.close()
    await microtasks()
    expect(signals[0]?.aborted).toBe(true)
    expect(discovery.failures).toBe(0)
    expect(clock.pending).toBe(0)
  })

  test('when its answer expires', async () => {
    const discovery = discover(['a'])
    await refreshed(discovery)
    clock.advance(999)
    await refreshed(discovery)
    expect(asked.length).toBe(1)
    answer = async () => ({ addresses: ['10.0.0.3'], ttlMs: 1_000 })
    clock.advance(1)
    expect(await refreshed(discovery)).toEqual(['10.0.0.3:80'])
  })

  test('after dnsTtlMs at the latest', async () => {
    answer = async () => ({ addresses: ['10.0.0.1'], ttlMs: Number.POSITIVE_INFINITY })
    const discovery = discover(['a'])
    await refreshed(discovery)
    clock.advance(SETTINGS.dnsTtlMs - 1)
    await refreshed(discovery)
    expect(asked.length).toBe(1)
    clock.advance(1)
    await refreshed(discovery)
    expect(asked.length).toBe(2)
  })

  test('not at once when the answer has expired before it came', async () => {
    answer = async () => ({ addresses: ['10.0.0.1'], ttlMs: -50 })
    const discovery = discover(['a'])
    await refreshed(discovery)
    await refreshed(discovery)
    expect(asked.length).toBe(1)
  })

  test('not while it is being asked for', () => {
    answer = () => new Promise(() => {})
    const discovery = discover(['a'])
    discovery.refresh()
    discovery.refresh()
    expect(asked.length).toBe(1)
  })

  test('after a failure, when a pause is over; what was known holds', async () => {
    const discovery = discover(['a'])
    await refreshed(discovery)
    clock.advance(1_000)
    const failure = new Error('no answer')
    answer = () => Promise.reject(failure)
    expect(await refreshed(discovery)).toEqual(['10.0.0.1:80', '10.0.0.2:80'])
    expect(discovery.lastError).toBe(failure)
    await refreshed(discovery)
    expect(asked.length).toBe(2)
    clock.advance(100)
    answer = async () => ({ addresses: ['10.0.0.9'], ttlMs: 1_000 })
    expect(await refreshed(discovery)).toEqual(['10.0.0.9:80'])
    expect(discovery.lastError).toBeUndefined()
  })

  test('an empty answer is a failure', async () => {
    answer = async () => ({ addresses: [], ttlMs: 1_000 })
    const discovery = discover(['a'])
    expect(await refreshed(discovery)).toEqual([])
    expect(discovery.lastError).toMatchObject({ code: 'ENODATA', op: 'resolve', remoteAddress: 'a' })
  })
})

describe('dialing waits for an answer', () => {
  test('when nothing is known, and not when an address is given', () => {
    answer = () => new Promise(() => {})
    const [alone, beside] = [discover(['a']), discover(['a'], ['10.0.0.2'])]
    alone.refresh()
    beside.refresh()
    expect([alone.isBlocked, beside.isBlocked]).toEqual([true, false])
  })

  test('when what is known is older than two lives', async () => {
    const discovery = discover(['a'])
    await refreshed(discovery)
    answer = () => new Promise(() => {})
    clock.advance(1_000 + SETTINGS.dnsTtlMs)
    discovery.refresh()
    expect(discovery.isBlocked).toBe(false)
    clock.advance(1)
    expect(discovery.isBlocked).toBe(true)
  })
})

describe('what is asked', () => {
  test('a resolver: its answer holds until it expires', async () => {
    const ask = askResolver({
      resolve: async (host: string) => ({
        host,
        addresses: [{ address: '::1', family: 6 as const }],
        expiresAt: Date.now() + 60_000,
        stale: false,
      }),
    } as never)
    const { addresses, ttlMs } = await ask('a', signal)
    expect(addresses).toEqual(['::1'])
    expect(ttlMs).toBeGreaterThan(50_000)
    expect(ttlMs).toBeLessThanOrEqual(60_000)
  })

  test('a resolver: never an answer of before, and one without an end holds for 30 seconds', async () => {
    const options: unknown[] = []
    const resolve = async (_: string, given: unknown) => {
      options.push(given)
      return { addresses: [{ address: '::1', family: 6 as const }] }
    }
    expect(await askResolver({ resolve } as never)('a', signal)).toEqual({ addresses: ['::1'], ttlMs: 30_000 })
    expect(options).toEqual([{ allowStale: false, signal }])
  })

  const wrong: unknown[] = [
    undefined,
    'junk',
    [null],
    [{ address: 'here', family: 4 }],
    [{ address: '::1', family: 4 }],
  ]
  wrong.push([{ address: '::1', family: 6, ttl: Number.NaN }])
  test.each(wrong.map((each) => [each]))('a function that gives %j has failed, as in dial()', async (found) => {
    const ask = askFunction(async () => found as never)
    await expect(ask('a', signal)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG', op: 'resolve' })
  })

  test.each([7, null, [null], [{ address: 5 }], [{ address: 'here' }]].map((each) => [each]))(
    'a resolver that gives %j has failed',
    async (addresses) => {
      await expect(askResolver({ resolve: async () => ({ addresses }) } as never)('a', signal)).rejects.toThrow()
    },
  )

  test('a function: the shortest life of its addresses, 30 seconds without', async () => {
    const of = (...ttls: (number | undefined)[]) =>
      askFunction(async () =>
        ttls.map((ttl) => ({ address: '10.0.0.1', family: 4 as const, ...(ttl === undefined ? {} : { ttl }) })),
      )('a', signal)
    expect((await of(9, 4, undefined)).ttlMs).toBe(4_000)
    expect((await of(undefined, 60)).ttlMs).toBe(30_000)
  })
})
