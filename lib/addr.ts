// Checking what callers pass, before anything is opened: option names and types, ports, paths.

import { isIP } from 'node:net'
import { invalidArgument, NetError, type Op } from './errors.js'
import type { LookupFn, Resolver } from './names.js'
import type { ConnOptions, DialOptions, LeakDetection, ListenOptions, Overflow } from './net.js'

/** sun_path less its terminating zero: 107 bytes on Linux, 103 on macOS (unix(7)). */
const UnixPathBytesMax = process.platform === 'darwin' ? 103 : 107
const AbstractNameBytesMax = UnixPathBytesMax + 1

const HighWaterMarkDefault = 64 * 1024
const MaxBufferedBytesDefault = 16 * 1024 * 1024
const LingerMsDefault = 10_000
const BytesMax = 2 ** 31 - 1
/** Timeouts up to 24.8 days, as setTimeout has them. */
export const TimeoutMsMax = 2 ** 31 - 1

/** ConnOptions with every default filled in. */
export interface ConnSettings {
  noDelay: boolean
  highWaterMark: number
  lowWaterMark: number
  maxBufferedBytes: number
  overflow: Overflow
  idleTimeoutMs: number
  lingerMs: number
}

/** Where to listen or dial. */
export type Place =
  | { kind: 'host'; host: string | undefined; port: number }
  | { kind: 'path'; path: string }
  | { kind: 'fd'; fd: number }

/** What a connection can be told, but for idleTimeoutMs: a pool takes these, and has an idle timeout of its own. */
export const connKeys = [
  'noDelay',
  'highWaterMark',
  'lowWaterMark',
  'maxBufferedBytes',
  'overflow',
  'lingerMs',
] as const satisfies readonly Exclude<keyof ConnOptions, 'idleTimeoutMs'>[]
const openKeys = [
  ...connKeys,
  'idleTimeoutMs',
  'signal',
  'host',
  'port',
  'path',
] as const satisfies readonly (keyof ListenOptions & keyof DialOptions)[]
const listenKeys: readonly string[] = [
  ...openKeys,
  'fd',
  'backlog',
  'ipv6Only',
  'reusePort',
  'leakDetection',
  'onError',
] satisfies readonly (keyof ListenOptions)[]
const dialKeys: readonly string[] = [
  ...openKeys,
  'localAddress',
  'localPort',
  'family',
  'timeoutMs',
  'attemptTimeoutMs',
  'attemptDelayMs',
  'fastOpen',
  'resolver',
  'lookup',
] satisfies readonly (keyof DialOptions)[]

/** Options whose names have been checked. */
export type Bag = Record<string, unknown>

export function checkKeys(op: Op, options: unknown, keys: readonly string[]): Bag {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw invalidArgument(op, 'the options must be an object', options)
  }
  for (const key of Object.keys(options)) {
    if (keys.includes(key)) continue
    throw new NetError('ERR_INVALID_ARG', { op }, `unknown option '${key}'; known are ${keys.join(', ')}`, {
      value: key,
    })
  }
  return options as Bag
}

export function checkInteger(op: Op, name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw invalidArgument(op, `${name} must be an integer from ${min} to ${max}`, value)
}

export function integer(op: Op, options: Bag, name: string, fallback: number, min: number, max: number): number {
  const value = options[name]
  return value === undefined ? fallback : checkInteger(op, name, value, min, max)
}

export function flag(op: Op, options: Bag, name: string, fallback: boolean): boolean {
  const value = options[name]
  if (value === undefined) return fallback
  if (typeof value === 'boolean') return value
  throw invalidArgument(op, `${name} must be true or false`, value)
}

