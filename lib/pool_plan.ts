// Checking what createPool() and acquire() are given, before anything is opened, and the defaults. docs/pool.md has the
// reasons for each.

import { isIP } from 'node:net'
import {
  type Bag,
  checkHost,
  checkInteger,
  checkKeys,
  connKeys,
  connSettings,
  flag,
  integer,
  place,
  TimeoutMsMax,
} from './addr.js'
import { balanceNames } from './balancer.js'
import { invalidArgument } from './errors.js'
import { literalFamily, readHost } from './host_name.js'
import type { LookupFn, Resolver } from './names.js'
import type { DialOptions } from './net.js'
import type { AcquireOptions, Balance, PoolOptions } from './pool_api.js'

const ConnsMax = 1_000_000
const BackoffMsMin = 1
const LeakDetectionMsMin = 10
const UpkeepMsMin = 5
const UpkeepMsMax = 1_000

/** One upstream: a name to look up, or an address as it is. */
export type PlannedUpstream =
  | { kind: 'name'; host: string; port: number }
  | { kind: 'address'; host: string; port: number }
  | { kind: 'path'; path: string }

/** PoolOptions with every default filled in. */
export interface PoolPlan {
  upstreams: readonly PlannedUpstream[]
  maxTotal: number
  maxPerAddress: number
  minIdle: number
  maxWaiters: number
  acquireTimeoutMs: number
  idleTimeoutMs: number
  maxLifetimeMs: number
  dnsTtlMs: number
  resolver: Resolver | undefined
  lookup: LookupFn | undefined
  validate: PoolOptions['validate']
  validateAfterMs: number
  validateEveryMs: number
  validateTimeoutMs: number
  leakDetectionMs: number
  balance: Balance
  breakerFailures: number
  backoffMs: number
  backoffMaxMs: number
  /** For each dial, whatever the address. */
  dial: Omit<DialOptions, 'host' | 'port' | 'path'>
}

const poolKeys: readonly string[] = [
  ...connKeys,
  'host',
  'port',
  'path',
  'upstreams',
  'maxTotal',
  'maxPerAddress',
  'minIdle',
  'maxWaiters',
  'acquireTimeoutMs',
  'dialTimeoutMs',
  'idleTimeoutMs',
  'maxLifetimeMs',
  'dnsTtlMs',
  'resolver',
  'lookup',
  'validate',
  'validateAfterMs',
  'validateEveryMs',
  'validateTimeoutMs',
  'leakDetectionMs',
  'balance',
  'breakerFailures',
  'backoffMs',
  'backoffMaxMs',
  'localAddress',
  'fastOpen',
] satisfies readonly (keyof PoolOptions)[]

export function planPool(given: PoolOptions): PoolPlan {
  const options = checkKeys('pool', given, poolKeys)
  const milliseconds = (name: keyof PoolOptions, fallback: number, min = 0): number =>
    integer('pool', options, name, fallback, min, TimeoutMsMax)
  const maxTotal = integer('pool', options, 'maxTotal', 10, 1, ConnsMax)
  const backoffMs = milliseconds('backoffMs', 100, BackoffMsMin)
  const leakDetectionMs = milliseconds('leakDetectionMs', 0)
  if (leakDetectionMs > 0) checkInteger('pool', 'leakDetectionMs', leakDetectionMs, LeakDetectionMsMin, TimeoutMsMax)
  return {
    upstreams: checkNames(upstreamsOf(options), options.resolver),
    maxTotal,
    maxPerAddress: integer('pool', options, 'maxPerAddress', maxTotal, 1, ConnsMax),
    minIdle: integer('pool', options, 'minIdle', 0, 0, maxTotal),
    maxWaiters: integer('pool', options, 'maxWaiters', 1_000, 0, ConnsMax),
    acquireTimeoutMs: milliseconds('acquireTimeoutMs', 5_000),
    idleTimeoutMs: milliseconds('idleTimeoutMs', 60_000),
    maxLifetimeMs: milliseconds('maxLifetimeMs', 1_800_000),
    dnsTtlMs: milliseconds('dnsTtlMs', 30_000, 1),
    ...lookups(options),
    validate: functionIn(options, 'validate'),
    validateAfterMs: milliseconds('validateAfterMs', 500),
    validateEveryMs: milliseconds('validateEveryMs', 30_000),
    validateTimeoutMs: milliseconds('validateTimeoutMs', 1_000, 1),
    leakDetectionMs,
    balance: balanceOf(options.balance),
    breakerFailures: integer('pool', options, 'breakerFailures', 5, 1, ConnsMax),
    backoffMs,
    backoffMaxMs: milliseconds('backoffMaxMs', Math.max(10_000, backoffMs), backoffMs),
    dial: dialOptions(options),
  }
}

