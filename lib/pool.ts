// createPool(): connections that are kept, and lent one by one. This is the borrowers' side: who may have one, who waits,
// and what they are told. The connections themselves are in pool_supply.ts.

import { AsyncResource } from 'node:async_hooks'
import type { InspectOptionsStylized } from 'node:util'
import { joinHostPort, printablePath } from './addr.js'
import { dial } from './dialer.js'
import { invalidArgument, NetError } from './errors.js'
import { inspection, shown } from './inspection.js'
import type { Conn } from './net.js'
import type { AcquireOptions, Lease, Pool, PoolOptions, PoolSnapshot, PoolStats } from './pool_api.js'
import { systemClock } from './pool_clock.js'
import { type Ask, askFunction, askResolver } from './pool_discovery.js'
import { HolderWatch } from './pool_leaks.js'
import { type Lender, PoolLease } from './pool_lease.js'
import type { Member, Taker } from './pool_member.js'
import type { PoolParts } from './pool_parts.js'
import { type PoolPlan, planAcquire, planDrain, planPool } from './pool_plan.js'
import { Supply } from './pool_supply.js'
import { WaiterQueue } from './pool_waiters.js'
import { defaultResolver } from './resolver.js'

/**
 * A pool of connections to one or several upstreams. Nothing is dialed before it is needed, but for minIdle.
 * Throws ERR_INVALID_ARG before anything is opened. docs/pool.md has the reasons for the defaults.
 */
export function createPool(options: PoolOptions): Pool {
  const plan = planPool(options)
  return new ConnPool(plan, { clock: systemClock, dial, ask: askOf(plan), turn })
}

/** As a rule one or two do. Not every runtime polls between two immediates, and no thread needs to be hurried. */
const QuickTurns = 4
const SlowTurnMs = 1

function turn(count: number): Promise<void> {
  return new Promise((resolve) => {
    if (count < QuickTurns) setImmediate(resolve)
    else setTimeout(resolve, SlowTurnMs)
  })
}

function askOf({ resolver, lookup }: PoolPlan): Ask {
  return lookup === undefined ? askResolver(resolver ?? defaultResolver()) : askFunction(lookup)
}

export class ConnPool implements Pool, Lender {
  private readonly waiters: WaiterQueue<Member, Lease>
  /** Calls of warmUp(). */
  private readonly warming: WaiterQueue<void, void>
  private readonly supply: Supply
  private readonly holders: HolderWatch
  private readonly place: { op: 'acquire'; network: string; remote: string }
  private readonly tally = {
    acquired: 0,
    acquiredAtOnce: 0,
    released: 0,
    timeouts: 0,
    aborts: 0,
    refusals: 0,
    upstreamFailures: 0,
  }
  private drained: { promise: Promise<void>; resolve: () => void } | undefined

  constructor(
    private readonly plan: PoolPlan,
    private readonly parts: PoolParts,
  ) {
    const { upstreams } = plan
    this.place = {
      op: 'acquire',
      network: upstreams.every(({ kind }) => kind === 'path') ? 'unix' : 'tcp',
      remote: upstreams.map(nameOf).join(', '),
    }
    this.waiters = new WaiterQueue(parts.clock)
    this.warming = new WaiterQueue(parts.clock)
    this.holders = new HolderWatch(plan.leakDetectionMs)
    const { waiters, warming } = this
    const demand = {
      get size() {
        return waiters.size
      },
      get isAwaited() {
        return waiters.size + warming.size > 0
      },
      serve: (member: Member) => waiters.serve(member),
      failAll: () => {
        this.tally.upstreamFailures += waiters.failAll(() => this.upstreamError())
        this.warming.failAll(() => this.upstreamError())
      },
      look: () => {
        while (this.isWarm && this.warming.serve()) {}
      },
    }
    this.supply = new Supply(plan, parts, demand, new AsyncResource('EDGEWIRE_POOL'))
    this.supply.onUpkeep = (now) => this.holders.scan(this.supply.members, now)
    this.supply.onGone = () => this.settleDrain()
    this.supply.start()
  }

