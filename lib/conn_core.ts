// The core of a connection: its state, what it is called in errors, its counters and options. conn_output.ts adds
// writing, conn.ts reading and events.
//
// The object is small because servers have many: what few connections need (waiting readers, addresses asked for) is
// in objects of their own, made when first used.

import type { AsyncResource } from 'node:async_hooks'
import { constants } from 'node:os'
import type { InspectOptionsStylized } from 'node:util'
import * as abi from './abi.js'
import { type ConnSettings, checkInteger, joinHostPort, printablePath } from './addr.js'
import { storeIdleTimeout } from './deadline.js'
import { type ErrorPlace, NetError, type Op, systemError } from './errors.js'
import type { Inbox } from './inbox.js'
import { inspection, shown } from './inspection.js'
import type { Loop } from './loop.js'
import type { Conn, ConnState, Handlers, Listener } from './net.js'

export const BytesMax = 2 ** 31 - 1

/** A connection at rest reads so much, once, to learn that something has come. */
const RestReadBytes = 4096

/** Dialing -> Open -> Closing -> Closed, never back; states may be skipped. */
export const Phase = { Dialing: 0, Open: 1, Closing: 2, Closed: 3 } as const
/** What is known of the peer's FIN. HungUp: it has come, bytes before it may be unread. Ended: all was delivered. */
export const Input = { Open: 0, HungUp: 1, Ended: 2 } as const
/** Finished: closeWrite() or close() was called. */
export const Output = { Open: 0, Finished: 1 } as const
/** Independent facts, in one word because there are as many words as idle connections. */
export const Mark = {
  Paused: 1,
  /** `open` was told: so will be `close`. */
  Opened: 2,
  /** `end` was told. */
  EndTold: 4,
  /** write() has returned false and `drain` has not come yet. */
  AboveHighWater: 8,
  Unref: 16,
  /** Nobody uses it for now: its keeper is told of whatever comes. */
  AtRest: 32,
} as const
export type ValueOf<T> = T[keyof T]

/** What keeps a dialed connection between its uses: a pool. It is told at once, from inside the turn. */
export interface Keeper {
  /** Something has come while the connection was at rest: once for each rest(). */
  stirred(): void
  /** The connection is over. */
  ended(error: NetError | undefined): void
}

/** Who a connection belongs to: a listener, or one dial(). */
export interface ConnOwner {
  /** Undefined: no code of the user's runs on its behalf but what awaits promises, each in its own context. */
  readonly context: AsyncResource | undefined
  readonly handlers: Handlers | undefined
  readonly settings: ConnSettings
  readonly listener: Listener | undefined
  /** See ConnCore.keep(). Here, because a dial() has one connection: those of servers pay nothing for it. */
  keeper?: Keeper | undefined
  overflowAborts: number
  overflowDrops: number
  connConnected(conn: Conn): void
  /** Over, before its close handler runs. */
  connClosed(conn: Conn, error: NetError | undefined): void
  /** A handler or task threw something that is not the network's doing. */
  handlerFailed(conn: Conn, error: unknown): void
}

export interface Waiter {
  resolve(): void
  reject(error: unknown): void
}

/** What only some connections need. */
export interface Rare {
  drained: Waiter[]
  flushed: Waiter[]
  addresses: (readonly [family: string, address: string, port: number] | undefined)[]
  closed: { promise: Promise<NetError | undefined>; resolve(error: NetError | undefined): void } | undefined
  /** An orderly end that a paused connection still has to be told. */
  heldClose: boolean
}

export abstract class ConnCore {
  // biome-ignore lint/suspicious/noExplicitAny: the user's own value, of the user's own type
  data: any = undefined
  /** Row in the connection tables; -1 once closed. */
  protected index: number
  protected phase: ValueOf<typeof Phase>
  protected input: ValueOf<typeof Input> = Input.Open
  protected output: ValueOf<typeof Output> = Output.Open
  /** Facts that are independent of each other and of the state: Mark bits. */
  protected marks = 0
  /** Bytes that write() has taken. After the end: bytesWritten. */
  protected acceptedBytes = 0
  /** After the end: bytesRead. */
  protected readBytes = 0
  protected limitBytes: number
  /** What ended it, or is about to. */
  protected reason: NetError | undefined = undefined
  protected inbox: Inbox | undefined = undefined
  protected rare: Rare | undefined = undefined

