// Happy Eyeballs, RFC 8305: which address of a name is tried when. It knows neither names nor sockets: addresses are
// handed in as they are found, and trying one is somebody else's.
//
// - Addresses of both families alternate, IPv6 first (section 4, with a First Address Family Count of 1). Within a
//   family the order is that in which they came.
// - IPv4 addresses that come first wait a little for the IPv6 ones (section 3).
// - The next attempt starts when the last one has failed, or has had attemptDelayMs for itself (section 5). The earlier
//   ones go on: the first that succeeds wins, and ends the others.

/** Section 8: how long an answer with IPv4 addresses waits for that with IPv6 ones. */
export const ResolutionDelayMs = 50
/** A name may have thousands of addresses that do not answer; each attempt is a descriptor. */
export const AttemptsMax = 16

export type Family = 4 | 6

/** What the race may be told of an attempt: once, and from inside start() if need be. */
export interface Outcome<Value, Failure> {
  won(value: Value): void
  failed(failure: Failure): void
}

export interface RaceTimers {
  set(callback: () => void, ms: number): unknown
  clear(timer: unknown): void
}

export interface RacePlan<Target, Value, Failure> {
  attemptDelayMs: number
  /** 0: none. */
  attemptTimeoutMs: number
  timers: RaceTimers
  /** Begins an attempt. What it returns ends the attempt, of which nothing is heard afterwards. */
  start(target: Target, outcome: Outcome<Value, Failure>): () => void
  /** What an attempt that had no more time failed with. */
  timedOut(target: Target): Failure
  /** The end, once: every other attempt has been ended. */
  won(value: Value): void
  lost(): void
}

interface Attempt<Failure> {
  failure: Failure | undefined
  /** Undefined before start() has returned, and after the end. */
  cancel: (() => void) | undefined
  timer: unknown
}

export class DialRace<Target, Value, Failure> {
  /** Every attempt that was started, in that order. */
  private readonly attempts = new Map<Target, Attempt<Failure>>()
  private readonly waiting: Record<Family, Target[]> = { 4: [], 6: [] }
  /** Families of which there is no answer yet. */
  private readonly awaited: Set<Family>
  private lastFamily: Family = 4
  private latest: Attempt<Failure> | undefined
  private running = 0
  /** Neither the resolution delay nor that after the last attempt is running. */
  private free = true
  private delay: unknown
  private starting = false
  private over = false

  constructor(
    private readonly plan: RacePlan<Target, Value, Failure>,
    families: readonly Family[],
  ) {
    this.awaited = new Set(families)
  }

  /** The targets of a family, or none of them: then that family is not waited for. */
  answer(family: Family, targets: readonly Target[]): void {
    if (this.over) return
    this.awaited.delete(family)
    this.waiting[family].push(...targets)
    if (this.attempts.size === 0) {
      this.endPause()
      if (family === 4 && this.awaited.has(6) && targets.length > 0) this.pause(ResolutionDelayMs)
    }
    this.advance()
  }

  /** Ends every attempt; neither won() nor lost() is called. */
  giveUp(): void {
    this.over = true
    this.endPause()
    for (const attempt of this.attempts.values()) this.end(attempt)?.()
  }

  /** What was tried, in that order; without a failure when it was still under way. */
  tried(): { target: Target; failure: Failure | undefined }[] {
    return [...this.attempts].map(([target, { failure }]) => ({ target, failure }))
  }

  private pause(ms: number): void {
    const { timers } = this.plan
    this.endPause()
    this.free = false
    this.delay = timers.set(() => {
      this.delay = undefined
      this.free = true
      this.advance()
    }, ms)
  }

  private endPause(): void {
    if (this.delay !== undefined) this.plan.timers.clear(this.delay)
    this.delay = undefined
    this.free = true
  }

  /** Starts what may be started now. A loop, because start() may fail at once, and that for each of many addresses. */
  private advance(): void {
    if (this.starting) return
    this.starting = true
    while (!this.over && this.free && this.running < AttemptsMax) {
      const target = this.next()
      if (target === undefined) break
      this.start(target)
    }
    this.starting = false
    if (this.over || this.running > 0 || this.awaited.size > 0) return
    if (this.waiting[4].length + this.waiting[6].length > 0) return
    this.over = true
    this.endPause()
    this.plan.lost()
  }

  private next(): Target | undefined {
    const other: Family = this.lastFamily === 4 ? 6 : 4
    const family = this.waiting[other].length > 0 ? other : this.lastFamily
    const target = this.waiting[family].shift()
    if (target !== undefined) this.lastFamily = family
    return target
  }

  private start(target: Target): void {
    const { plan } = this
    const attempt: Attempt<Failure> = { failure: undefined, cancel: () => {}, timer: undefined }
    this.attempts.set(target, attempt)
    this.latest = attempt
    this.running++
    this.pause(plan.attemptDelayMs)
    const cancel = plan.start(target, {
      won: (value) => this.win(attempt, value),
      failed: (failure) => this.fail(attempt, failure),
    })
    if (attempt.cancel === undefined) return
    attempt.cancel = cancel
    if (plan.attemptTimeoutMs === 0) return
    attempt.timer = plan.timers.set(() => {
      attempt.cancel?.()
      this.fail(attempt, plan.timedOut(target))
    }, plan.attemptTimeoutMs)
  }

  private win(attempt: Attempt<Failure>, value: Value): void {
    if (attempt.cancel === undefined) return
    this.end(attempt)
    this.giveUp()
    this.plan.won(value)
  }

  private fail(attempt: Attempt<Failure>, failure: Failure): void {
    if (attempt.cancel === undefined) return
    this.end(attempt)
    attempt.failure = failure
    // An earlier one that fails says nothing about the one that has its time now.
    if (attempt === this.latest || this.running === 0) this.endPause()
    this.advance()
  }

  /** Nothing of the attempt counts any more. Returns what ends it, if it was under way. */
  private end(attempt: Attempt<Failure>): (() => void) | undefined {
    const { cancel, timer } = attempt
    if (cancel === undefined) return undefined
    attempt.cancel = undefined
    if (timer !== undefined) this.plan.timers.clear(timer)
    this.running--
    return cancel
  }
}
