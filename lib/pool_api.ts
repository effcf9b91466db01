// Pools: the interfaces, with their contracts. The class behind them is in pool.ts; docs/pool.md tells the whole story.

import type { LookupFn, Resolver } from './names.js'
import type { Conn, ConnOptions } from './net.js'

/** Where connections go: a host, all of whose addresses are used, or a Unix socket. */
export type Upstream = { host: string; port: number } | { path: string }

/** What a balance function may look at. A connection is `busy` while somebody holds it or it is being validated. */
export interface BalanceCandidate {
  /** '127.0.0.1:7000', '[::1]:7000' or a path. */
  readonly name: string
  readonly busyCount: number
  readonly idleCount: number
  readonly dialingCount: number
}

/** Chooses one of at least two candidates, all of which may be used. Must not keep the array, call the pool, or throw. */
export type BalanceFn = (candidates: readonly BalanceCandidate[]) => BalanceCandidate

/**
 * `round-robin`: each address in turn. `least-connections`: the one with the fewest busy connections, in turn among
 * equals. `p2c`: the less busy one of two that are drawn at random.
 */
export type Balance = 'round-robin' | 'least-connections' | 'p2c' | BalanceFn

/** Options of the connections themselves are those of dial(). idleTimeoutMs is the pool's. */
export interface PoolOptions extends Omit<ConnOptions, 'idleTimeoutMs'> {
  /** An IP address or a name, all of whose addresses are used. Default 'localhost'. */
  host?: string
  /** 1 to 65,535. */
  port?: number
  /** A Unix socket instead of host and port. */
  path?: string
  /** Several upstreams instead of one. */
  upstreams?: readonly Upstream[]

  /** The most connections there may be, those being dialed or closed included. Default 10. */
  maxTotal?: number
  /** The most of them to one address. Default maxTotal. */
  maxPerAddress?: number
  /** So many idle connections are kept ready, from the start. At most maxTotal. Default 0. */
  minIdle?: number
  /** The most calls of acquire() that may wait; the next one fails with ERR_POOL_FULL. Default 1,000. */
  maxWaiters?: number
  /** acquire() waits for so long at most, milliseconds; 0: without end. Default 5,000. */
  acquireTimeoutMs?: number
  /** An address's time to accept a connection, milliseconds. Default 3,000. */
  dialTimeoutMs?: number
  /** A connection that nobody has used for so long is closed, unless minIdle needs it, milliseconds; 0: never. Default
   *  60,000. */
  idleTimeoutMs?: number
  /** A connection is closed so long after it was opened, less up to a tenth by chance, milliseconds; 0: never. In use,
   *  it is closed when it comes back. Default 1,800,000. */
  maxLifetimeMs?: number
  /** A name is looked up again after so long at the latest, milliseconds; earlier if its answer expires. Default 30,000. */
  dnsTtlMs?: number
  /** Finds the addresses of names. Default: the thread's own resolver, as for dial(). */
  resolver?: Resolver
  /** Looks names up instead of a resolver. Not together with `resolver`. */
  lookup?: LookupFn

  /**
   * Says whether a connection still works: false, or a rejection, and it is closed. It may write and read, but must
   * leave nothing unread. Asked before a connection is handed out that has been idle for validateAfterMs, and of idle
   * ones every validateEveryMs.
   */
  validate?: (conn: Conn) => boolean | Promise<boolean>
  /** Milliseconds; 0: always. Default 500. */
  validateAfterMs?: number
  /** Milliseconds; 0: never. Default 30,000. */
  validateEveryMs?: number
  /** A validation's time, milliseconds; then it has failed. Default 1,000. */
  validateTimeoutMs?: number

  /** A connection that is held for so long is reported, once, with the stack that took it, milliseconds; 0: off, which
   *  is the default, because taking the stack costs a few microseconds at each acquire(). */
  leakDetectionMs?: number

  /** How addresses take turns. Default 'least-connections'. */
  balance?: Balance
  /** So many failures in a row open an address's circuit breaker. Default 5. */
  breakerFailures?: number
  /** The pause after an address's first failure, milliseconds; it doubles with each further one, and of each pause up to
   *  a half is left out by chance. Default 100. */
  backoffMs?: number
  /** The longest pause, milliseconds. Default 10,000. */
  backoffMaxMs?: number

  /** The local IP address to use. */
  localAddress?: string
  /** TCP Fast Open; see DialOptions. */
  fastOpen?: boolean
}

export interface AcquireOptions {
  /** Stops waiting, with its reason. */
  signal?: AbortSignal
  /** Instead of the pool's acquireTimeoutMs. */
  timeoutMs?: number
}

