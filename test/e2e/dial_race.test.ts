// Which address is tried when (RFC 8305), with attempts and a clock of the test's own: properties over any order of
// answers, failures and time.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AttemptsMax, DialRace, type Family, type Outcome, ResolutionDelayMs } from '../../dist/dial_race.js'
import { seed } from './harness.ts'

const DelayMs = 250

/** A race whose attempts end when the script says so, and its log: `start 6a @0`, `cancel 4a @300`, `won 6b @310`. */
class World {
  now = 0
  readonly log: string[] = []
  readonly started: { name: string; at: number }[] = []
  readonly running = new Map<string, Outcome<string, string>>()
  /** Attempts under way at one time. */
  most = 0
  private timers: { at: number; order: number; callback: () => void }[] = []
  private order = 0
  readonly race: DialRace<string, string, string>

  constructor(
    /** When an attempt ends by itself, and how; at 0 it does so inside of start(). undefined: never. */
    private readonly fate: (name: string) => { afterMs: number; wins: boolean } | undefined,
    options: { families?: Family[]; attemptTimeoutMs?: number } = {},
  ) {
    this.race = new DialRace<string, string, string>(
      {
        attemptDelayMs: DelayMs,
        attemptTimeoutMs: options.attemptTimeoutMs ?? 0,
        timers: { set: (callback, ms) => this.after(ms, callback), clear: (timer) => this.clear(timer) },
        start: (name, outcome) => this.start(name, outcome),
        timedOut: (name) => `${name} timed out`,
        won: (value) => this.note(`won ${value}`),
        lost: () => this.note('lost'),
      },
      options.families ?? [6, 4],
    )
  }

  note(what: string): void {
    this.log.push(`${what} @${this.now}`)
  }

  after(ms: number, callback: () => void): unknown {
    const timer = { at: this.now + ms, order: this.order++, callback }
    this.timers.push(timer)
    return timer
  }

  private clear(timer: unknown): void {
    this.timers = this.timers.filter((each) => each !== timer)
  }

  private start(name: string, outcome: Outcome<string, string>): () => void {
    this.note(`start ${name}`)
    this.started.push({ name, at: this.now })
    this.running.set(name, outcome)
    this.most = Math.max(this.most, this.running.size)
    const fate = this.fate(name)
    const end = (): void => {
      if (!this.running.delete(name)) return
      if (fate!.wins) outcome.won(name)
      else outcome.failed(`${name} failed`)
    }
    if (fate?.afterMs === 0) end()
    else if (fate !== undefined) this.after(fate.afterMs, end)
    return () => {
      if (this.running.delete(name)) this.note(`cancel ${name}`)
    }
  }

  /** Until nothing is due any more. */
  runOut(): void {
    for (;;) {
      const next = this.timers.sort((one, other) => one.at - other.at || one.order - other.order).shift()
      if (next === undefined) return
      this.now = next.at
      next.callback()
    }
  }

  get timersLeft(): number {
    return this.timers.length
  }
}

const never = () => undefined

