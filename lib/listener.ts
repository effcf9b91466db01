// listen(): a listening socket and the connections that it accepts.

import { AsyncResource } from 'node:async_hooks'
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import type { InspectOptionsStylized } from 'node:util'
import * as abi from './abi.js'
import { type ConnSettings, joinHostPort, type ListenPlan, planListen, printablePath } from './addr.js'
import { StreamConn } from './conn.js'
import type { ConnOwner } from './conn_core.js'
import { type ErrorPlace, invalidArgument, NetError, systemError } from './errors.js'
import { inspection, shown } from './inspection.js'
import { LeakWatch } from './leak_watch.js'
import { type ListenerSink, type Loop, loop } from './loop.js'
import type { Conn, Handlers, Listener, ListenerStats, ListenOptions, Task } from './net.js'

/** Accepted connections that may wait for `for await`; beyond that, accepting pauses and the kernel's backlog fills. */
const UnclaimedMax = 256
/** A warning about accept(2) is repeated at most this often. */
const AcceptWarningEveryMs = 60_000

const handlerNames = ['open', 'data', 'end', 'drain', 'timeout', 'close'] as const satisfies (keyof Handlers)[]

/** What connections do with their bytes. */
type Style = { handlers: Handlers | undefined; task: Task | undefined }

/**
 * Opens a listening socket. With `serve` a task, each connection gets one; with an object of handlers, they serve all
 * connections; without, `for await (const conn of listener)` accepts them.
 *
 * Rejects with a NetError (`op: 'listen'`): ERR_INVALID_ARG before anything is opened, or the system's code
 * ('EADDRINUSE', 'EACCES', ...). Handlers run in the async context of this call.
 */
export async function listen(options: ListenOptions, serve?: Task | Handlers): Promise<Listener> {
  const style = checkServe('listen', serve)
  const plan = planListen(options)
  const context = new AsyncResource('EDGEWIRE_LISTENER')
  const origin = plan.leakDetection === undefined ? '' : (new Error('listen()').stack ?? '')
  plan.signal?.throwIfAborted()
  const hosts = plan.place.kind === 'host' ? await addressesOf(plan.place.host) : []
  plan.signal?.throwIfAborted()
  return new StreamListener(loop(), plan, style, context, hosts, origin)
}

/** A task, an object with at least one handler, or nothing: anything else throws. */
export function checkServe(op: 'listen' | 'dial', serve: unknown): Style {
  if (serve === undefined) return { handlers: undefined, task: undefined }
  if (op === 'listen' && typeof serve === 'function') return { handlers: undefined, task: serve as Task }
  if (typeof serve !== 'object' || serve === null) {
    throw invalidArgument(op, `expected ${op === 'listen' ? 'a function or ' : ''}an object of handlers`, serve)
  }
  const handlers = serve as Record<string, unknown>
  const present = handlerNames.filter((name) => handlers[name] !== undefined)
  if (present.length === 0) {
    throw invalidArgument(op, `an object of handlers needs at least one of ${handlerNames.join(', ')}`, serve)
  }
  for (const name of present) {
    if (typeof handlers[name] === 'function') continue
    throw invalidArgument(op, `the handler '${name}' must be a function`, handlers[name])
  }
  return { handlers: serve as Handlers, task: undefined }
}

/** Addresses to try in order: a listener takes the first that works. */
async function addressesOf(host: string | undefined): Promise<string[]> {
  // As in Node: every interface, both families where the system has IPv6.
  if (host === undefined) return ['::', '0.0.0.0']
  if (isIP(host.split('%')[0] as string) !== 0) return [host]
  try {
    return [(await lookup(host)).address]
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'ENOTFOUND'
    throw new NetError(code, { op: 'listen', network: 'tcp', local: host }, 'the name has no address', { cause })
  }
}

class StreamListener implements Listener, ConnOwner, ListenerSink {
  readonly handlers: Handlers | undefined
  readonly settings: ConnSettings
  overflowAborts = 0
  overflowDrops = 0

  private readonly index: number
  private readonly task: Task | undefined
  private readonly onError: ListenOptions['onError']
  private readonly where: readonly [family: string, address: string, port: number]
  private accepting = true
  private refd = true
  private acceptedCount = 0
  private closedCount = 0
  private acceptErrorCount = 0
  /** Of the connections that are over. */
  private closedReadBytes = 0
  private closedWrittenBytes = 0
  private handlerErrorCount = 0
  /** Accepted, but not yet taken by iteration; undefined with a task or handlers. */
  private unclaimed: StreamConn[] | undefined
  private claimers: ((result: IteratorResult<Conn>) => void)[] = []
  private onAllClosed: (() => void) | undefined
  private readonly dropSignal: () => void
  private readonly leaks: LeakWatch | undefined
  private warnedMs = Number.NEGATIVE_INFINITY