/** The right to use one connection, until it is given back: exactly once, by any of the three ways. */
export interface Lease extends AsyncDisposable {
  /** The connection. Throws ERR_POOL_RELEASED once the lease is over. Do not keep it beyond that. */
  readonly conn: Conn
  /** The address that it leads to, as in BalanceCandidate. */
  readonly upstream: string
  /**
   * Gives the connection back. Where something of this use is left (bytes unread or unsent, a read that waits, a side
   * that is closed), it is closed instead, after what is queued. Throws ERR_POOL_RELEASED the second time.
   */
  release(): void
  /** Gives it back to be closed at once: its state is unknown. With an error, the address has failed once; see
   *  `breakerFailures`. Throws ERR_POOL_RELEASED the second time. */
  discard(error?: Error): void
  /** release(), unless the lease is over already. */
  [Symbol.asyncDispose](): Promise<void>
}

/** Counters, which only grow, but for those of the first group. */
export interface PoolStats {
  /** Connections: all; idle; held by somebody; being dialed, validated, closed. The first is the sum of the others. */
  total: number
  idle: number
  busy: number
  dialing: number
  validating: number
  closing: number
  /** Calls of acquire() that wait. */
  waiting: number

  /** Connections handed out, and those of them at once, without waiting. */
  acquired: number
  acquiredAtOnce: number
  /** Connections given back. */
  released: number
  /** Calls of acquire() that failed: by their time, by their signal, because of maxWaiters, for want of an upstream. */
  timeouts: number
  aborts: number
  refusals: number
  upstreamFailures: number
  dials: number
  dialFailures: number
  validations: number
  validationFailures: number
  /** Connections closed: idle for too long; too old; their address has left DNS; to make room in a full pool for an
   *  address that has fewer; bytes, FIN or an error came while they were idle; not fit for a next use when they were given
   *  back; discard(). */
  expiredIdle: number
  expiredAge: number
  departed: number
  moved: number
  stirred: number
  unfit: number
  discarded: number
  /** Look-ups of names, and those that failed. */
  lookups: number
  lookupFailures: number
  /** Circuit breakers that opened. */
  breakerOpenings: number
  /** Leases reported by leakDetectionMs. */
  leakSuspects: number
  /** Calls of a balance function that threw or chose what was no candidate; the first candidate was taken. */
  balanceFailures: number
}

/** `closed`: used. `open`: not dialed until its pause is over. `half-open`: one dial decides which of both it will be. */
export type BreakerState = 'closed' | 'open' | 'half-open'

export interface AddressSnapshot extends BalanceCandidate {
  /** It is no longer among the addresses of its name: its connections are closed as they come back. */
  leaving: boolean
  breaker: BreakerState
  /** Failures in a row. */
  failures: number
  /** Milliseconds until it is dialed again. */
  pauseMs: number
  /** The last failure, if there was one since the last success. */
  lastError: Error | undefined
}

export interface PoolSnapshot {
  stats: PoolStats
  addresses: AddressSnapshot[]
  /** Age, and time in the present state, of each connection. */
  connections: { upstream: string; state: string; ageMs: number; sinceMs: number }[]
}

/** Connections to one or several upstreams, lent one by one. */
export interface Pool extends AsyncDisposable {
  /**
   * Lends a connection: an idle one at once, otherwise the first that comes back or is dialed. Who came first is served
   * first. Rejects with a NetError (`op: 'acquire'`): ERR_DEADLINE_EXCEEDED after its time, ERR_POOL_FULL beyond
   * maxWaiters, ERR_POOL_UPSTREAM when no address can be reached, ERR_POOL_CLOSED after drain(); the last upstream's
   * error is its `cause`. Or with the signal's reason.
   */
  acquire(options?: AcquireOptions): Promise<Lease>
  /** An idle connection, or undefined if that needs waiting. */
  tryAcquire(): Lease | undefined
  /** lease.release(). Throws ERR_POOL_FOREIGN for what this pool has not lent. */
  release(lease: Lease): void
  /** Lends a connection to `fn` until its promise settles. If it throws, the connection is closed, not reused. */
  use<T>(fn: (conn: Conn, lease: Lease) => Promise<T> | T, options?: AcquireOptions): Promise<T>
  /** Resolves when minIdle connections are idle. Rejects as acquire() does. */
  warmUp(): Promise<void>
  /**
   * Lends nothing more: waiting calls fail with ERR_POOL_CLOSED, idle connections are closed, those in use when they come
   * back. Resolves when there are none. After timeoutMs those still in use are aborted; 0, the default: never. Safe to
   * call again.
   */
  drain(options?: { timeoutMs?: number }): Promise<void>
  /** Cheap enough to read every second. */
  stats(): PoolStats
  snapshot(): PoolSnapshot
  /** drain(). */
  [Symbol.asyncDispose](): Promise<void>
}
