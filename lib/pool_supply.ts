// The connections of a pool: dials them, checks them, lends them to who waits, and closes what nobody should have.
//
// Whatever changes ends in pump(), which does all that can be done now: serve those who wait from what is idle, begin as
// many dials as are needed for the rest, and fail those for whom there is no hope. A dial belongs to nobody: what it
// brings goes to who has waited longest, so a waiter that goes away leaves a connection, not a gap.

import type { AsyncResource } from 'node:async_hooks'
import { balancer, type Choose } from './balancer.js'
import type { StreamConn } from './conn.js'
import { AddressBook } from './pool_addresses.js'
import { Checker } from './pool_check.js'
import type { Timer } from './pool_clock.js'
import { hastyEnd, Member, noMembers, type PoolAddress } from './pool_member.js'
import type { Demand, PoolParts } from './pool_parts.js'
import { type PoolPlan, upkeepPeriod } from './pool_plan.js'
import { dialFirst, inNeed } from './pool_spread.js'

/** After so long another address is dialed as well: RFC 8305's Connection Attempt Delay. */
const SlowDialMs = 250
/** Of maxLifetimeMs up to so much is left out, so that connections opened together do not end together. */
const LifetimeJitter = 0.1

export class Supply {
  readonly counts = noMembers()
  readonly members = new Set<Member>()
  readonly addresses: AddressBook
  readonly checker: Checker
  readonly tally = {
    dials: 0,
    dialFailures: 0,
    expiredIdle: 0,
    expiredAge: 0,
    departed: 0,
    moved: 0,
    stirred: 0,
    unfit: 0,
    discarded: 0,
    balanceFailures: 0,
  }
  isDraining = false
  /** Called at each upkeep. */
  onUpkeep: ((now: number) => void) | undefined
  /** Called when a connection is gone. */
  onGone: (() => void) | undefined
  private readonly choose: Choose
  private readonly upkeepMs: number
  private upkeepTimer: Timer | undefined
  private retryTimer: Timer | undefined
  private isPumping = false
  /** Dials that take so long that they are not counted on, and their addresses passed over. */
  private slowDials = 0

  constructor(
    private readonly plan: PoolPlan,
    private readonly parts: PoolParts,
    private readonly demand: Demand,
    /** Connections live longer than the request for which they were dialed: its async context is not theirs. */
    private readonly context: AsyncResource,
  ) {
    const { clock, ask, turn } = parts
    this.choose = balancer(plan.balance, clock.random, () => {
      this.tally.balanceFailures++
    })
    this.checker = new Checker(plan, clock, turn, context)
    this.addresses = new AddressBook(
      plan,
      clock,
      ask,
      (address) => this.depart(address),
      () => this.pump(),
    )
    this.upkeepMs = upkeepPeriod(plan, this.addresses.discovery.hasNames)
  }

  /** Dials what minIdle asks for. */
  start(): void {
    if (this.plan.minIdle === 0) return
    this.armUpkeep()
    this.pump()
  }

  // ---- lending -----------------------------------------------------------------------------------------------------

  /** An idle connection that may be lent as it is. */
  take(): Member | undefined {
    if (this.counts.idle === 0 || this.isDraining) return undefined
    const member = this.popIdle()
    if (member === undefined || !this.checker.isDue(member)) return member
    member.address.idle.push(member)
    return undefined
  }

  lend(member: Member): void {
    if (member.state !== 'dialing') member.conn?.rouse()
    member.isUntried = false
    member.moveTo('busy', this.parts.clock.now())
  }

  /** A use has ended, and its holder says that all is well. */
  giveBack(member: Member): void {
    const now = this.parts.clock.now()
    const { address } = member
    const conn = member.conn as StreamConn
    member.usedAt = now
    if (!member.isOver) address.breaker.served(member.era)
    const why = conn.isQuiet ? this.reasonToEnd(member, now) : 'unfit'
    if (why !== undefined) {
      this.retire(member, why)
    } else if (this.isDraining) {
      this.close(member)
    } else {
      this.makeIdle(member, now)
      if (this.demand.size > 0) this.pump()
    }
  }