  constructor(
    protected readonly loop: Loop,
    index: number,
    protected readonly owner: ConnOwner,
    dialing: boolean,
  ) {
    this.index = index
    this.phase = dialing ? Phase.Dialing : Phase.Open
    this.limitBytes = owner.settings.maxBufferedBytes
    loop.ref()
    if (owner.settings.idleTimeoutMs > 0) storeIdleTimeout(loop, index, owner.settings.idleTimeoutMs)
  }

  get context(): AsyncResource | undefined {
    return this.owner.context
  }

  // ---- what it is --------------------------------------------------------------------------------------------------

  get bufferedAmount(): number {
    if (this.index < 0) return 0
    return this.acceptedBytes - this.loop.doubles[this.index * abi.RowWords + abi.RowSentBytes]
  }

  get bytesWritten(): number {
    if (this.index < 0) return this.acceptedBytes
    return this.loop.doubles[this.index * abi.RowWords + abi.RowSentBytes]
  }

  get bytesRead(): number {
    if (this.index < 0) return this.readBytes
    return this.loop.doubles[this.index * abi.RowWords + abi.RowReceivedBytes]
  }

  get maxBufferedBytes(): number {
    return this.limitBytes
  }

  set maxBufferedBytes(bytes: number) {
    this.limitBytes = checkInteger('configure', 'maxBufferedBytes', bytes, 0, BytesMax)
  }

  get state(): ConnState {
    if (this.phase === Phase.Dialing) return 'dialing'
    if (this.phase === Phase.Closed) return 'closed'
    if (this.phase === Phase.Closing) return 'closing'
    if (this.input === Input.Open) return this.output === Output.Open ? 'open' : 'write-closed'
    return this.output === Output.Open ? 'read-closed' : 'closing'
  }

  get listener(): Listener | undefined {
    return this.owner.listener
  }

  get localAddress(): string | undefined {
    return this.address(abi.AddressLocal)?.[1]
  }

  get localPort(): number | undefined {
    return this.address(abi.AddressLocal)?.[2]
  }

  get remoteAddress(): string | undefined {
    return this.address(abi.AddressRemote)?.[1]
  }

  get remotePort(): number | undefined {
    return this.address(abi.AddressRemote)?.[2]
  }

  get remoteFamily(): string | undefined {
    return this.address(abi.AddressRemote)?.[0]
  }

  [inspection](depth: number, options: InspectOptionsStylized): string {
    const { local, remote } = this.place('read')
    const { state, bytesRead, bytesWritten, bufferedAmount, data } = this
    return shown('Conn', { state, local, remote, bytesRead, bytesWritten, bufferedAmount, data }, depth, options)
  }

  protected address(which: number): readonly [string, string, number] | undefined {
    const known = this.rare?.addresses[which]
    if (known !== undefined || this.index < 0) return known
    const asked = this.loop.native.address(this.index, which)
    this.rarely().addresses[which] = asked
    return asked
  }

  setNoDelay(on = true): this {
    return this.setOption(abi.OptionNoDelay, on ? 1 : 0)
  }

  setKeepAlive(on = true, initialDelayMs = 0): this {
    checkInteger('option', 'initialDelayMs', initialDelayMs, 0, BytesMax)
    return this.setOption(abi.OptionKeepAlive, on ? keepAliveSeconds(initialDelayMs) : 0)
  }

  setRecvBufferSize(bytes: number): this {
    checkInteger('option', 'bytes', bytes, 1, BytesMax)
    return this.setOption(abi.OptionReceiveBuffer, bytes)
  }

  setSendBufferSize(bytes: number): this {
    checkInteger('option', 'bytes', bytes, 1, BytesMax)
    return this.setOption(abi.OptionSendBuffer, bytes)
  }

  protected setOption(option: number, value: number): this {
    this.needOpen('option')
    const result = this.loop.native.setOption(this.index, option, value)
    // EBADF: the network has ended it already, and that is told later in this batch. Nobody could have known.
    if (result >= 0 || result === -constants.errno.EBADF) return this
    throw systemError(result, this.place('option'))
  }

  ref(): this {
    if (this.has(Mark.Unref) && this.phase !== Phase.Closed) this.loop.ref()
    this.unmark(Mark.Unref)
    return this
  }

