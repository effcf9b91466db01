// What the sides of a pool know of each other, and of the world.

import type { Conn, DialOptions } from './net.js'
import type { Clock } from './pool_clock.js'
import type { Ask } from './pool_discovery.js'
import type { Member } from './pool_member.js'

export type Dial = (options: DialOptions) => Promise<Conn>

/** What a pool is made of besides its plan: replaced in tests. */
export interface PoolParts {
  clock: Clock
  dial: Dial
  ask: Ask
  /** One turn of the event loop, the so manieth that is waited for, from 0. */
  turn: (count: number) => Promise<void>
}

/** Those who wait. */
export interface Demand {
  readonly size: number
  /** Somebody waits, for a connection or for warmUp(): that keeps the process alive. */
  readonly isAwaited: boolean
  serve(member: Member): boolean
  /** Something has changed. */
  look(): void
  /** No address can be reached. */
  failAll(): void
}