  // ---- borrowing ---------------------------------------------------------------------------------------------------

  acquire(options?: AcquireOptions): Promise<Lease> {
    const taker = this.holders.takerAbove(this.acquire)
    if (options === undefined) {
      const lease = this.lendAtOnce(taker)
      return lease === undefined ? this.wait(undefined, this.plan.acquireTimeoutMs, taker) : Promise.resolve(lease)
    }
    return this.acquireWith(options, taker)
  }

  private async acquireWith(options: AcquireOptions, taker: Taker | undefined): Promise<Lease> {
    const { signal, timeoutMs } = planAcquire(options, this.plan.acquireTimeoutMs)
    if (signal?.aborted) {
      this.tally.aborts++
      throw signal.reason
    }
    return this.lendAtOnce(taker) ?? this.wait(signal, timeoutMs, taker)
  }

  tryAcquire(): Lease | undefined {
    return this.lendAtOnce(this.holders.takerAbove(this.tryAcquire))
  }

  private lendAtOnce(taker: Taker | undefined): Lease | undefined {
    // Who waits was here first.
    if (this.waiters.size > 0) return undefined
    const member = this.supply.take()
    if (member === undefined) return undefined
    this.tally.acquiredAtOnce++
    return this.lend(member, taker)
  }

  private lend(member: Member, taker: Taker | undefined): Lease {
    this.supply.lend(member)
    this.tally.acquired++
    member.taker = taker
    member.isReported = false
    return new PoolLease(this, member)
  }

  private wait(signal: AbortSignal | undefined, timeoutMs: number, taker: Taker | undefined): Promise<Lease> {
    if (this.drained !== undefined) return Promise.reject(this.closedError())
    if (this.waiters.size >= this.plan.maxWaiters) {
      this.tally.refusals++
      return Promise.reject(this.error('ERR_POOL_FULL', `${this.waiters.size} calls wait already: ${this.situation()}`))
    }
    const promise = this.waiters.wait({
      signal,
      timeoutMs,
      timeoutError: () => this.timeoutError(timeoutMs),
      onTimeout: () => {
        this.tally.timeouts++
      },
      onAbort: () => {
        this.tally.aborts++
      },
      accept: (member) => this.lend(member, taker),
    })
    this.supply.pump()
    return promise
  }

  release(lease: Lease): void {
    if (!(lease instanceof PoolLease) || lease.lender !== this) {
      const reason = 'release() takes a lease that acquire() of this pool has given'
      throw new NetError('ERR_POOL_FOREIGN', { ...this.place, op: 'release' }, reason, { value: lease })
    }
    lease.release()
  }

  giveBack(member: Member): void {
    this.tally.released++
    this.supply.giveBack(member)
  }

  giveUp(member: Member, error: Error | undefined): void {
    this.tally.released++
    this.supply.giveUp(member, error)
  }

  async use<T>(fn: (conn: Conn, lease: Lease) => Promise<T> | T, options?: AcquireOptions): Promise<T> {
    if (typeof fn !== 'function') throw invalidArgument('acquire', 'use() takes a function', fn)
    const lease = (await this.acquire(options)) as PoolLease
    let result: T
    try {
      result = await fn(lease.conn, lease)
    } catch (error) {
      // In the middle of a conversation, perhaps. An error of the network is the address's; others are the caller's own.
      if (!lease.isOver) lease.discard(error instanceof NetError && error.errno !== undefined ? error : undefined)
      throw error
    }
    if (!lease.isOver) lease.release()
    return result
  }

