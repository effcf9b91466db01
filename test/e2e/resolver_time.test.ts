// How long the resolver believes an answer: with a clock of the test's own, so nothing here waits.

import { renameSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import type { FoundAddress, ResolverOptions } from 'edgewire'
import { beforeEach, describe, expect, test } from 'vitest'
import { HostsCheckEveryMs } from '../../dist/hosts_file.js'
import { CachingResolver } from '../../dist/resolver.js'
import { freshPath, rejection, turn } from './harness.ts'

let nowMs = 0
/** The wall clock has been set: it says nothing about how much time has passed. */
let wallMs = 0
const clock = { monotonicMs: () => nowMs, epochMs: () => wallMs + nowMs }

beforeEach(() => {
  nowMs = 1_000
  wallMs = 1_000_000
})

const v4 = (last: number, ttl?: number): FoundAddress => ({
  address: `192.0.2.${last}`,
  family: 4,
  ...(ttl === undefined ? {} : { ttl }),
})

/** A resolver whose look-ups the test answers: each takes the next of `answers`, the last one again and again. */
function scripted(answers: (FoundAddress[] | { code: string })[], options: ResolverOptions = {}) {
  let asked = 0
  const lookup = async (): Promise<FoundAddress[]> => {
    const answer = answers[Math.min(asked++, answers.length - 1)]!
    if (!Array.isArray(answer)) throw Object.assign(new Error('scripted'), answer)
    return answer
  }
  const resolver = new CachingResolver({ lookup, hostsFile: false, ...options }, clock)
  const last = async (host = 'x.test', how = {}): Promise<string> => {
    const { addresses, stale } = await resolver.resolve(host, how)
    return `${addresses.map(({ address }) => address.split('.').at(-1)).join()}${stale ? ' stale' : ''}`
  }
  return { resolver, last, asked: () => asked }
}

describe('TTL', () => {
  test('an answer holds for its TTL, the shortest of its records, and not a millisecond longer', async () => {
    const { resolver, last, asked } = scripted([[v4(1, 20), v4(2, 10)], [v4(3, 10)]], { staleMs: 0 })
    expect(await last()).toBe('1,2')
    expect((await resolver.resolve('x.test')).expiresAt).toBe(wallMs + 1_000 + 10_000)
    nowMs += 9_999
    expect(await last()).toBe('1,2')
    wallMs += 86_400_000 // does not matter
    expect(await last()).toBe('1,2')
    expect(asked()).toBe(1)
    nowMs += 1
    expect(resolver.peek('x.test')).toBeUndefined()
    expect(await last()).toBe('3')
    expect(asked()).toBe(2)
  })

  test.each([
    [0, 1_000],
    [1, 1_000],
    [299, 299_000],
    [86_400, 300_000],
    [undefined, 30_000],
  ])('a TTL of %s s counts as %i ms', async (ttl, ms) => {
    const { resolver } = scripted([[v4(1, ttl)]])
    expect((await resolver.resolve('x.test')).expiresAt - wallMs - nowMs).toBe(ms)
  })

  test('floor and ceiling may be set; without a floor, a TTL of 0 is not kept', async () => {
    const { last, asked } = scripted([[v4(1, 0)], [v4(2, 0)]], { ttlMinMs: 0, staleMs: 0 })
    expect(await last()).toBe('1')
    expect(await last()).toBe('2')
    expect(asked()).toBe(2)
    const { resolver } = scripted([[v4(1, 60)]], { ttlMaxMs: 5_000 })
    expect((await resolver.resolve('x.test')).expiresAt).toBe(clock.epochMs() + 5_000)
  })
})

describe('stale answers', () => {
  test('are given at once while a fresh one is asked for, once', async () => {
    const { resolver, last, asked } = scripted([[v4(1, 10)], [v4(2, 10)]])
    await last()
    nowMs += 10_001
    expect(resolver.peek('x.test')?.stale).toBe(true)
    expect(asked()).toBe(1)
    const stale = [resolver.resolve('x.test'), resolver.resolve('x.test')]
    for (const each of await Promise.all(stale)) {
      // Not in the past: whoever asks again at that time would spin.
      expect(each).toMatchObject({ stale: true, expiresAt: clock.epochMs() + 1_000 })
    }
    await turn()
    expect(asked()).toBe(2)
    expect(await last()).toBe('2')
    expect(resolver.stats()).toMatchObject({ hits: 3, staleHits: 2, misses: 1, queries: 2 })
  })

  test('not for longer than staleMs', async () => {
    const { last } = scripted([[v4(1, 10)], [v4(2, 10)]], { staleMs: 500 })
    await last()
    nowMs += 10_500
    expect(await last()).toBe('2')
  })

  test('not to those who do not want them', async () => {
    const { last, asked } = scripted([[v4(1, 10)], [v4(2, 10)]])
    await last()
    nowMs += 15_000
    expect(await last('x.test', { allowStale: false })).toBe('2')
    expect(asked()).toBe(2)
  })

  test('outlive a server that fails, which is asked once a second', async () => {
    const { last, asked } = scripted([[v4(1, 10)], { code: 'ESERVFAIL' }, { code: 'ETIMEOUT' }, [v4(2, 10)]])
    await last()
    nowMs += 10_001
    for (let i = 0; i < 5; i++) {
      expect(await last()).toBe('1 stale')
      await turn()
    }
    expect(asked()).toBe(2)
    expect(await rejection(last('x.test', { allowStale: false }))).toMatchObject({ code: 'ESERVFAIL' })
    nowMs += 1_000
    expect(await last()).toBe('1 stale')
    await turn()
    expect(asked()).toBe(3)
    nowMs += 1_000
    await last()
    await turn()
    expect(await last()).toBe('2')
  })

  test('end at once when the name is gone', async () => {
    const { last, asked } = scripted([[v4(1, 10)], { code: 'ENOTFOUND' }])
    await last()
    nowMs += 10_001
    expect(await last()).toBe('1 stale')
    await turn()
    expect(await rejection(last())).toMatchObject({ code: 'ENOTFOUND' })
    expect(asked()).toBe(2)
  })
})

describe('what is not there', () => {
  test.each([{ code: 'ENOTFOUND' }, { code: 'ENODATA' }, []])('%j is believed for negativeTtlMs', async (none) => {
    const { last, asked } = scripted([none, [v4(1, 10)]], { negativeTtlMs: 700 })
    const code = Array.isArray(none) ? 'ENODATA' : none.code
    expect(await rejection(last())).toMatchObject({ code })
    nowMs += 699
    expect(await rejection(last())).toMatchObject({ code })
    expect(asked()).toBe(1)
    nowMs += 1
    expect(await last(), 'no stale answer of that kind').toBe('1')
  })

  test('a failure is believed for a second; one without a code too', async () => {
    for (const failure of [{ code: 'EREFUSED' }, {} as { code: string }]) {
      const { resolver, last, asked } = scripted([failure, [v4(1, 10)]])
      const error = await rejection(last())
      expect(error).toMatchObject({ code: failure.code ?? 'ESERVFAIL', cause: { message: 'scripted' } })
      nowMs += 999
      await rejection(last())
      expect(asked()).toBe(1)
      nowMs += 1
      expect(await last()).toBe('1')
      expect(resolver.stats().failures).toBe(1)
    }
  })

  test('a look-up that gives nonsense fails its caller', async () => {
    const bad = ['x', [{ address: 'x', family: 4 }], [{ address: '::1', family: 4 }], [v4(1, -1)], [null]]
    for (const answer of bad) {
      const { last } = scripted(
        [answer as FoundAddress[]].map((each) => (Array.isArray(each) ? each : [each])) as never,
      )
      expect(await rejection(last())).toHaveProperty('code')
    }
  })

  test('a look-up without addresses of the family that is wanted', async () => {
    const { last, asked } = scripted([[v4(1, 10)]])
    expect(await rejection(last('x.test', { family: 6 }))).toMatchObject({ code: 'ENODATA' })
    expect(await last('x.test', { family: 4 })).toBe('1')
    expect(asked(), 'one look-up has both').toBe(1)
  })
})

describe('the hosts file', () => {
  test('is read again when it has changed, and looked at once in five seconds', async () => {
    const hostsFile = freshPath('hosts')
    writeFileSync(hostsFile, '192.0.2.1 x.test')
    const { last, asked } = scripted([[v4(9, 10)]], { hostsFile })
    expect(await last()).toBe('1')
    writeFileSync(hostsFile, '192.0.2.2 x.test')
    utimesSync(hostsFile, 1, 1)
    nowMs += HostsCheckEveryMs - 1
    expect(await last()).toBe('1')
    nowMs += 1
    expect(await last()).toBe('2')
    // Replaced, as editors do it, with the same size and time.
    const other = freshPath('hosts')
    writeFileSync(other, '192.0.2.3 x.test')
    const { atime, mtime } = statSync(hostsFile)
    utimesSync(other, atime, mtime)
    renameSync(other, hostsFile)
    nowMs += HostsCheckEveryMs
    expect(await last()).toBe('3')
    writeFileSync(hostsFile, '')
    nowMs += HostsCheckEveryMs
    expect(asked()).toBe(0)
    expect(await last()).toBe('9')
  })
})
