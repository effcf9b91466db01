// The addresses of a pool as they come and go: each has its connections and its breaker for as long as it is there.

import { Breaker } from './pool_breaker.js'
import type { Clock } from './pool_clock.js'
import { type Ask, Discovery } from './pool_discovery.js'
import { type DialPlace, PoolAddress } from './pool_member.js'
import type { PoolPlan } from './pool_plan.js'

export class AddressBook {
  /** Those that have left DNS stay until their last connection is gone. */
  readonly all = new Map<string, PoolAddress>()
  /** Those that have not. */
  active: readonly PoolAddress[] = []
  readonly discovery: Discovery
  /** Of breakers of addresses that are forgotten. */
  private pastOpenings = 0

  constructor(
    private readonly plan: PoolPlan,
    private readonly clock: Clock,
    ask: Ask,
    private readonly onDeparture: (address: PoolAddress) => void,
    onAnswer: () => void,
  ) {
    this.discovery = new Discovery(plan.upstreams, plan, ask, clock, () => {
      this.place()
      onAnswer()
    })
    this.place()
  }

  get lastError(): Error | undefined {
    const failing = this.active.find(({ breaker }) => breaker.lastError !== undefined)
    return failing?.breaker.lastError ?? this.discovery.lastError
  }

  /** Until the next address may be dialed that may not now; Infinity if there is none. */
  get shortestPauseMs(): number {
    let shortest = Number.POSITIVE_INFINITY
    for (const { breaker, memberCount } of this.active) {
      const { pauseMs } = breaker
      if (pauseMs > 0 && memberCount < this.plan.maxPerAddress) shortest = Math.min(shortest, pauseMs)
    }
    return shortest
  }

  /** Of all breakers that there have been. */
  get breakerOpenings(): number {
    let openings = this.pastOpenings
    for (const { breaker } of this.all.values()) openings += breaker.openings
    return openings
  }

  /** A connection is gone: perhaps the last one of an address that has left. */
  forgetIfEmpty(address: PoolAddress): void {
    if (!address.leaving || address.memberCount > 0) return
    if (this.all.delete(address.name)) this.pastOpenings += address.breaker.openings
  }

  private place(): void {
    const places = this.discovery.places()
    for (const [name, place] of places) this.arrive(name, place)
    this.active = [...this.all.values()].filter(({ name }) => places.has(name))
    for (const address of this.all.values()) {
      if (places.has(address.name) || address.leaving) continue
      address.leaving = true
      this.onDeparture(address)
      this.forgetIfEmpty(address)
    }
  }

  private arrive(name: string, place: DialPlace): void {
    const known = this.all.get(name)
    if (known !== undefined) known.leaving = false
    else this.all.set(name, new PoolAddress(name, place, new Breaker(this.plan, this.clock)))
  }
}