  warmUp(): Promise<void> {
    if (this.drained !== undefined) return Promise.reject(this.closedError())
    if (this.isWarm) return Promise.resolve()
    const timeoutMs = this.plan.acquireTimeoutMs
    const timeoutError = () => this.timeoutError(timeoutMs)
    const nothing = (): void => {}
    const promise = this.warming.wait({
      signal: undefined,
      timeoutMs,
      timeoutError,
      onTimeout: nothing,
      onAbort: nothing,
      accept: nothing,
    })
    this.supply.pump()
    return promise
  }

  private get isWarm(): boolean {
    return this.supply.counts.idle >= this.plan.minIdle
  }

  // ---- the end -----------------------------------------------------------------------------------------------------

  async drain(options: { timeoutMs?: number } = {}): Promise<void> {
    const timeoutMs = planDrain(options)
    if (this.drained === undefined) {
      let resolve!: () => void
      const promise = new Promise<void>((settle) => {
        resolve = settle
      })
      this.drained = { promise, resolve }
      this.supply.drain()
      for (const queue of [this.waiters, this.warming]) queue.failAll(() => this.closedError())
      this.settleDrain()
    }
    const timer =
      timeoutMs > 0
        ? this.parts.clock.after(timeoutMs, false, () => this.supply.abortAll(this.closedError()))
        : undefined
    await this.drained.promise
    timer?.cancel()
  }

  private settleDrain(): void {
    if (this.supply.members.size === 0) this.drained?.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain()
  }

  // ---- what it tells -----------------------------------------------------------------------------------------------

  stats(): PoolStats {
    const { counts, members, addresses, checker, tally } = this.supply
    const { idle, busy, dialing, validating, closing } = counts
    return {
      total: members.size,
      idle,
      busy,
      dialing,
      validating,
      closing,
      waiting: this.waiters.size,
      ...this.tally,
      ...tally,
      validations: checker.validations,
      validationFailures: checker.failures,
      lookups: addresses.discovery.lookups,
      lookupFailures: addresses.discovery.failures,
      breakerOpenings: addresses.breakerOpenings,
      leakSuspects: this.holders.suspects,
    }
  }

  snapshot(): PoolSnapshot {
    const now = this.parts.clock.now()
    return {
      stats: this.stats(),
      addresses: [...this.supply.addresses.all.values()].map((address) => {
        const { name, busyCount, idleCount, dialingCount, leaving, breaker } = address
        const { state, failures, pauseMs, lastError } = breaker
        return { name, busyCount, idleCount, dialingCount, leaving, breaker: state, failures, pauseMs, lastError }
      }),
      connections: [...this.supply.members].map(({ address, state, dialedAt, since }) => ({
        upstream: address.name,
        state,
        ageMs: now - dialedAt,
        sinceMs: now - since,
      })),
    }
  }

  [inspection](depth: number, options: InspectOptionsStylized): string {
    return shown('Pool', this.snapshot(), depth, options)
  }

  // ---- errors ------------------------------------------------------------------------------------------------------

  private error(code: string, reason: string, timeout = false): NetError {
    const { lastError } = this.supply.addresses
    const details = lastError === undefined ? { timeout } : { timeout, cause: lastError }
    return new NetError(code, this.place, lastError === undefined ? reason : `${reason}; ${lastError.message}`, details)
  }

  private closedError(): NetError {
    return new NetError('ERR_POOL_CLOSED', this.place, 'the pool is drained')
  }

  private timeoutError(timeoutMs: number): NetError {
    const reason = `no connection within ${timeoutMs} ms: ${this.situation()}`
    return this.error('ERR_DEADLINE_EXCEEDED', reason, true)
  }

  private upstreamError(): NetError {
    return this.error('ERR_POOL_UPSTREAM', 'no address can be reached')
  }

  private situation(): string {
    const { counts, members } = this.supply
    return `${counts.busy} of ${members.size} connections in use, ${counts.dialing} being dialed, at most ${this.plan.maxTotal}`
  }
}

function nameOf(upstream: PoolPlan['upstreams'][number]): string {
  return upstream.kind === 'path' ? printablePath(upstream.path) : joinHostPort(upstream.host, upstream.port)
}
