// A clock that the test moves, and chance that it decides.

import type { Clock, Timer } from '../../dist/pool_clock.js'

interface Entry {
  at: number
  fn: () => void
}

export class ManualClock implements Clock {
  ms = 1_000
  /** What random() gives. */
  chance = 0
  private readonly timers = new Set<Entry>()

  now(): number {
    return this.ms
  }

  random(): number {
    return this.chance
  }

  after(ms: number, _idle: boolean, fn: () => void): Timer {
    const entry = { at: this.ms + ms, fn }
    this.timers.add(entry)
    return { cancel: () => void this.timers.delete(entry) }
  }

  get pending(): number {
    return this.timers.size
  }

  /** Moves the time on; timers that come due run in their order, each at its own time. */
  advance(ms: number): void {
    const end = this.ms + ms
    for (;;) {
      const due = [...this.timers].filter(({ at }) => at <= end).sort((one, two) => one.at - two.at)[0]
      if (due === undefined) break
      this.timers.delete(due)
      this.ms = Math.max(this.ms, due.at)
      due.fn()
    }
    this.ms = end
  }
}