describe('the schedule', () => {
  test('IPv6 first, then in turn, 250 ms apart', () => {
    const world = new World(never)
    world.race.answer(6, ['6a', '6b'])
    world.race.answer(4, ['4a', '4b', '4c'])
    world.runOut()
    expect(world.log).toEqual(['start 6a @0', 'start 4a @250', 'start 6b @500', 'start 4b @750', 'start 4c @1000'])
  })

  test('an attempt that fails makes room at once; the first that succeeds wins, the others are ended', () => {
    const world = new World((name) => {
      if (name === '6a') return { afterMs: 30, wins: false }
      return name === '6b' ? { afterMs: 10, wins: true } : undefined
    })
    world.race.answer(6, ['6a', '6b', '6c'])
    world.race.answer(4, ['4a'])
    world.runOut()
    expect(world.log).toEqual(['start 6a @0', 'start 4a @30', 'start 6b @280', 'cancel 4a @290', 'won 6b @290'])
  })

  test('an earlier attempt that fails does not shorten the time of the latest', () => {
    const world = new World((name) => (name === '6a' ? { afterMs: 300, wins: false } : undefined))
    world.race.answer(6, ['6a', '6b'])
    world.race.answer(4, ['4a'])
    world.runOut()
    expect(world.log).toEqual(['start 6a @0', 'start 4a @250', 'start 6b @500'])
  })

  test('IPv4 addresses wait 50 ms for the IPv6 ones; not at all when there are none', () => {
    const late = new World(never)
    late.race.answer(4, ['4a'])
    late.after(ResolutionDelayMs - 1, () => late.race.answer(6, ['6a']))
    late.runOut()
    expect(late.log).toEqual(['start 6a @49', 'start 4a @299'])

    const none = new World(never)
    none.race.answer(4, ['4a'])
    none.after(20, () => none.race.answer(6, []))
    none.runOut()
    expect(none.log).toEqual(['start 4a @20'])

    const tooLate = new World(never)
    tooLate.race.answer(4, ['4a', '4b'])
    tooLate.after(100, () => tooLate.race.answer(6, ['6a']))
    tooLate.runOut()
    expect(tooLate.log).toEqual(['start 4a @50', 'start 6a @300', 'start 4b @550'])
  })

  test('an answer that comes when everything has failed, or has had its time, is tried at once', () => {
    for (const fate of [never, () => ({ afterMs: 5, wins: false })]) {
      const world = new World(fate)
      world.race.answer(6, ['6a'])
      world.after(1_000, () => world.race.answer(4, ['4a']))
      world.runOut()
      expect(world.started).toEqual([
        { name: '6a', at: 0 },
        { name: '4a', at: 1_000 },
      ])
    }
  })

  test('nothing found: lost', () => {
    const world = new World(never)
    world.race.answer(4, [])
    expect(world.log).toEqual([])
    world.race.answer(6, [])
    expect(world.log).toEqual(['lost @0'])
  })

  test('attemptTimeoutMs ends one attempt', () => {
    const world = new World(never, { attemptTimeoutMs: 100 })
    world.race.answer(6, ['6a'])
    world.race.answer(4, ['4a'])
    world.runOut()
    expect(world.log).toEqual(['start 6a @0', 'cancel 6a @100', 'start 4a @100', 'cancel 4a @200', 'lost @200'])
    expect(world.race.tried()).toEqual([
      { target: '6a', failure: '6a timed out' },
      { target: '4a', failure: '4a timed out' },
    ])
  })

  test('ten thousand addresses that fail at once', () => {
    const world = new World(() => ({ afterMs: 0, wins: false }))
    world.race.answer(6, [])
    world.race.answer(
      4,
      Array.from({ length: 10_000 }, (_, i) => `4-${i}`),
    )
    expect(world.started).toHaveLength(10_000)
    expect(world.log.at(-1)).toBe('lost @0')
  })
})

test('at most AttemptsMax attempts at a time; the next one when one of them is over', () => {
  const world = new World((name) => (name === '6-3' ? { afterMs: 60_000, wins: false } : undefined))
  world.race.answer(
    6,
    Array.from({ length: 40 }, (_, i) => `6-${i}`),
  )
  world.race.answer(4, [])
  world.after(59_999, () => world.note(`${world.started.length} started`))
  world.runOut()
  expect(world.log).toContain(`${AttemptsMax} started @59999`)
  expect(world.started.at(-1)).toEqual({ name: `6-${AttemptsMax}`, at: 60_000 + 3 * DelayMs })
})

// ---- properties ----------------------------------------------------------------------------------------------------

interface Scenario {
  counts: Record<Family, number>
  answeredAt: Record<Family, number>
  fates: ({ afterMs: number; wins: boolean } | undefined)[]
  attemptTimeoutMs: number
  giveUpAt: number | undefined
}

const instant = fc.constantFrom(0, 1, 49, 50, 51, 249, 250, 251, 400, 3_000)
const scenario: fc.Arbitrary<Scenario> = fc.record({
  counts: fc.record({ 4: fc.nat(24), 6: fc.nat(24) }),
  answeredAt: fc.record({ 4: instant, 6: instant }),
  fates: fc.array(
    fc.option(fc.record({ afterMs: instant, wins: fc.constantFrom(false, false, false, true) }), { nil: undefined }),
    { minLength: 1, maxLength: 20 },
  ),
  attemptTimeoutMs: fc.constantFrom(0, 0, 100, 1_000),
  giveUpAt: fc.option(instant, { nil: undefined }),
})