  /** Why it is not used again, though it works. */
  private reasonToEnd(member: Member, now: number): 'departed' | 'expiredAge' | 'moved' | undefined {
    if (member.address.leaving) return 'departed'
    if (now >= member.expiresAt) return 'expiredAge'
    return this.makesRoom(member.address) ? 'moved' : undefined
  }

  /** One at a time, so that a new address takes over gently. */
  private makesRoom(address: PoolAddress): boolean {
    const { balance, maxTotal, maxPerAddress } = this.plan
    if (this.members.size < maxTotal || this.counts.dialing + this.counts.closing > 0) return false
    return inNeed(address, this.addresses.active, balance, maxPerAddress) !== undefined
  }

  /** `error`: what a caller has caught, so it may be anything. */
  giveUp(member: Member, error: unknown): void {
    member.usedAt = this.parts.clock.now()
    if (error != null) this.blame(member, error instanceof Error ? error : new Error(String(error)))
    this.tally.discarded++
    member.conn?.abort()
    this.close(member)
  }

  private makeIdle(member: Member, now: number): void {
    member.moveTo('idle', now)
    member.taker = undefined
    member.address.idle.push(member)
    member.conn?.rest()
  }

  /** Takes an idle connection off its list, of the address whose turn it is. */
  private popIdle(): Member | undefined {
    if (this.counts.idle === 0) return undefined
    const { active } = this.addresses
    if (active.length === 1) return (active[0] as PoolAddress).idle.pop()
    const whole = active.filter(({ breaker, idle }) => breaker.state !== 'open' && idle.length > 0)
    const dialable = active.filter((address) => address.idle.length === 0 && this.mayDial(address))
    if (whole.length + dialable.length > 0) {
      const chosen = this.choose([...whole, ...dialable])
      if (chosen.idle.length > 0) return chosen.idle.pop()
      // Its turn, but it has none: one is dialed for the next time, and this time is not spent waiting.
      if (chosen.counts.dialing === 0) this.dial(chosen)
    }
    if (whole.length > 0) return this.choose(whole).idle.pop()
    // Its breaker is open, so it cannot be dialed; but this connection has given no sign of being broken.
    return active.find(({ idle }) => idle.length > 0)?.idle.pop()
  }

  // ---- the pump ----------------------------------------------------------------------------------------------------

  /** Does all that can be done now. */
  pump(): void {
    if (this.isDraining || this.isPumping) return
    this.isPumping = true
    try {
      this.addresses.discovery.refresh()
      this.serveIdle()
      // Looked at before: a pause that ends meanwhile, too late for the dials, would have no timer either.
      const pauseMs = this.addresses.shortestPauseMs
      this.dialNeeded()
      if (this.isHopeless()) this.demand.failAll()
      else this.demand.look()
      this.armRetry(pauseMs)
    } finally {
      this.isPumping = false
    }
  }

  private serveIdle(): void {
    while (this.demand.size > this.counts.validating) {
      const member = this.popIdle()
      if (member === undefined) return
      if (this.checker.isDue(member)) void this.check(member)
      else this.demand.serve(member)
    }
  }

  private dialNeeded(): void {
    if (this.addresses.discovery.isBlocked) return
    while (this.missing() > 0) {
      const candidates = this.addresses.active.filter((address) => this.mayDial(address))
      if (candidates.length === 0) return
      this.dial(this.choose(dialFirst(candidates, this.plan.balance)))
    }
  }

  /** So many more connections are needed than there are and come. */
  private missing(): number {
    if (this.members.size >= this.plan.maxTotal) return 0
    const { validating, dialing, idle } = this.counts
    const coming = validating + dialing - this.slowDials
    return this.demand.size + Math.max(0, this.plan.minIdle - idle) - coming
  }

  private mayDial(address: PoolAddress): boolean {
    const { slowDials, breaker } = address
    return this.members.size < this.plan.maxTotal && this.hasRoom(address) && slowDials === 0 && breaker.allows
  }

  private hasRoom(address: PoolAddress): boolean {
    return address.memberCount < this.plan.maxPerAddress
  }

