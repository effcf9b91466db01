// dial(): one outgoing connection. dial_race.ts decides which address is tried when; here are the names, the sockets,
// the deadline, and what is said when nothing came of it.

import { AsyncResource } from 'node:async_hooks'
import { isIP } from 'node:net'
import * as abi from './abi.js'
import { type ConnSettings, type DialPlan, joinHostPort, planDial, printablePath } from './addr.js'
import { StreamConn } from './conn.js'
import type { ConnOwner, Keeper } from './conn_core.js'
import { dialError, timeoutError } from './dial_error.js'
import { DialRace, type Family, type Outcome } from './dial_race.js'
import { type ErrorPlace, NetError, systemError } from './errors.js'
import { describeResolution, graverCode, literalFamily, literalsOf, readHost } from './host_name.js'
import { checkServe } from './listener.js'
import { type Loop, loop } from './loop.js'
import type { Resolver } from './names.js'
import type { Conn, DialOptions, Handlers } from './net.js'
import { defaultResolver, resolverOfLookup } from './resolver.js'

/** An address to try. */
interface Target {
  kind: number
  name: string
  port: number
}

const HostDefault = 'localhost'

const timers = {
  set: (callback: () => void, ms: number): NodeJS.Timeout => setTimeout(callback, ms),
  clear: (timer: unknown): void => clearTimeout(timer as NodeJS.Timeout),
}

/**
 * Connects. With `handlers` the connection is served by events, otherwise it is read by read() or iteration. The
 * addresses of a name are raced as RFC 8305 (Happy Eyeballs) has it: IPv6 and IPv4 in turn, the next one after
 * `attemptDelayMs` or as soon as one has failed; the first that connects wins, and the others are aborted.
 *
 * Rejects with a NetError (`op: 'dial'`): ERR_INVALID_ARG before anything is opened, the system's code
 * ('ECONNREFUSED', 'ENOENT', ...), the resolver's ('ENOTFOUND', 'ETIMEOUT', ...), ERR_DEADLINE_EXCEEDED after
 * `timeoutMs`, or with the signal's reason. When several addresses were tried, `errors` says what became of each, and
 * `code` is the one that they share; if they differ, that of the first that was not for want of a way from here
 * (ENETUNREACH and the like).
 */
export async function dial(options: DialOptions, handlers?: Handlers): Promise<Conn> {
  const style = checkServe('dial', handlers)
  const plan = planDial(options)
  plan.signal?.throwIfAborted()
  const context = handlers === undefined ? undefined : new AsyncResource('EDGEWIRE_DIAL')
  return new Dialing(plan, loop(), context, style.handlers).run()
}

/** One dial() until it is decided, then the owner of its connection. */
class Dialing implements ConnOwner {
  readonly settings: ConnSettings
  readonly listener = undefined
  keeper: Keeper | undefined = undefined
  overflowAborts = 0
  overflowDrops = 0
  private readonly race: DialRace<Target, Conn, NetError>
  /** What the race waits to be told of each connection that is on its way. */
  private readonly outcomes = new Map<Conn, Outcome<Conn, NetError>>()
  /** Ends the waiting for names. Made for names only: it is dear, and most dials of a pool are to addresses. */
  private lookups: AbortController | undefined
  /** For `lookup`: this call's own. */
  private ownResolver: Resolver | undefined
  /** Of a resolver of the caller's they may be anything. */
  private readonly nameErrors: unknown[] = []
  private decided = false
  private resolve!: (conn: Conn) => void
  private reject!: (error: unknown) => void

  constructor(
    private readonly plan: DialPlan,
    private readonly loop: Loop,
    readonly context: AsyncResource | undefined,
    readonly handlers: Handlers | undefined,
  ) {
    this.settings = plan.settings
    const { attemptDelayMs, attemptTimeoutMs } = plan
    this.race = new DialRace(
      {
        attemptDelayMs,
        attemptTimeoutMs,
        timers,
        start: (target, outcome) => this.attempt(target, outcome),
        timedOut: (target) => timeoutError(placeOf(target), attemptTimeoutMs),
        won: (conn) => this.decide(() => this.resolve(conn)),
        lost: () => this.fail(this.whyLost()),
      },
      familiesOf(plan),
    )
  }

