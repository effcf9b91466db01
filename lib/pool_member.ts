// One connection of a pool, from its dial to its end, and the address that it belongs to.
//
//             +-----------------------+
//             v                       |
//  dialing -> idle -> busy -> (given back: is it fit?) -> closing -> gone
//             ^  |                                        ^
//             |  v                                        |
//          validating ------------------------------------+
//
// dialing -> busy and validating -> busy skip `idle` when somebody waits. `closing` counts towards maxTotal: the
// connection is there until it is over.

import type { StreamConn } from './conn.js'
import { NetError } from './errors.js'
import type { BalanceCandidate } from './pool_api.js'
import type { Breaker } from './pool_breaker.js'

export type MemberState = 'dialing' | 'idle' | 'validating' | 'busy' | 'closing' | 'gone'

/** How many members are in each state; `gone` is never read. */
export type MemberCounts = Record<MemberState, number>

export const noMembers = (): MemberCounts => ({ dialing: 0, idle: 0, validating: 0, busy: 0, closing: 0, gone: 0 })

/** A stack that is formatted when it is read. */
export interface Taker {
  readonly stack?: string
}

/** What dial() is told. */
export type DialPlace = { host: string; port: number } | { path: string }

export class PoolAddress implements BalanceCandidate {
  readonly counts = noMembers()
  /** The one that was used last is last, and is taken first: few connections stay busy, and the others can expire. */
  readonly idle: Member[] = []
  /** It has left DNS. */
  leaving = false
  /** Dials that take long: meanwhile others are dialed. */
  slowDials = 0

  constructor(
    readonly name: string,
    readonly place: DialPlace,
    readonly breaker: Breaker,
  ) {}

  get idleCount(): number {
    return this.counts.idle
  }

  get busyCount(): number {
    return this.counts.busy + this.counts.validating
  }

  get dialingCount(): number {
    return this.counts.dialing
  }

  get memberCount(): number {
    const { dialing, idle, validating, busy, closing } = this.counts
    return dialing + idle + validating + busy + closing
  }
}

/** A server that accepts and ends connections at once is of no more use than one that refuses them. */
export function hastyEnd({ name, place }: PoolAddress): NetError {
  const network = 'path' in place ? 'unix' : 'tcp'
  const reason = 'the connection ended as soon as it was open'
  return new NetError('ERR_CONN_CLOSED', { op: 'dial', network, remote: name }, reason)
}

export class Member {
  state: MemberState = 'dialing'
  /** From `dialing` on. */
  conn: StreamConn | undefined
  /** The breaker's era in which it was dialed. */
  readonly era: number
  /** When it came into its state, was last given back, was last found to work; when it is too old. */
  since: number
  usedAt: number
  checkedAt: number
  expiresAt = Number.POSITIVE_INFINITY
  /** Nobody has had it yet. */
  isUntried = true
  /** The dial takes so long that it counts for nothing: another may be begun. */
  isSlow = false
  /** The connection has ended, though somebody still holds it. */
  isOver = false
  /** Who took it: set while it is busy, if leaks are looked for. */
  taker: Taker | undefined
  isReported = false

  constructor(
    readonly address: PoolAddress,
    private readonly counts: MemberCounts,
    readonly dialedAt: number,
    /** Gives the dial up. */
    readonly cancel: () => void,
  ) {
    this.era = address.breaker.begin()
    this.since = dialedAt
    this.usedAt = dialedAt
    this.checkedAt = dialedAt
    counts.dialing++
    address.counts.dialing++
  }

  moveTo(state: MemberState, now: number): void {
    const { counts, address } = this
    counts[this.state]--
    address.counts[this.state]--
    this.state = state
    this.since = now
    counts[state]++
    address.counts[state]++
  }
}