export function connSettings(op: Op, options: Bag): ConnSettings {
  const highWaterMark = integer(op, options, 'highWaterMark', HighWaterMarkDefault, 0, BytesMax)
  const lowDefault = Math.floor(highWaterMark / 2)
  const maxDefault = Math.max(MaxBufferedBytesDefault, highWaterMark)
  const overflow = options.overflow ?? 'abort'
  if (overflow !== 'abort' && overflow !== 'throw' && overflow !== 'drop') {
    throw invalidArgument(op, "overflow must be 'abort', 'throw' or 'drop'", overflow)
  }
  return {
    noDelay: flag(op, options, 'noDelay', true),
    highWaterMark,
    lowWaterMark: integer(op, options, 'lowWaterMark', lowDefault, 0, highWaterMark),
    maxBufferedBytes: integer(op, options, 'maxBufferedBytes', maxDefault, highWaterMark, BytesMax),
    overflow,
    idleTimeoutMs: integer(op, options, 'idleTimeoutMs', 0, 0, TimeoutMsMax),
    lingerMs: integer(op, options, 'lingerMs', LingerMsDefault, 0, TimeoutMsMax),
  }
}

function checkPath(op: Op, path: unknown): string {
  if (typeof path !== 'string' || path === '') throw invalidArgument(op, 'path must be a non-empty string', path)
  const bytes = Buffer.byteLength(path)
  if (path.startsWith('\0')) {
    if (process.platform !== 'linux') throw invalidArgument(op, 'abstract sockets exist on Linux only', path)
    if (bytes <= AbstractNameBytesMax) return path
    throw invalidArgument(op, `an abstract name has at most ${AbstractNameBytesMax - 1} bytes`, path)
  }
  if (path.includes('\0')) throw invalidArgument(op, 'path must not contain a zero byte', path)
  if (bytes <= UnixPathBytesMax) return path
  throw new NetError('ENAMETOOLONG', { op, network: 'unix' }, `a socket path has at most ${UnixPathBytesMax} bytes`, {
    value: path,
  })
}

export function checkHost(op: Op, name: string, host: unknown): string | undefined {
  if (host === undefined) return undefined
  if (typeof host === 'string' && host !== '' && !host.includes('\0')) return host
  throw invalidArgument(op, `${name} must be a non-empty string`, host)
}

export function place(op: Op, options: Bag, portMin: number): Place {
  const given = ['path', 'fd'].filter((key) => options[key] !== undefined)
  const hostGiven = options.host !== undefined || options.port !== undefined
  if (given.length > 1 || (given.length === 1 && hostGiven)) {
    throw invalidArgument(op, 'give either host and port, or path, or fd', options)
  }
  if (options.path !== undefined) return { kind: 'path', path: checkPath(op, options.path) }
  if (options.fd !== undefined) return { kind: 'fd', fd: checkInteger(op, 'fd', options.fd, 0, BytesMax) }
  if (options.port === undefined) throw invalidArgument(op, 'port or path is missing', options.port)
  const host = checkHost(op, 'host', options.host)
  return { kind: 'host', host, port: checkInteger(op, 'port', options.port, portMin, 65_535) }
}

export function checkSignal(op: Op, signal: unknown): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal
  throw invalidArgument(op, 'signal must be an AbortSignal', signal)
}

const LeakOpenMsMin = 10

function leakDetection(value: unknown): LeakDetection | undefined {
  if (value === undefined) return undefined
  const options = checkKeys('listen', value, ['openMs'])
  return { openMs: checkInteger('listen', 'leakDetection.openMs', options.openMs, LeakOpenMsMin, TimeoutMsMax) }
}

export interface ListenPlan {
  place: Place
  settings: ConnSettings
  backlog: number
  ipv6Only: boolean
  reusePort: boolean
  signal: AbortSignal | undefined
  leakDetection: LeakDetection | undefined
  onError: ListenOptions['onError']
}

export function planListen(given: ListenOptions): ListenPlan {
  const options = checkKeys('listen', given, listenKeys)
  const { onError } = options
  if (onError !== undefined && typeof onError !== 'function') {
    throw invalidArgument('listen', 'onError must be a function', onError)
  }
  return {
    place: place('listen', options, 0),
    settings: connSettings('listen', options),
    backlog: integer('listen', options, 'backlog', 0, 0, BytesMax),
    ipv6Only: flag('listen', options, 'ipv6Only', false),
    reusePort: flag('listen', options, 'reusePort', false),
    signal: checkSignal('listen', options.signal),
    leakDetection: leakDetection(options.leakDetection),
    onError: onError as ListenOptions['onError'],
  }
}