  /** Nothing is there or comes that could serve those who wait, and no address may be dialed soon. */
  private isHopeless(): boolean {
    const { busy, idle, dialing, validating } = this.counts
    if (busy + idle + dialing + validating > 0) return false
    if (this.addresses.active.length === 0) return !this.addresses.discovery.isBlocked
    return this.addresses.active.every(({ breaker }) => breaker.state === 'open')
  }

  /** Comes back when a pause is over that a needed dial waits for. */
  private armRetry(pauseMs: number): void {
    this.retryTimer?.cancel()
    this.retryTimer = undefined
    if (this.missing() <= 0 || pauseMs === Number.POSITIVE_INFINITY) return
    this.retryTimer = this.parts.clock.after(Math.ceil(pauseMs), !this.demand.isAwaited, () => this.pump())
  }

  // ---- dialing -----------------------------------------------------------------------------------------------------

  private dial(address: PoolAddress): void {
    const { clock, dial } = this.parts
    const gaveUp = new AbortController()
    const member = new Member(address, this.counts, clock.now(), () => gaveUp.abort())
    this.members.add(member)
    this.tally.dials++
    const options = { ...this.plan.dial, ...address.place, signal: gaveUp.signal }
    const slow = clock.after(SlowDialMs, true, () => this.dialIsSlow(member))
    this.context
      .runInAsyncScope(dial, undefined, options)
      .finally(() => {
        slow.cancel()
        this.countSlow(member, -1)
      })
      .then(
        (conn) => this.dialed(member, conn as StreamConn),
        (error: Error) => this.dialFailed(member, error, gaveUp.signal.aborted),
      )
    if (this.upkeepTimer === undefined) this.armUpkeep()
  }

  /** Only where there is another address to try. */
  private dialIsSlow(member: Member): void {
    if (this.addresses.active.length < 2) return
    member.isSlow = true
    this.countSlow(member, 1)
    this.pump()
  }

  private countSlow(member: Member, step: 1 | -1): void {
    if (!member.isSlow) return
    this.slowDials += step
    member.address.slowDials += step
  }

  private dialed(member: Member, conn: StreamConn): void {
    const { clock } = this.parts
    const { address } = member
    // In the turn in which it was opened.
    if (conn.state === 'closed') {
      this.dialFailed(member, hastyEnd(address), false)
      return
    }
    const now = clock.now()
    member.conn = conn
    member.usedAt = now
    member.checkedAt = now
    if (this.plan.maxLifetimeMs > 0) {
      member.expiresAt = now + this.plan.maxLifetimeMs * (1 - clock.random() * LifetimeJitter)
    }
    address.breaker.connected(member.era)
    conn.keep({
      stirred: () => this.context.runInAsyncScope(this.stirred, this, member),
      ended: (error) => this.context.runInAsyncScope(this.ended, this, member, error),
    })
    if (this.isDraining || address.leaving) this.close(member)
    else this.offer(member)
  }

  private dialFailed(member: Member, error: Error, gaveUp: boolean): void {
    const { address } = member
    if (gaveUp) {
      address.breaker.abandoned(member.era)
    } else {
      this.tally.dialFailures++
      address.breaker.failed(member.era, error)
    }
    this.remove(member)
  }

  /** A connection that works, and that nobody has. */
  private offer(member: Member): void {
    if (!this.demand.serve(member)) this.makeIdle(member, this.parts.clock.now())
    this.pump()
  }

  // ---- checking ----------------------------------------------------------------------------------------------------

  /** Of an idle connection, already off its list. Afterwards it is lent or idle again, or closed. */
  private async check(member: Member): Promise<void> {
    member.moveTo('validating', this.parts.clock.now())
    const works = await this.checker.works(member)
    // Closed meanwhile: it stirred, or the pool drains.
    if (member.state !== 'validating') return
    if (!works || this.isDraining || member.address.leaving) {
      if (!works) member.conn?.abort()
      this.close(member)
      return
    }
    this.offer(member)
  }

  // ---- ending ------------------------------------------------------------------------------------------------------

