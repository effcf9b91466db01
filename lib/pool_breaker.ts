// Whether an address may be dialed: after a failure there is a pause, longer each time; after so many in a row the
// breaker is open, and then one dial at a time, a probe, decides whether it closes again.
//
//   closed --(the last allowed failure)--> open --(the pause is over)--> half-open --(probe failed)--> open
//     ^                                                                      |
//     +------------------------------(probe connected)-----------------------+
//
// A connection alone is no proof: a server that accepts and resets would close the breaker again and again. So after a
// probe the address is on probation, one failure from open, until a use of one of its connections has ended well.

import type { BreakerState } from './pool_api.js'
import type { Clock } from './pool_clock.js'

export interface BreakerSettings {
  breakerFailures: number
  backoffMs: number
  backoffMaxMs: number
}

export class Breaker {
  failures = 0
  openings = 0
  lastError: Error | undefined
  /** Goes up with each failure. What began in an earlier era says nothing new: a burst that fails together has failed
   *  once, and an old connection that works does not prove that a new one would. */
  private era = 0
  private pauseEndsAt = Number.NEGATIVE_INFINITY
  /** The era of the probe under way. Nothing else is dialed in it. */
  private probe: number | undefined
  /** How often the pause has doubled; 0 only if there has been no failure since a use ended well. Apart from `failures`, which a probe that connected takes back by one. */
  private pauses = 0

  constructor(
    private readonly settings: BreakerSettings,
    private readonly clock: Clock,
  ) {}

  get state(): BreakerState {
    if (this.failures < this.settings.breakerFailures) return 'closed'
    return this.clock.now() < this.pauseEndsAt ? 'open' : 'half-open'
  }

  /** Milliseconds until the next dial is allowed; 0: now, or as soon as the probe under way has decided. */
  get pauseMs(): number {
    return Math.max(0, this.pauseEndsAt - this.clock.now())
  }

  get allows(): boolean {
    if (this.failures === 0) return true
    return this.probe === undefined && this.pauseMs === 0
  }

  /** A dial begins. Returns the era, for the calls below, which tell what became of it and of its connection. */
  begin(): number {
    if (this.state === 'half-open') this.probe = this.era
    return this.era
  }

  connected(era: number): void {
    this.endProbe(era)
    this.failures = Math.min(this.failures, this.settings.breakerFailures - 1)
  }

  /** The dial was given up for a reason that is not the address's. */
  abandoned(era: number): void {
    this.endProbe(era)
  }

  /** A use of the connection has ended well. */
  served(era: number): void {
    if (this.pauses === 0 || era !== this.era) return
    this.failures = 0
    this.pauses = 0
    this.lastError = undefined
    this.pauseEndsAt = Number.NEGATIVE_INFINITY
  }

  failed(era: number, error: Error): void {
    this.lastError = error
    this.endProbe(era)
    if (era !== this.era) return
    this.era++
    this.failures++
    const { breakerFailures, backoffMs, backoffMaxMs } = this.settings
    if (this.failures === breakerFailures) this.openings++
    const pauseMs = Math.min(backoffMaxMs, backoffMs * 2 ** this.pauses++)
    this.pauseEndsAt = this.clock.now() + pauseMs * (1 - this.clock.random() / 2)
  }

  private endProbe(era: number): void {
    if (era === this.probe) this.probe = undefined
  }
}