/** RFC 8305, 5: less than 10 ms would try everything at once. */
const AttemptDelayMsMin = 10
const AttemptDelayMsMax = 60_000
/** The delay that RFC 8305, 5 recommends. */
const AttemptDelayMsDefault = 250

export type DialPlace = Exclude<Place, { kind: 'fd' }>

export interface DialPlan {
  place: DialPlace
  settings: ConnSettings
  localAddress: string | undefined
  localPort: number
  /** The only family to try, as `family` and `localAddress` say; 0: both. */
  family: 0 | 4 | 6
  timeoutMs: number
  attemptTimeoutMs: number
  attemptDelayMs: number
  fastOpen: boolean
  resolver: Resolver | undefined
  lookup: LookupFn | undefined
  signal: AbortSignal | undefined
}

export function planDial(given: DialOptions): DialPlan {
  const options = checkKeys('dial', given, dialKeys)
  const localAddress = checkHost('dial', 'localAddress', options.localAddress)
  if (localAddress !== undefined && isIP(localAddress) === 0) {
    throw invalidArgument('dial', 'localAddress must be an IP address', localAddress)
  }
  const localPort = integer('dial', options, 'localPort', 0, 0, 65_535)
  // `fd` is not among the known options here.
  const where = place('dial', options, 1) as DialPlace
  if (where.kind === 'path' && (localAddress !== undefined || localPort !== 0)) {
    throw invalidArgument('dial', 'a Unix socket has no localAddress and localPort', localAddress ?? localPort)
  }
  return {
    place: where,
    settings: connSettings('dial', options),
    localAddress,
    localPort,
    family: dialFamily(options.family, localAddress),
    timeoutMs: integer('dial', options, 'timeoutMs', 0, 0, TimeoutMsMax),
    attemptTimeoutMs: integer('dial', options, 'attemptTimeoutMs', 0, 0, TimeoutMsMax),
    attemptDelayMs: integer(
      'dial',
      options,
      'attemptDelayMs',
      AttemptDelayMsDefault,
      AttemptDelayMsMin,
      AttemptDelayMsMax,
    ),
    fastOpen: flag('dial', options, 'fastOpen', false),
    ...nameSource(options),
    signal: checkSignal('dial', options.signal),
  }
}

function dialFamily(family: unknown, localAddress: string | undefined): 0 | 4 | 6 {
  if (family !== undefined && family !== 0 && family !== 4 && family !== 6) {
    throw invalidArgument('dial', 'family must be 0, 4 or 6', family)
  }
  const local = localAddress === undefined ? 0 : (isIP(localAddress) as 4 | 6)
  if (local !== 0 && family && family !== local) {
    throw invalidArgument('dial', `localAddress is not of family ${family}`, localAddress)
  }
  return local || family || 0
}

function nameSource({ resolver, lookup }: Bag): Pick<DialPlan, 'resolver' | 'lookup'> {
  if (lookup !== undefined && typeof lookup !== 'function') {
    throw invalidArgument('dial', 'lookup must be a function', lookup)
  }
  if (resolver !== undefined && typeof (resolver as Partial<Resolver> | null)?.resolve !== 'function') {
    throw invalidArgument('dial', 'resolver must be an object with resolve(), as createResolver() makes it', resolver)
  }
  if (lookup !== undefined && resolver !== undefined) {
    throw invalidArgument('dial', 'give either resolver or lookup', lookup)
  }
  return { resolver: resolver as Resolver | undefined, lookup: lookup as LookupFn | undefined }
}

/** 'host:port' as the error messages have it. */
export function joinHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** A path as messages show it: an abstract name with '@', as ss(8) and Go do. */
export function printablePath(path: string): string {
  return path.replaceAll('\0', '@')
}
