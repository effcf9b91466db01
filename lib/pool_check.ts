// Whether an idle connection still works: what the caller's function says, and what the reactor finds.

import type { AsyncResource } from 'node:async_hooks'
import type { StreamConn } from './conn.js'
import type { Clock } from './pool_clock.js'
import type { Member } from './pool_member.js'
import type { PoolParts } from './pool_parts.js'
import type { PoolPlan } from './pool_plan.js'

/** Turns that a connection at rest is given to find out whether there are bytes. More means that reading is starved. */
const SettleTurnsMax = 100

export class Checker {
  validations = 0
  failures = 0

  constructor(
    private readonly plan: PoolPlan,
    private readonly clock: Clock,
    private readonly turn: PoolParts['turn'],
    private readonly context: AsyncResource,
  ) {}

  /** It may not be lent as it is. */
  isDue(member: Member): boolean {
    if (member.conn?.mayHaveInput) return true
    const { validate, validateAfterMs } = this.plan
    return validate !== undefined && this.quietMs(member) >= validateAfterMs
  }

  isDueWhileIdle(member: Member): boolean {
    const { validate, validateEveryMs } = this.plan
    return validate !== undefined && validateEveryMs > 0 && this.quietMs(member) >= validateEveryMs
  }

  /** For so long nothing is known of it. */
  private quietMs(member: Member): number {
    return this.clock.now() - Math.max(member.usedAt, member.checkedAt)
  }

  /** Of a connection that is `validating` and at rest; is it still, it is at rest afterwards. */
  async works(member: Member): Promise<boolean> {
    const { validate, validateAfterMs, validateEveryMs } = this.plan
    const dueMs = Math.min(validateAfterMs, validateEveryMs || validateAfterMs)
    if (validate !== undefined && this.quietMs(member) >= dueMs && !(await this.validates(member, validate))) {
      return false
    }
    return this.settles(member)
  }

  private async validates(member: Member, validate: NonNullable<PoolPlan['validate']>): Promise<boolean> {
    const conn = member.conn as StreamConn
    this.validations++
    conn.rouse()
    const answer = new Promise<boolean>((resolve) => {
      const timer = this.clock.after(this.plan.validateTimeoutMs, false, () => resolve(false))
      const decide = (isValid: boolean): void => {
        timer.cancel()
        resolve(isValid)
      }
      const ask = async (): Promise<boolean> => validate(conn)
      this.context.runInAsyncScope(ask).then(decide, () => decide(false))
    })
    const works = (await answer) === true && conn.isQuiet
    if (!works) this.failures++
    member.checkedAt = this.clock.now()
    if (works && member.state === 'validating') conn.rest()
    return works
  }

  /** A read that took all there was cannot know that: the reactor looks in its next turn, and tells if there is more. */
  private async settles(member: Member): Promise<boolean> {
    for (let turns = 0; member.conn?.mayHaveInput && turns < SettleTurnsMax; turns++) await this.turn(turns)
    return !member.conn?.mayHaveInput
  }
}