  /** Bytes, FIN or an error have come to a connection that nobody uses. */
  private stirred(member: Member): void {
    if (member.state === 'idle') dropFrom(member.address.idle, member)
    this.tally.stirred++
    // Otherwise minIdle would have it dialed again at once, and again. Untried, it has `usedAt` from when it was opened.
    const isHasty = member.isUntried && this.parts.clock.now() - member.usedAt < this.plan.backoffMs
    if (isHasty) this.blame(member, hastyEnd(member.address))
    // Bytes that nobody has asked for: the peer speaks another protocol, or answers somebody's last question late.
    if (member.conn?.state === 'open') member.conn.abort()
    this.close(member)
  }

  private retire(member: Member, why: 'unfit' | 'departed' | 'moved' | 'expiredAge' | 'expiredIdle'): void {
    this.tally[why]++
    this.close(member)
  }

  /** What is queued is still sent. An idle member must be off its list. */
  close(member: Member): void {
    if (member.state === 'closing' || member.state === 'gone') return
    member.moveTo('closing', this.parts.clock.now())
    member.taker = undefined
    member.conn?.rouse()
    member.conn?.close()
    if (member.isOver) this.remove(member)
  }

  private ended(member: Member, error: Error | undefined): void {
    member.isOver = true
    if (member.state === 'busy' || member.state === 'validating') {
      if (error !== undefined && !('code' in error && String(error.code).startsWith('ERR_'))) this.blame(member, error)
    } else if (member.state === 'closing') {
      this.remove(member)
    }
  }

  /** An address whose connections break in use fails, however well it accepts them. */
  private blame(member: Member, error: Error): void {
    member.address.breaker.failed(member.era, error)
  }

  private remove(member: Member): void {
    const { address } = member
    member.moveTo('gone', this.parts.clock.now())
    this.members.delete(member)
    this.addresses.forgetIfEmpty(address)
    this.onGone?.()
    this.pump()
  }

  /** Those in use are closed when they come back. */
  drain(): void {
    this.isDraining = true
    this.addresses.discovery.close()
    this.retryTimer?.cancel()
    this.upkeepTimer?.cancel()
    for (const member of this.members) this.letGo(member)
  }

  /** Those in use are aborted. Dials were given up before; one that connects all the same is closed then. */
  abortAll(reason: Error): void {
    for (const member of this.members) {
      if (member.state === 'dialing') continue
      member.conn?.abort(reason)
      this.close(member)
    }
  }

  /** What nobody uses is given up at once. */
  private letGo(member: Member): void {
    if (member.state === 'dialing') {
      member.cancel()
    } else if (member.state === 'idle') {
      dropFrom(member.address.idle, member)
      this.close(member)
    }
  }

  /** The address has left DNS. */
  private depart(address: PoolAddress): void {
    this.tally.departed += address.idle.length
    for (const member of this.members) if (member.address === address) this.letGo(member)
  }

  // ---- upkeep ------------------------------------------------------------------------------------------------------

  private armUpkeep(): void {
    this.upkeepTimer = undefined
    if (this.isDraining || (this.members.size === 0 && this.plan.minIdle === 0)) return
    this.upkeepTimer = this.parts.clock.after(this.upkeepMs, true, () => this.upkeep())
  }

  private upkeep(): void {
    const now = this.parts.clock.now()
    for (const address of this.addresses.active) {
      for (const member of [...address.idle]) this.upkeepIdle(member, now)
    }
    this.onUpkeep?.(now)
    this.pump()
    this.armUpkeep()
  }

  private upkeepIdle(member: Member, now: number): void {
    const { idleTimeoutMs, minIdle } = this.plan
    let why: 'expiredAge' | 'expiredIdle' | undefined
    if (now >= member.expiresAt) why = 'expiredAge'
    else if (idleTimeoutMs > 0 && now - member.usedAt >= idleTimeoutMs && this.counts.idle > minIdle)
      why = 'expiredIdle'
    if (why === undefined && !this.checker.isDueWhileIdle(member)) return
    dropFrom(member.address.idle, member)
    if (why === undefined) void this.check(member)
    else this.retire(member, why)
  }
}

function dropFrom(list: Member[], member: Member): void {
  const at = list.lastIndexOf(member)
  if (at >= 0) list.splice(at, 1)
}
