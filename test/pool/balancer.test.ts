// The strategies, over candidates with made-up loads.

import type { Balance, BalanceCandidate } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { balancer } from '../../dist/balancer.js'

const never = (error: unknown) => {
  throw error
}

function candidate(name: string, busyCount = 0, dialingCount = 0): BalanceCandidate {
  return { name, busyCount, dialingCount, idleCount: 0 }
}

/** The names that `count` choices give. */
function choices(balance: Balance, candidates: BalanceCandidate[], count: number, random = () => 0): string {
  const choose = balancer(balance, random, never)
  return Array.from({ length: count }, () => choose(candidates).name).join('')
}

describe('round-robin', () => {
  test('gives each its turn, whatever their loads and their order', () => {
    expect(choices('round-robin', [candidate('b', 9), candidate('a'), candidate('c', 5)], 7)).toBe('abcabca')
  })

  test('goes on with the next one when some come and go', () => {
    const choose = balancer('round-robin', () => 0, never)
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) => candidate(name)) as [
      BalanceCandidate,
      ...BalanceCandidate[],
    ]
    const all = [a, b, c, d] as BalanceCandidate[]
    expect(choose(all).name).toBe('a')
    expect(choose([a, c, d] as BalanceCandidate[]).name).toBe('c')
    expect(choose(all).name).toBe('d')
    expect(choose([b, c] as BalanceCandidate[]).name).toBe('b')
  })
})

describe('least-connections', () => {
  test('takes the one with the fewest, dials under way included', () => {
    expect(choices('least-connections', [candidate('a', 2), candidate('b', 1), candidate('c', 0, 2)], 3)).toBe('bbb')
  })

  test('equals take turns', () => {
    expect(choices('least-connections', [candidate('a', 1), candidate('b', 1), candidate('c', 4)], 4)).toBe('abab')
  })
})

describe('p2c', () => {
  test('takes the less busy of two different ones', () => {
    const all = [candidate('a', 3), candidate('b', 2), candidate('c', 1)]
    const drawn = (...numbers: number[]) => choices('p2c', all, 1, () => numbers.shift() ?? 0)
    expect(drawn(0, 0)).toBe('b')
    expect(drawn(0, 0.99)).toBe('c')
    expect(drawn(0.99, 0)).toBe('c')
    expect(drawn(0.5, 0.99)).toBe('b')
  })

  test('never chooses the busiest, and each of the others', () => {
    let state = 1
    const random = () => {
      state = (state * 16_807) % 2_147_483_647
      return state / 2_147_483_647
    }
    const chosen = choices('p2c', [candidate('a', 9), candidate('b'), candidate('c')], 200, random)
    expect([...new Set(chosen)].sort().join('')).toBe('bc')
  })
})

describe('a function', () => {
  test('decides', () => {
    expect(choices((all) => all[all.length - 1] as BalanceCandidate, [candidate('a'), candidate('b')], 2)).toBe('bb')
  })

  test('is not asked about one candidate', () => {
    expect(choices(never, [candidate('a')], 1)).toBe('a')
  })

  test('that throws or chooses a stranger is told of, and the first is taken', () => {
    const errors: unknown[] = []
    const wrong = new Error('wrong')
    const all = [candidate('a'), candidate('b')]
    const throwing = balancer(
      () => never(wrong),
      Math.random,
      (error) => errors.push(error),
    )
    const strange = balancer(
      () => candidate('a'),
      Math.random,
      (error) => errors.push(error),
    )
    expect([throwing(all), strange(all)]).toEqual([all[0], all[0]])
    expect(throwing(all)).toBe(all[0])
    expect(errors).toEqual([wrong, expect.any(TypeError), wrong])
  })
})