function upstreamsOf(options: Bag): PlannedUpstream[] {
  const { upstreams } = options
  if (upstreams === undefined) return [upstreamOf(options)]
  if (['host', 'port', 'path'].some((key) => options[key] !== undefined)) {
    throw invalidArgument('pool', 'give either host and port, or path, or upstreams', options)
  }
  if (!Array.isArray(upstreams) || upstreams.length === 0) {
    throw invalidArgument('pool', 'upstreams must be an array with at least one upstream', upstreams)
  }
  return upstreams.map((upstream: unknown) => upstreamOf(checkKeys('pool', upstream, ['host', 'port', 'path'])))
}

/** Those of a resolver of the caller's may be of other forms. */
function checkNames(upstreams: PlannedUpstream[], resolver: unknown): PlannedUpstream[] {
  if (resolver !== undefined) return upstreams
  for (const upstream of upstreams) if (upstream.kind === 'name') readHost(upstream.host, 'pool')
  return upstreams
}

function upstreamOf(options: Bag): PlannedUpstream {
  const { host: given, port, path } = options
  const where = place('pool', { host: given, port, path }, 1)
  if (where.kind === 'path') return where
  if (where.kind === 'fd') throw invalidArgument('pool', 'a pool has no fd', where.fd)
  const host = where.host ?? 'localhost'
  return { kind: literalFamily(host) !== 0 ? 'address' : 'name', host, port: where.port }
}

function lookups(options: Bag): { resolver: Resolver | undefined; lookup: LookupFn | undefined } {
  const { resolver } = options
  const lookup = functionIn<LookupFn>(options, 'lookup')
  if (resolver === undefined) return { resolver: undefined, lookup }
  if (lookup !== undefined) throw invalidArgument('pool', 'give either resolver or lookup', resolver)
  if (typeof resolver === 'object' && resolver !== null && 'resolve' in resolver) {
    if (typeof resolver.resolve === 'function') return { resolver: resolver as Resolver, lookup }
  }
  throw invalidArgument('pool', 'resolver must have a resolve() function', resolver)
}

function functionIn<T>(options: Bag, name: keyof PoolOptions): T | undefined {
  const value = options[name]
  if (value === undefined || typeof value === 'function') return value as T | undefined
  throw invalidArgument('pool', `${name} must be a function`, value)
}

function balanceOf(value: unknown): Balance {
  if (value === undefined) return 'least-connections'
  if (typeof value === 'function' || balanceNames.includes(value as string)) return value as Balance
  throw invalidArgument('pool', `balance must be a function or one of ${balanceNames.join(', ')}`, value)
}

function dialOptions(options: Bag): PoolPlan['dial'] {
  // The names and ranges are those of any connection; only what was given is handed on.
  connSettings('pool', options)
  const localAddress = checkHost('pool', 'localAddress', options.localAddress)
  if (localAddress !== undefined && isIP(localAddress) === 0) {
    throw invalidArgument('pool', 'localAddress must be an IP address', localAddress)
  }
  const dial: Bag = { timeoutMs: integer('pool', options, 'dialTimeoutMs', 3_000, 1, TimeoutMsMax) }
  for (const name of connKeys) if (options[name] !== undefined) dial[name] = options[name]
  if (localAddress !== undefined) dial.localAddress = localAddress
  if (flag('pool', options, 'fastOpen', false)) dial.fastOpen = true
  return dial
}

const acquireKeys: readonly string[] = ['signal', 'timeoutMs'] satisfies readonly (keyof AcquireOptions)[]

/** The signal and the time of one acquire(). */
export function planAcquire(given: AcquireOptions, timeoutMs: number): { signal?: AbortSignal; timeoutMs: number } {
  const options = checkKeys('acquire', given, acquireKeys)
  const { signal } = options
  const plan = { timeoutMs: integer('acquire', options, 'timeoutMs', timeoutMs, 0, TimeoutMsMax) }
  if (signal === undefined) return plan
  if (signal instanceof AbortSignal) return { ...plan, signal }
  throw invalidArgument('acquire', 'signal must be an AbortSignal', signal)
}

/** The time that those in use are given. */
export function planDrain(given: { timeoutMs?: number }): number {
  return integer('pool', checkKeys('pool', given, ['timeoutMs']), 'timeoutMs', 0, 0, TimeoutMsMax)
}

/** Often enough that no period is overrun by more than a quarter, or a second. */
export function upkeepPeriod(plan: PoolPlan, hasNames: boolean): number {
  const periods = [plan.idleTimeoutMs, plan.maxLifetimeMs, plan.leakDetectionMs]
  if (plan.validate !== undefined) periods.push(plan.validateEveryMs)
  if (hasNames) periods.push(plan.dnsTtlMs)
  const shortest = Math.min(...periods.filter((ms) => ms > 0), UpkeepMsMax * 4)
  return Math.max(UpkeepMsMin, Math.floor(shortest / 4))
}