  run(): Promise<Conn> {
    const { signal, timeoutMs } = this.plan
    const onAbort = (): void => this.fail(signal?.reason)
    const timer = timeoutMs > 0 ? setTimeout(() => this.fail(this.deadlineError()), timeoutMs) : undefined
    signal?.addEventListener('abort', onAbort, { once: true })
    const result = new Promise<Conn>((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
      this.findTargets()
    })
    return result.finally(() => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    })
  }

  // ---- what to try -------------------------------------------------------------------------------------------------

  private findTargets(): void {
    const { place, family, localAddress } = this.plan
    if (place.kind === 'path') {
      this.race.answer(4, [{ kind: abi.NamePath, name: place.path, port: 0 }])
      return
    }
    const { host = HostDefault, port } = place
    const literal = literalFamily(host)
    if (literal === 0) {
      this.resolveName(host)
    } else if (family !== 0 && family !== literal && localAddress === undefined) {
      throw new NetError('ERR_INVALID_ARG', { op: 'dial' }, `host must be IPv${family}, got ${host}`, { value: host })
    } else {
      this.race.answer(4, [{ kind: abi.NameIp, name: host, port }])
    }
  }

  /** Each family by itself, so that one can be tried while the other is still asked for. */
  private resolveName(host: string): void {
    const { resolver, lookup } = this.plan
    // A resolver of the caller's may know names of other forms.
    if (resolver === undefined) readHost(host, 'dial')
    if (lookup !== undefined) this.ownResolver = resolverOfLookup(lookup)
    const lookups = new AbortController()
    this.lookups = lookups
    const names = resolver ?? this.ownResolver ?? defaultResolver()
    for (const family of familiesOf(this.plan)) {
      this.resolveFamily(names, host, family, lookups.signal).then(
        (targets) => this.race.answer(family, targets),
        (error: unknown) => {
          this.nameErrors.push(error)
          this.race.answer(family, [])
        },
      )
    }
  }

  private async resolveFamily(names: Resolver, host: string, family: Family, signal: AbortSignal): Promise<Target[]> {
    const { port } = this.plan.place as { port: number }
    const { addresses } = await names.resolve(host, { family, signal })
    return literalsOf(addresses).map((name) => ({ kind: abi.NameIp, name, port }))
  }

  // ---- trying ------------------------------------------------------------------------------------------------------

  private attempt(target: Target, outcome: Outcome<Conn, NetError>): () => void {
    const { loop, plan, settings } = this
    const flags = (settings.noDelay ? abi.OpenNoDelay : 0) | (plan.fastOpen ? abi.OpenFastOpen : 0)
    // Without an address of its own but with a port, the family's unspecified address.
    const local = plan.localAddress ?? (plan.localPort > 0 ? (isIP(target.name) === 6 ? '::' : '0.0.0.0') : undefined)
    const { kind, name, port } = target
    const index = loop.native.dial(kind, name, port, local, plan.localPort, flags, settings.lowWaterMark)
    // The tables may have grown even for a dial that failed.
    loop.refreshTables()
    if (index < 0) {
      outcome.failed(systemError(index, placeOf(target)))
      return () => {}
    }
    const conn = new StreamConn(loop, index, this, true)
    this.outcomes.set(conn, outcome)
    return () => {
      this.outcomes.delete(conn)
      conn.abort()
    }
  }

  connConnected(conn: Conn): void {
    const outcome = this.outcomes.get(conn)
    this.outcomes.delete(conn)
    outcome?.won(conn)
  }

  connClosed(conn: Conn, error: NetError | undefined): void {
    const outcome = this.outcomes.get(conn)
    this.outcomes.delete(conn)
    this.loop.scope.leave(this.context)
    outcome?.failed(error ?? new NetError('ERR_CONN_CLOSED', { op: 'dial' }, 'the connection was closed'))
  }

  handlerFailed(_conn: Conn, error: unknown): void {
    process.nextTick(() => {
      throw error
    })
  }

  // ---- the end -----------------------------------------------------------------------------------------------------

  private decide(settle: () => void): void {
    if (this.decided) return
    this.decided = true
    settle()
    this.lookups?.abort()
    this.ownResolver?.close()
  }

  private fail(error: unknown): void {
    this.decide(() => {
      this.race.giveUp()
      this.reject(error)
    })
  }

  private whyLost(): NetError {
    const tried = this.race.tried().map(({ failure }) => failure as NetError)
    if (tried.length > 0) return dialError(this.place(), tried)
    const code = graverCode(this.nameErrors.map(codeOf))
    const cause = this.nameErrors.find((error) => codeOf(error) === code)
    return new NetError(code, this.place(), describeResolution(code), { cause, timeout: code === 'ETIMEOUT' })
  }

  private deadlineError(): NetError {
    const { timeoutMs } = this.plan
    const tried = this.race.tried().map(({ target, failure }) => failure ?? timeoutError(placeOf(target), undefined))
    return timeoutError(this.place(), timeoutMs, tried)
  }

  private place(): ErrorPlace {
    const { place } = this.plan
    if (place.kind === 'path') return { op: 'dial', network: 'unix', remote: printablePath(place.path) }
    const { host = HostDefault, port } = place
    return { op: 'dial', network: 'tcp', remote: joinHostPort(host, port) }
  }
}

/** Those that the race waits for. What is no name has one target, and counts as either. */
function familiesOf({ place, family }: DialPlan): readonly Family[] {
  if (place.kind === 'path' || literalFamily(place.host ?? HostDefault) !== 0) return [4]
  return family === 0 ? [6, 4] : [family]
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null | undefined)?.code
  return typeof code === 'string' ? code : 'ENOTFOUND'
}

function placeOf(target: Target): ErrorPlace {
  return target.kind === abi.NamePath
    ? { op: 'dial', network: 'unix', remote: printablePath(target.name) }
    : { op: 'dial', network: 'tcp', remote: joinHostPort(target.name, target.port) }
}
