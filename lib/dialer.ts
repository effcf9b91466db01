// dial(): one outgoing connection.

import { AsyncResource } from 'node:async_hooks'
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import * as abi from './abi.js'
import { type ConnSettings, type DialPlan, joinHostPort, planDial, printablePath } from './addr.js'
import { StreamConn } from './conn.js'
import type { ConnOwner } from './conn_core.js'
import { type ErrorPlace, NetError, systemError } from './errors.js'
import { checkServe } from './listener.js'
import { type Loop, loop } from './loop.js'
import type { Conn, DialOptions, Handlers } from './net.js'

/** An address to try. */
interface Target {
  kind: number
  name: string
  port: number
}

/**
 * Connects. With `handlers` the connection is served by events, otherwise it is read by read() or iteration.
 * The addresses of a name are tried one after the other.
 *
 * Rejects with a NetError (`op: 'dial'`): ERR_INVALID_ARG before anything is opened, the system's code
 * ('ECONNREFUSED', 'ENOENT', ...), ERR_DEADLINE_EXCEEDED after `timeoutMs`, or with the signal's reason.
 */
export async function dial(options: DialOptions, handlers?: Handlers): Promise<Conn> {
  const style = checkServe('dial', handlers)
  const plan = planDial(options)
  plan.signal?.throwIfAborted()
  const context = new AsyncResource('EDGEWIRE_DIAL')
  const attempt = new Attempt(plan, loop(), context, style.handlers)
  return attempt.run()
}

/** One dial() until it is decided, then the owner of its connection. */
class Attempt implements ConnOwner {
  readonly settings: ConnSettings
  readonly listener = undefined
  overflowAborts = 0
  overflowDrops = 0
  private conn: StreamConn | undefined
  private resolve!: (conn: Conn) => void
  private reject!: (error: unknown) => void
  private decided = false

  constructor(
    private readonly plan: DialPlan,
    private readonly loop: Loop,
    readonly context: AsyncResource,
    readonly handlers: Handlers | undefined,
  ) {
    this.settings = plan.settings
  }

  async run(): Promise<Conn> {
    const { signal, timeoutMs } = this.plan
    const result = new Promise<Conn>((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    const onAbort = (): void => this.giveUp(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    const timer = timeoutMs > 0 ? setTimeout(() => this.giveUp(this.timeoutError()), timeoutMs) : undefined
    this.tryAll().catch((error) => this.giveUp(error))
    try {
      return await result
    } finally {
      this.decided = true
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  private async tryAll(): Promise<void> {
    let failure: unknown
    for (const target of await this.targets()) {
      if (this.decided) return
      try {
        return this.resolve(await this.tryOne(target))
      } catch (error) {
        failure = error
      }
    }
    throw failure
  }

  private async targets(): Promise<Target[]> {
    const { place } = this.plan
    if (place.kind === 'path') return [{ kind: abi.NamePath, name: place.path, port: 0 }]
    if (place.kind === 'fd') return []
    const host = place.host ?? 'localhost'
    const { port } = place
    if (isIP(host.split('%')[0] as string) !== 0) return [{ kind: abi.NameIp, name: host, port }]
    try {
      const found = await lookup(host, { all: true })
      return found.map(({ address }) => ({ kind: abi.NameIp, name: address, port }))
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? 'ENOTFOUND'
      const where = { op: 'dial', network: 'tcp', remote: joinHostPort(host, port) } as const
      throw new NetError(code, where, 'the name has no address', { cause })
    }
  }

  private tryOne(target: Target): Promise<Conn> {
    const { loop, plan, settings } = this
    const flags = settings.noDelay ? abi.OpenNoDelay : 0
    // Without an address of its own but with a port, the family's unspecified address.
    const local = plan.localAddress ?? (plan.localPort > 0 ? (isIP(target.name) === 6 ? '::' : '0.0.0.0') : undefined)
    const { kind, name, port } = target
    const index = loop.native.dial(kind, name, port, local, plan.localPort, flags, settings.lowWaterMark)
    // The tables may have grown even for a dial that failed.
    loop.refreshTables()
    if (index < 0) return Promise.reject(systemError(index, placeOf(target)))
    return new Promise((resolve, reject) => {
      this.onTried = (error) => (error === undefined ? resolve(conn) : reject(error))
      const conn = new StreamConn(loop, index, this, true)
      this.conn = conn
    })
  }

  private onTried: ((error: NetError | undefined) => void) | undefined

  private giveUp(error: unknown): void {
    if (this.decided) return
    this.decided = true
    this.reject(error)
    this.conn?.abort()
  }

  private timeoutError(): NetError {
    const { place, timeoutMs } = this.plan
    const remote = place.kind === 'host' ? joinHostPort(place.host ?? 'localhost', place.port) : placeName(place)
    return new NetError('ERR_DEADLINE_EXCEEDED', { op: 'dial', remote }, `no connection within ${timeoutMs} ms`, {
      timeout: true,
    })
  }

  connConnected(): void {
    this.onTried?.(undefined)
    this.onTried = undefined
  }

  connClosed(_conn: Conn, error: NetError | undefined): void {
    const { onTried } = this
    this.onTried = undefined
    onTried?.(error ?? new NetError('ERR_CONN_CLOSED', { op: 'dial' }, 'the connection was closed'))
  }

  handlerFailed(_conn: Conn, error: unknown): void {
    process.nextTick(() => {
      throw error
    })
  }
}

function placeName(place: DialPlan['place']): string {
  return place.kind === 'path' ? printablePath(place.path) : ''
}

function placeOf(target: Target): ErrorPlace {
  return target.kind === abi.NamePath
    ? { op: 'dial', network: 'unix', remote: printablePath(target.name) }
    : { op: 'dial', network: 'tcp', remote: joinHostPort(target.name, target.port) }
}
