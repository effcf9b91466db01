// Time and chance, as a pool sees them: one object, so that tests have them in hand.

export interface Clock {
  /** Milliseconds from any start; never backwards. */
  now(): number
  /** 0 <= random() < 1. */
  random(): number
  /** Calls `fn` once, in so many milliseconds. A timer that does not keep the process alive is `idle`. */
  after(ms: number, idle: boolean, fn: () => void): Timer
}

export interface Timer {
  cancel(): void
}

export const systemClock: Clock = {
  now: () => performance.now(),
  random: Math.random,
  after(ms, idle, fn) {
    const timer = setTimeout(fn, ms)
    if (idle) timer.unref()
    return { cancel: () => clearTimeout(timer) }
  },
}