  constructor(
    private readonly loop: Loop,
    plan: ListenPlan,
    style: Style,
    readonly context: AsyncResource,
    hosts: string[],
    origin: string,
  ) {
    this.handlers = style.handlers
    this.task = style.task
    this.settings = plan.settings
    this.onError = plan.onError
    if (style.handlers === undefined && style.task === undefined) this.unclaimed = []
    this.index = open(loop, plan, hosts)
    this.where = (loop.native.address(this.index, abi.AddressListener) ?? ['unix', '', 0]) as typeof this.where
    loop.listeners[this.index] = this
    loop.ref()
    const onAbort = (): void => void this.close()
    plan.signal?.addEventListener('abort', onAbort, { once: true })
    if (plan.leakDetection !== undefined) {
      const served = style.task?.name ? `the task ${style.task.name}` : style.task ? 'a task' : 'iteration'
      const by = style.handlers === undefined ? served : 'event handlers'
      this.leaks = new LeakWatch(plan.leakDetection, () => this.openConns(), by, origin, loop.debug)
    }
    this.dropSignal = () => plan.signal?.removeEventListener('abort', onAbort)
  }

  get listener(): Listener {
    return this
  }

  get address(): string {
    return this.where[1]
  }

  get port(): number {
    return this.where[2]
  }

  get family(): Listener['family'] {
    return this.where[0] as Listener['family']
  }

  get listening(): boolean {
    return this.accepting
  }

  [inspection](depth: number, options: InspectOptionsStylized): string {
    const { address, port, family, listening } = this
    return shown('Listener', { address, port, family, listening, ...this.stats() }, depth, options)
  }

  get connections(): Iterable<Conn> {
    return this.openConns()
  }

  private *openConns(): Generator<StreamConn> {
    for (const conn of this.loop.conns) {
      if (conn instanceof StreamConn && conn.listener === this) yield conn
    }
  }

  // ---- accepting ---------------------------------------------------------------------------------------------------

  onAccepted(index: number): void {
    this.acceptedCount++
    const conn = new StreamConn(this.loop, index, this, false)
    if (this.handlers !== undefined) this.open(conn)
    else if (this.task !== undefined) this.run(conn, this.task)
    else this.offer(conn)
  }

  private open(conn: StreamConn): void {
    try {
      conn.start()
    } catch (error) {
      conn.onHandlerError(error)
    }
  }

  private run(conn: StreamConn, task: Task): void {
    const fail = (error: unknown): void => conn.onHandlerError(error)
    try {
      Promise.resolve(task(conn)).then(() => conn.close(), fail)
    } catch (error) {
      fail(error)
    }
  }

  private offer(conn: StreamConn): void {
    const claim = this.claimers.shift()
    if (claim !== undefined) {
      claim({ done: false, value: conn })
      return
    }
    this.unclaimed?.push(conn)
    if (this.unclaimed?.length === UnclaimedMax) this.setAccepting(false)
  }

