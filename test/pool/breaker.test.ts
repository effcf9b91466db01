// A circuit breaker: pauses, bursts, probes, probation.

import { beforeEach, describe, expect, test } from 'vitest'
import { Breaker } from '../../dist/pool_breaker.js'
import { ManualClock } from './manual_clock.ts'

const SETTINGS = { breakerFailures: 3, backoffMs: 100, backoffMaxMs: 1_000 }
const refused = new Error('refused')

let clock: ManualClock
let breaker: Breaker

beforeEach(() => {
  clock = new ManualClock()
  breaker = new Breaker(SETTINGS, clock)
})

/** A dial that fails, after the pause before it. */
function fail(): number {
  clock.advance(breaker.pauseMs)
  breaker.failed(breaker.begin(), refused)
  return breaker.pauseMs
}

describe('pauses', () => {
  test('double with each failure up to the longest', () => {
    expect([fail(), fail(), fail(), fail(), fail(), fail()]).toEqual([100, 200, 400, 800, 1_000, 1_000])
  })

  test('leave out up to a half by chance', () => {
    clock.chance = 0.999
    expect(fail()).toBeCloseTo(50, 0)
    clock.chance = 0.5
    expect(fail()).toBe(150)
  })

  test('allow no dial before they are over', () => {
    expect(breaker.allows).toBe(true)
    const pauseMs = fail()
    clock.advance(pauseMs - 1)
    expect(breaker.allows).toBe(false)
    clock.advance(1)
    expect(breaker.allows).toBe(true)
  })
})

describe('a burst', () => {
  test('that fails together has failed once', () => {
    const eras = [breaker.begin(), breaker.begin(), breaker.begin(), breaker.begin()]
    for (const era of eras) breaker.failed(era, refused)
    expect({ failures: breaker.failures, pauseMs: breaker.pauseMs }).toEqual({ failures: 1, pauseMs: 100 })
  })

  test('an old connection that works does not take a failure back', () => {
    const old = breaker.begin()
    breaker.connected(old)
    fail()
    breaker.served(old)
    expect(breaker.failures).toBe(1)
    expect(breaker.allows).toBe(false)
  })
})

describe('open', () => {
  function open(): void {
    for (let count = 0; count < SETTINGS.breakerFailures; count++) {
      expect(breaker.state).toBe('closed')
      fail()
    }
    expect(breaker.state).toBe('open')
  }

  test('after so many failures in a row, and only then', () => {
    open()
    expect(breaker.openings).toBe(1)
    expect(breaker.lastError).toBe(refused)
  })

  test('a use that ends well closes it and forgets', () => {
    fail()
    fail()
    clock.advance(breaker.pauseMs)
    const era = breaker.begin()
    breaker.connected(era)
    breaker.served(era)
    expect({ failures: breaker.failures, lastError: breaker.lastError }).toEqual({ failures: 0, lastError: undefined })
    expect(fail()).toBe(100)
  })

  test('half-open allows one probe', () => {
    open()
    clock.advance(breaker.pauseMs)
    expect(breaker.state).toBe('half-open')
    expect(breaker.allows).toBe(true)
    breaker.begin()
    expect(breaker.allows).toBe(false)
    clock.advance(100_000)
    expect(breaker.allows).toBe(false)
  })

  test('a probe that fails opens it for longer', () => {
    open()
    const before = breaker.pauseMs
    clock.advance(before)
    breaker.failed(breaker.begin(), refused)
    expect(breaker.state).toBe('open')
    expect(breaker.pauseMs).toBe(2 * before)
  })

  test('a probe that is given up decides nothing', () => {
    open()
    clock.advance(breaker.pauseMs)
    breaker.abandoned(breaker.begin())
    expect({ state: breaker.state, allows: breaker.allows }).toEqual({ state: 'half-open', allows: true })
  })

  test('a failure of earlier days does not end the probe', () => {
    const old = breaker.begin()
    open()
    clock.advance(breaker.pauseMs)
    breaker.begin()
    breaker.failed(old, refused)
    expect(breaker.allows).toBe(false)
  })

  test('a probe that connects puts it on probation: the next failure opens it again', () => {
    open()
    clock.advance(breaker.pauseMs)
    const era = breaker.begin()
    breaker.connected(era)
    expect({ state: breaker.state, allows: breaker.allows }).toEqual({ state: 'closed', allows: true })
    breaker.failed(era, refused)
    expect(breaker.state).toBe('open')
    expect(breaker.openings).toBe(2)
  })
})