  unref(): this {
    if (!this.has(Mark.Unref) && this.phase !== Phase.Closed) this.loop.unref()
    this.mark(Mark.Unref)
    return this
  }

  protected setInterest(bytes: number): void {
    const { loop, index } = this
    if (index < 0) return
    const at = index * abi.InterestWords
    loop.words[at + abi.InterestRead] = bytes
    const flags = loop.words[at + abi.InterestFlags]
    if (bytes !== 0 && (flags & abi.FlagReadable) !== 0) loop.push(abi.CommandRead, index, 0, 0)
  }

  // ---- at rest: between two uses of a pooled connection ------------------------------------------------------------

  /** Before anything else of this section, and while the connection is open. Of a connection that dial() has made. */
  keep(keeper: Keeper): void {
    this.owner.keeper = keeper
  }

  /** Nothing of the last use is left that the next one would meet. */
  get isQuiet(): boolean {
    const { inbox, rare } = this
    if (this.phase !== Phase.Open || this.input !== Input.Open || this.output !== Output.Open) return false
    if (inbox !== undefined && (inbox.hasBytes || inbox.hasReader)) return false
    return this.bufferedAmount === 0 && (rare === undefined || rare.drained.length + rare.flushed.length === 0)
  }

  /** Bytes may lie in the kernel unread; a connection at rest looks in its next turn. */
  get mayHaveInput(): boolean {
    return (
      this.index >= 0 && (this.loop.words[this.index * abi.InterestWords + abi.InterestFlags] & abi.FlagReadable) !== 0
    )
  }

  /**
   * Nobody uses it for now, so nothing may come: the keeper is told, once, when bytes, the peer's FIN or an error do, and
   * the bytes are dropped. Deadlines of the last use are forgotten, and the process may end.
   */
  rest(): void {
    const { loop, index } = this
    const row = index * abi.RowWords
    loop.doubles[row + abi.RowReadDeadline] = Number.POSITIVE_INFINITY
    loop.doubles[row + abi.RowWriteDeadline] = Number.POSITIVE_INFINITY
    loop.doubles[row + abi.RowIdleMs] = 0
    this.mark(Mark.AtRest)
    this.setInterest(RestReadBytes)
    this.unref()
  }

  /** It is used again. */
  rouse(): void {
    this.unmark(Mark.AtRest)
    this.setInterest(0)
    this.ref()
  }

  /** Something came; true if it was at rest. */
  protected stir(): boolean {
    if (!this.has(Mark.AtRest)) return false
    this.unmark(Mark.AtRest)
    this.owner.keeper?.stirred()
    return true
  }

  // ---- errors ------------------------------------------------------------------------------------------------------

  protected needOpen(op: Op): void {
    if (this.phase === Phase.Closed) throw this.reason ?? this.closedError(op)
  }

  protected closedError(op: Op): NetError {
    return new NetError('ERR_CONN_CLOSED', this.place(op), 'the connection is closed')
  }

  protected deadlineError(op: Op): NetError {
    return new NetError('ERR_DEADLINE_EXCEEDED', this.place(op), 'deadline exceeded', { timeout: true })
  }

  protected place(op: Op): ErrorPlace {
    const local = this.address(abi.AddressLocal)
    const remote = this.address(abi.AddressRemote)
    const unix = (remote ?? local)?.[0] === 'unix'
    const text = (address: typeof local): string | undefined => {
      if (address === undefined) return undefined
      return unix ? printablePath(address[1]) : joinHostPort(address[1], address[2])
    }
    return { op, network: unix ? 'unix' : 'tcp', local: text(local), remote: text(remote) }
  }

  protected has(mark: number): boolean {
    return (this.marks & mark) !== 0
  }

  protected mark(mark: number): void {
    this.marks |= mark
  }

  protected unmark(mark: number): void {
    this.marks &= ~mark
  }

  protected rarely(): Rare {
    this.rare ??= { drained: [], flushed: [], addresses: [], closed: undefined, heldClose: false }
    return this.rare
  }
}

/** OptionKeepAlive in native/abi.h: whole seconds, at least one; -1: the system's default. */
function keepAliveSeconds(initialDelayMs: number): number {
  return initialDelayMs === 0 ? -1 : Math.max(1, Math.round(initialDelayMs / 1000))
}