  private setAccepting(on: boolean): void {
    if (this.accepting) this.loop.push(abi.CommandListenerAccept, this.index, on ? 1 : 0, 0)
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Conn> {
    if (this.unclaimed === undefined) {
      throw new NetError('ERR_WRONG_STYLE', this.place(), 'this listener has a task or handlers for its connections')
    }
    if (!this.accepting && this.unclaimed.length === 0) {
      throw new NetError('ERR_LISTENER_CLOSED', this.place(), 'the listener is closed')
    }
    const { unclaimed } = this
    const listener = this
    return {
      next: () => listener.watchTaker(listener.claim(unclaimed)),
      async return(): Promise<IteratorResult<Conn>> {
        await listener.close()
        // Nobody will take those that still wait.
        for (const conn of unclaimed.splice(0)) conn.close()
        return { done: true, value: undefined }
      },
      [Symbol.asyncIterator]() {
        return this
      },
    }
  }

  private claim(unclaimed: StreamConn[]): Promise<IteratorResult<Conn>> {
    const conn = unclaimed.shift()
    if (unclaimed.length === UnclaimedMax / 2) this.setAccepting(true)
    if (conn !== undefined) return Promise.resolve({ done: false, value: conn })
    if (!this.accepting) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve) => this.claimers.push(resolve))
  }

  /** Remembers who takes a connection by iteration, when leaks are looked for. */
  private watchTaker(result: Promise<IteratorResult<Conn>>): Promise<IteratorResult<Conn>> {
    const { leaks } = this
    if (!leaks?.wantsTaker()) return result
    const { stack } = new Error('taken by iteration')
    return result.then((taken) => {
      if (!taken.done) leaks.tookFrom(taken.value, stack)
      return taken
    })
  }

  onAcceptError(errno: number): void {
    this.acceptErrorCount++
    const nowMs = performance.now()
    if (nowMs - this.warnedMs < AcceptWarningEveryMs) return
    this.warnedMs = nowMs
    const { message } = systemError(errno, this.place())
    process.emitWarning(
      `${message}; accepting pauses and is tried again. Clients that came meanwhile may have been turned away (stats().shed).`,
      { type: 'EdgewireWarning', code: 'EDGEWIRE_ACCEPT' },
    )
  }

  // ---- its connections ---------------------------------------------------------------------------------------------

  connConnected(): void {}

  connClosed(conn: Conn): void {
    this.closedCount++
    this.closedReadBytes += conn.bytesRead
    this.closedWrittenBytes += conn.bytesWritten
    if (this.closedCount < this.acceptedCount) return
    if (!this.accepting) this.over()
    this.onAllClosed?.()
  }

  /** Closed, and so are its connections. */
  private over(): void {
    this.leaks?.stop()
    this.loop.scope.leave(this.context)
    // Not yet: further on in this batch there may be connections that were accepted before.
    queueMicrotask(() => {
      const { loop, index } = this
      if (this.closedCount === this.acceptedCount && loop.listeners[index] === this) loop.listeners[index] = undefined
    })
  }

  handlerFailed(conn: Conn, error: unknown): void {
    this.handlerErrorCount++
    const { onError } = this
    // From a tick of its own, so that it becomes an ordinary uncaught exception, and the batch goes on.
    process.nextTick(() => {
      if (onError === undefined) throw error
      onError(error, conn)
    })
  }

  onHandlerError(error: unknown): void {
    process.nextTick(() => {
      throw error
    })
  }

  // ---- ending ------------------------------------------------------------------------------------------------------

  async close(): Promise<void> {
    if (!this.accepting) return
    this.accepting = false
    this.dropSignal()
    if (this.closedCount === this.acceptedCount) this.over()
    this.loop.push(abi.CommandListenerClose, this.index, 0, 0)
    // Now, not at the end of the turn: the address is free when close() has resolved.
    this.loop.flush()
    if (this.refd) this.loop.unref()
    for (const claim of this.claimers.splice(0)) claim({ done: true, value: undefined })
  }

  async shutdown(): Promise<void> {
    await this.close()
    for (const conn of this.openConns()) conn.close()
    if (this.closedCount === this.acceptedCount) return
    await new Promise<void>((resolve) => {
      const earlier = this.onAllClosed
      this.onAllClosed = () => {
        earlier?.()
        resolve()
      }
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown()
  }

  stats(): ListenerStats {
    let bytesRead = this.closedReadBytes
    let bytesWritten = this.closedWrittenBytes
    for (const conn of this.openConns()) {
      bytesRead += conn.bytesRead
      bytesWritten += conn.bytesWritten
    }
    return {
      accepted: this.acceptedCount,
      open: this.acceptedCount - this.closedCount,
      closed: this.closedCount,
      bytesRead,
      bytesWritten,
      acceptErrors: this.acceptErrorCount,
      overflowAborts: this.overflowAborts,
      overflowDrops: this.overflowDrops,
      handlerErrors: this.handlerErrorCount,
      leakSuspects: this.leaks?.suspects ?? 0,
    }
  }

  ref(): this {
    if (!this.refd && this.accepting) this.loop.ref()
    this.refd = true
    return this
  }

  unref(): this {
    if (this.refd && this.accepting) this.loop.unref()
    this.refd = false
    return this
  }

  private place(): ErrorPlace {
    const unix = this.family === 'unix'
    const local = unix ? printablePath(this.address) : joinHostPort(this.address, this.port)
    return { op: 'accept', network: unix ? 'unix' : 'tcp', local }
  }
}

/** The index of a new native listener. */
function open(loop: Loop, plan: ListenPlan, hosts: string[]): number {
  const { place, settings } = plan
  const flags =
    (plan.ipv6Only ? abi.OpenIpv6Only : 0) |
    (plan.reusePort ? abi.OpenReusePort : 0) |
    (settings.noDelay ? abi.OpenNoDelay : 0)
  const attempt = (kind: number, name: string, port: number): number =>
    loop.native.listen(kind, name, port, flags, plan.backlog, settings.lowWaterMark)
  if (place.kind === 'fd') {
    return checked(attempt(abi.NameDescriptor, '', place.fd), { op: 'listen', local: `fd ${place.fd}` })
  }
  if (place.kind === 'path') {
    const index = attempt(abi.NamePath, place.path, 0)
    return checked(index, { op: 'listen', network: 'unix', local: printablePath(place.path) })
  }
  let index = attempt(abi.NameIp, hosts[0] as string, place.port)
  // Without IPv6 the unspecified IPv4 address takes the place of the unspecified IPv6 one, as in Node.
  if (index < 0 && hosts.length > 1 && !isBusy(index)) index = attempt(abi.NameIp, hosts[1] as string, place.port)
  const local = joinHostPort(place.host ?? (hosts[0] as string), place.port)
  return checked(index, { op: 'listen', network: 'tcp', local })
}

function isBusy(errno: number): boolean {
  const { code } = systemError(errno, { op: 'listen' })
  return code === 'EADDRINUSE' || code === 'EACCES'
}

function checked(index: number, place: ErrorPlace): number {
  if (index < 0) throw systemError(index, place)
  return index
}
