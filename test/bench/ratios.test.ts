// When the benchmark gives a ratio, and when it refuses to.

import { describe, expect, test } from 'vitest'
import { medianInterval, ratio, spread } from '../../bench/harness/stats.mjs'
import { ratioText, summarize } from '../../bench/harness/summary.mjs'
import { perMessage } from '../../bench/harness/syscalls.mjs'
import { load } from './results.ts'

const ones = (count: number) => Array.from({ length: count }, () => 1)

describe('a ratio', () => {
  test('is the median of the ratios within the rounds, not the ratio of the medians', () => {
    // The machine is three times as slow in the second round: both servers feel it.
    const { value, verdict } = ratio([2, 6.6, 2.2, 2.1, 2.4], [1, 3, 1, 1, 1])
    expect(value).toBeCloseTo(2.2)
    expect(verdict).toBe('ratio')
  })

  test('is refused when its spread contains 1', () => {
    const refused = ratio([0.9, 1.2, 1.3, 1.2, 1.1], ones(5))
    expect(refused).toMatchObject({ verdict: 'refused', low: 0.9, high: 1.3 })
    expect(ratioText(refused)).toBe('~ 0.90..1.30')
  })

  test('is given when its spread stops short of 1', () => {
    expect(ratioText(ratio([1.06, 1.2, 1.3, 1.2, 1.1], ones(5)))).toBe('x1.20')
    expect(ratioText(ratio([0.5, 0.6, 0.7, 0.55, 0.52], ones(5)))).toBe('x0.55')
  })

  test('is refused when its spread is wider than a factor of two, on whichever side', () => {
    expect(ratio([2, 3, 4, 5, 6], ones(5)).verdict).toBe('refused')
    expect(ratio([0.1, 0.2, 0.3, 0.3, 0.3], ones(5)).verdict).toBe('refused')
  })

  test('within 5% of 1 on both sides is called the same', () => {
    expect(ratioText(ratio([0.97, 1.02, 1.04, 1, 1.01], ones(5)))).toBe('same')
    expect(ratio([0.94, 1.02, 1.04, 1, 1.01], ones(5)).verdict).toBe('refused')
  })

  test('needs more than one round', () => {
    expect(ratioText(ratio([3], [1]))).toBe('~')
    expect(ratio([3, 3], [1, 1]).verdict).toBe('ratio')
  })

  test('by zero is refused', () => {
    expect(ratio([3, 3, 3], [1, 0, 1]).verdict).toBe('refused')
  })
})

describe('the interval of a median', () => {
  test('is the whole range up to seven values, which say no more', () => {
    expect(medianInterval([5, 1, 3, 2, 4])).toEqual({ low: 1, high: 5 })
    expect(medianInterval([7, 1, 6, 2, 5, 3, 4])).toEqual({ low: 1, high: 7 })
    expect(medianInterval([4])).toEqual({ low: 4, high: 4 })
  })

  test('leaves out extremes when there are enough values', () => {
    expect(medianInterval([1, 2, 3, 4, 5, 6, 7, 100])).toEqual({ low: 2, high: 7 })
    // 13 coins: at most three heads (or tails) with a chance of 9%, at most four with one of 27%.
    expect(medianInterval([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])).toEqual({ low: 4, high: 10 })
  })
})

test('a spread is the median, the smallest and the largest', () => {
  expect(spread([4, 1, 3, 2])).toEqual({ median: 2.5, min: 1, max: 4 })
})

test('a summary has ratios to those servers only that were measured', () => {
  const [summary] = summarize([load('64b-64', { net: [10, 10, 10], edgewire: [5, 5, 6] })])
  const [net, edgewire] = summary.rows
  expect(net.toNet).toBeUndefined()
  expect(edgewire.toNet?.cpuUsPerMessage?.value).toBe(0.5)
  expect(edgewire.toFloor).toBeUndefined()
  expect(edgewire.metrics.switchesPerMessage).toBeUndefined()
})

test('context switches are counted per message', () => {
  const [summary] = summarize([load('64b-64', { net: [10, 10] }, { contextSwitches: 50_000 })])
  expect(summary.rows[0].metrics.switchesPerMessage?.median).toBe(0.5)
})

describe("strace's table", () => {
  const table = [
    '    calls syscall',
    '--------- ----------------',
    '     2000 recvfrom',
    '     1000 sendto',
    '        1 mmap',
    '--------- ----------------',
    '     3001 total',
    '',
  ].join('\n')

  test('becomes calls per message, without those that are not on the way of a message', () => {
    expect(perMessage(table, 1000)).toEqual({ all: 3.001, byName: { recvfrom: 2, sendto: 1 } })
  })

  test('that is empty is a failure, not a zero', () => {
    expect(() => perMessage('', 1000)).toThrow('counted nothing')
  })
})