function play({ counts, answeredAt, fates, attemptTimeoutMs, giveUpAt }: Scenario) {
  const names = (family: Family) => Array.from({ length: counts[family] }, (_, i) => `${family}-${i}`)
  const fate = (name: string) => {
    const [family, at] = name.split('-').map(Number) as [number, number]
    return fates[(at * 7 + family) % fates.length]
  }
  const world = new World(fate, { attemptTimeoutMs })
  const answer = (family: Family) => () => world.race.answer(family, names(family))
  world.after(answeredAt[6], answer(6))
  world.after(answeredAt[4], answer(4))
  if (giveUpAt !== undefined) world.after(giveUpAt, () => world.race.giveUp())
  world.runOut()
  return {
    world,
    fate,
    ended: world.log.filter((line) => /^(won|lost)/.test(line)),
    all: [...names(6), ...names(4)],
  }
}

const holds = (property: (played: ReturnType<typeof play>, given: Scenario) => void) =>
  fc.assert(
    fc.property(scenario, (given) => {
      property(play(given), given)
    }),
    { seed, numRuns: 500 },
  )

describe('for any answers, failures and times', () => {
  test('each family is tried in its order, nothing twice, and in turn while both have some', () =>
    holds(({ world }, { answeredAt, counts }) => {
      const order = world.started.map(({ name }) => name)
      expect(new Set(order).size).toBe(order.length)
      for (const family of ['4', '6']) {
        const own = order.filter((name) => name.startsWith(family))
        expect(own).toEqual(own.map((_, i) => `${family}-${i}`))
      }
      const left = { ...counts }
      let last = '4'
      for (const { name, at } of world.started) {
        const family = name[0] as '4' | '6'
        const other = family === '4' ? 6 : 4
        // The same family again only when the other one had nothing.
        if (family === last) expect(answeredAt[other] < at ? left[other] : 0).toBe(0)
        left[family]--
        last = family
      }
    }))

  test('an attempt starts when the one before has failed or has had its 250 ms, and no sooner', () =>
    holds(({ world, fate }, { attemptTimeoutMs }) => {
      world.started.forEach(({ at }, i) => {
        const before = world.started[i - 1]
        if (before === undefined) return
        const its = fate(before.name)
        const failedAt = its !== undefined && !its.wins ? before.at + its.afterMs : Infinity
        const timedOutAt = attemptTimeoutMs > 0 ? before.at + attemptTimeoutMs : Infinity
        expect(at).toBeGreaterThanOrEqual(Math.min(before.at + DelayMs, failedAt, timedOutAt))
      })
    }))

  test('never more attempts at a time than AttemptsMax', () =>
    holds(({ world }) => expect(world.most).toBeLessThanOrEqual(AttemptsMax)))

  test('one end or none; afterwards nothing runs, nothing starts and no timer is left', () =>
    holds(({ world, ended, all, fate }, { giveUpAt, attemptTimeoutMs }) => {
      expect(ended.length).toBeLessThanOrEqual(1)
      expect(world.timersLeft).toBe(0)
      if (ended.length === 1) {
        expect(world.log.at(-1)).toBe(ended[0])
        expect(world.running.size).toBe(0)
      } else if (giveUpAt !== undefined) {
        expect(world.running.size).toBe(0)
      } else {
        // Only attempts that never end can keep it open.
        expect(attemptTimeoutMs).toBe(0)
        expect(all.some((name) => fate(name) === undefined)).toBe(true)
      }
    }))

  test('it is lost only when every address has failed', () =>
    holds(({ world, ended, all }) => {
      if (!ended[0]?.startsWith('lost')) return
      expect(world.started.map(({ name }) => name).sort()).toEqual([...all].sort())
      expect(world.race.tried().every(({ failure }) => failure !== undefined)).toBe(true)
    }))
})
