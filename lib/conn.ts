// A connection: the contract is Conn in net.ts, the native half native/core/conn.h.
//
// The object is small because servers have many: what few connections need (waiting readers, addresses asked for) is
// in objects of their own, made when first used.

import type { AsyncResource } from 'node:async_hooks'
import * as abi from './abi.js'
import { type ConnSettings, checkInteger, joinHostPort, printablePath } from './addr.js'
import { epochOf, isPast, storeDeadline, storeIdleTimeout } from './deadline.js'
import { type ErrorPlace, invalidArgument, NetError, type Op, systemError } from './errors.js'
import { Inbox, interestFor } from './inbox.js'
import { lentAddress, releaseAddress, retainAddress } from './lease.js'
import type { ConnSink, Loop } from './loop.js'
import type { Conn, ConnState, Deadline, Handlers, Listener, Writable } from './net.js'

/** Writes below this are copied: cheaper than keeping track of whose memory it is. */
const CopyBelowBytes = 4 * 1024
/** Writes from this on are sent from the caller's memory; between the two, only lent chunks are. */
const PinFromBytes = 32 * 1024
const BytesMax = 2 ** 31 - 1

/** Dialing -> Open -> Closing -> Closed, never back; states may be skipped. */
const Phase = { Dialing: 0, Open: 1, Closing: 2, Closed: 3 } as const
/** What is known of the peer's FIN. HungUp: it has come, bytes before it may be unread. Ended: all was delivered. */
const Input = { Open: 0, HungUp: 1, Ended: 2 } as const
/** Finished: closeWrite() or close() was called. */
const Output = { Open: 0, Finished: 1 } as const
type ValueOf<T> = T[keyof T]

/** Who a connection belongs to: a listener, or one dial(). */
export interface ConnOwner {
  readonly context: AsyncResource
  readonly handlers: Handlers | undefined
  readonly settings: ConnSettings
  readonly listener: Listener | undefined
  overflowAborts: number
  overflowDrops: number
  connConnected(conn: StreamConn): void
  /** Over, before its close handler runs. */
  connClosed(conn: StreamConn, error: NetError | undefined): void
  /** A handler or task threw something that is not the network's doing. */
  handlerFailed(conn: StreamConn, error: unknown): void
}

interface Waiter {
  resolve(): void
  reject(error: unknown): void
}

/** What only some connections need. */
interface Rare {
  drained: Waiter[]
  flushed: Waiter[]
  addresses: (readonly [family: string, address: string, port: number] | undefined)[]
  closed: { promise: Promise<NetError | undefined>; resolve(error: NetError | undefined): void } | undefined
  /** An orderly end that a paused connection still has to be told. */
  heldClose: boolean
}

export class StreamConn implements Conn, ConnSink {
  // biome-ignore lint/suspicious/noExplicitAny: the user's own value, of the user's own type
  data: any = undefined
  /** Row in the connection tables; -1 once closed. */
  private index: number
  private phase: ValueOf<typeof Phase>
  private input: ValueOf<typeof Input> = Input.Open
  private output: ValueOf<typeof Output> = Output.Open
  private paused = false
  private readExpired = false
  private writeExpired = false
  /** write() has returned false and `drain` has not come yet. */
  private aboveHighWater = false
  private refd = true
  /** Bytes that write() has taken. After the end: bytesWritten. */
  private acceptedBytes = 0
  /** After the end: bytesRead. */
  private readBytes = 0
  private limitBytes: number
  /** What ended it, or is about to. */
  private reason: NetError | undefined = undefined
  private inbox: Inbox | undefined = undefined
  private rare: Rare | undefined = undefined

  constructor(
    private readonly loop: Loop,
    index: number,
    private readonly owner: ConnOwner,
    dialing: boolean,
  ) {
    this.index = index
    this.phase = dialing ? Phase.Dialing : Phase.Open
    this.limitBytes = owner.settings.maxBufferedBytes
    loop.conns[index] = this
    loop.ref()
    if (owner.settings.idleTimeoutMs > 0) storeIdleTimeout(loop, index, owner.settings.idleTimeoutMs)
    if (owner.handlers !== undefined) this.setInterest(abi.ReadStream)
  }

  get context(): AsyncResource {
    return this.owner.context
  }

  // ---- reading -----------------------------------------------------------------------------------------------------

  read(into: Uint8Array): Promise<number | null> {
    if (!(into instanceof Uint8Array) || into.length === 0) {
      return Promise.reject(invalidArgument('read', 'read() needs a Uint8Array with at least one byte', into))
    }
    return this.enqueueRead(into)
  }

  private enqueueRead<T>(into: Uint8Array | null): Promise<T | null> {
    const refusal = this.readRefusal()
    if (refusal !== undefined) return Promise.reject(refusal)
    this.inbox ??= new Inbox(this.loop)
    const { inbox } = this
    if (inbox.hasBytes) return inbox.read(into)
    if (this.input === Input.Ended) return Promise.resolve(null)
    const first = !inbox.hasReader
    const promise = inbox.read<T>(into)
    if (first) this.askForBytes()
    return promise
  }

  private readRefusal(): NetError | undefined {
    if (this.owner.handlers !== undefined) {
      return new NetError('ERR_WRONG_STYLE', this.place('read'), 'this connection has event handlers, which get its bytes')
    }
    if (this.phase >= Phase.Closing) {
      // Both directions came to their end in order: what was read before is still there, and then null.
      if (this.reason === undefined && this.input === Input.Ended) return undefined
      return this.reason ?? this.closedError('read')
    }
    const expired = this.readExpired || (this.index >= 0 && isPast(this.loop, this.index, abi.RowReadDeadline))
    return expired ? this.deadlineError('read') : undefined
  }

  /** The oldest reader wants bytes that are not here. */
  private askForBytes(): void {
    this.setInterest(interestFor(this.inbox?.wantedBytes ?? 0))
  }

  private setInterest(bytes: number): void {
    const { loop, index } = this
    if (index < 0) return
    const at = index * abi.InterestWords
    loop.words[at + abi.InterestRead] = bytes
    const flags = loop.words[at + abi.InterestFlags]
    if (bytes !== 0 && (flags & abi.FlagReadable) !== 0) loop.push(abi.CommandRead, index, 0, 0)
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Buffer> {
    const conn = this
    return {
      async next(): Promise<IteratorResult<Buffer>> {
        const chunk = await conn.enqueueRead<Buffer>(null)
        return chunk === null ? { done: true, value: undefined } : { done: false, value: chunk }
      },
      async return(): Promise<IteratorResult<Buffer>> {
        conn.close()
        return { done: true, value: undefined }
      },
      [Symbol.asyncIterator]() {
        return this
      },
    }
  }

  pause(): void {
    this.needHandlers('pause()')
    this.needOpen('read')
    if (this.paused) return
    this.paused = true
    this.setInterest(0)
  }

  resume(): void {
    this.needHandlers('resume()')
    if (!this.paused) return
    this.paused = false
    if (this.inbox?.hasBytes || this.input === Input.Ended || this.rare?.heldClose) {
      // Not from here: the caller may be a handler of this very connection.
      queueMicrotask(() => this.context.runInAsyncScope(this.deliverHeld, this))
    } else {
      this.setInterest(abi.ReadStream)
    }
  }

  private needHandlers(call: string): void {
    if (this.owner.handlers !== undefined) return
    throw new NetError('ERR_WRONG_STYLE', this.place('read'), `${call} is for event handlers: just do not read()`)
  }

  private deliverHeld(): void {
    try {
      while (!this.paused && this.inbox?.hasBytes) {
        this.inbox.takeHeld((bytes, address) => this.callData(bytes, address))
      }
      if (this.paused) return
      if (this.rare?.heldClose) {
        this.rare.heldClose = false
        if (this.input === Input.Ended) this.callEnd()
        this.callClose()
      } else if (this.input === Input.Ended) {
        this.callEnd()
      } else if (this.phase < Phase.Closing) {
        this.setInterest(abi.ReadStream)
      }
    } catch (error) {
      this.onHandlerError(error)
    }
  }

  // ---- writing -----------------------------------------------------------------------------------------------------

  write(data: Writable): boolean {
    const { loop } = this
    if (this.phase >= Phase.Closing || this.output !== Output.Open || this.writeDeadlinePassed()) {
      throw this.writeRefusal()
    }
    if (typeof data !== 'string') return this.writeBytes(bytesOf(data))
    if (!loop.fitsArena(data) || this.bufferedAmount + data.length * 3 > this.limitBytes) {
      return this.writeBytes(Buffer.from(data))
    }
    return data.length === 0 ? !this.aboveHighWater : this.wrote(loop.writeText(this.index, data))
  }

  private writeBytes(bytes: Uint8Array): boolean {
    const { loop, index } = this
    const count = bytes.length
    if (count === 0) return !this.aboveHighWater
    if (this.bufferedAmount + count > this.limitBytes) return this.overflow(count)
    if (count < CopyBelowBytes) {
      loop.writeCopy(index, bytes)
      return this.wrote(count)
    }
    const address = loop.addressOf(bytes)
    if (address >= 0 && loop.isLentWhole(address, count)) loop.push(abi.CommandWriteSlab, index, address | 0, count)
    else if (count < PinFromBytes) loop.writeCopy(index, bytes)
    else this.writePinned(bytes)
    return this.wrote(count)
  }

  private writePinned(bytes: Uint8Array): void {
    // Memory of the pool that nobody holds, or that other threads share, may change before it is sent.
    const own = this.loop.addressOf(bytes) >= 0 || !(bytes.buffer instanceof ArrayBuffer) ? Buffer.from(bytes) : bytes
    const id = this.loop.native.pin(own)
    if (id < 0) throw new NetError('ENOMEM', this.place('write'), 'out of memory')
    this.loop.push(abi.CommandWritePinned, this.index, id, own.length)
  }

  private wrote(count: number): boolean {
    this.acceptedBytes += count
    if (this.bufferedAmount <= this.owner.settings.highWaterMark) return !this.aboveHighWater
    this.aboveHighWater = true
    this.raiseFlag(abi.FlagWantDrain)
    return false
  }

  private raiseFlag(flag: number): void {
    this.loop.words[this.index * abi.InterestWords + abi.InterestFlags] |= flag
  }

  private overflow(count: number): boolean {
    const { owner } = this
    const { overflow } = owner.settings
    if (overflow === 'drop') {
      owner.overflowDrops++
      return false
    }
    const text = `${count} bytes on top of ${this.bufferedAmount} would pass maxBufferedBytes (${this.limitBytes})`
    const error = new NetError('ERR_BUFFER_OVERFLOW', this.place('write'), text)
    if (overflow === 'throw') {
      owner.overflowDrops++
    } else {
      owner.overflowAborts++
      this.abort(error)
    }
    throw error
  }

  private writeDeadlinePassed(): boolean {
    return this.writeExpired || isPast(this.loop, this.index, abi.RowWriteDeadline)
  }

  private writeRefusal(): NetError {
    if (this.phase >= Phase.Closing && this.reason !== undefined) return this.reason
    if (this.phase === Phase.Closed) return this.closedError('write')
    if (this.phase === Phase.Closing || this.output !== Output.Open) {
      return new NetError('ERR_WRITE_CLOSED', this.place('write'), 'write after closeWrite() or close()')
    }
    return this.deadlineError('write')
  }

  drained(): Promise<void> {
    return this.waitForOutput('drained', this.owner.settings.lowWaterMark, abi.FlagWantDrain)
  }

  flushed(): Promise<void> {
    return this.waitForOutput('flushed', 0, abi.FlagWantFlushed)
  }

  private waitForOutput(list: 'drained' | 'flushed', level: number, flag: number): Promise<void> {
    if (this.phase === Phase.Closed || (this.phase === Phase.Closing && this.reason !== undefined)) {
      return Promise.reject(this.reason ?? this.closedError('write'))
    }
    if (this.bufferedAmount <= level) return Promise.resolve()
    if (this.writeDeadlinePassed()) return Promise.reject(this.deadlineError('write'))
    return new Promise((resolve, reject) => {
      this.rarely()[list].push({ resolve, reject })
      this.raiseFlag(flag)
    })
  }

  private settleWaiters(list: 'drained' | 'flushed', error?: unknown): void {
    const waiters = this.rare?.[list]
    if (waiters === undefined || waiters.length === 0) return
    for (const waiter of waiters.splice(0)) {
      if (error === undefined) waiter.resolve()
      else waiter.reject(error)
    }
  }

  // ---- ending ------------------------------------------------------------------------------------------------------

  closeWrite(): void {
    if (this.phase >= Phase.Closing || this.output !== Output.Open) return
    this.output = Output.Finished
    this.loop.push(abi.CommandCloseWrite, this.index, 0, 0)
  }

  close(): void {
    if (this.phase >= Phase.Closing) return
    const dialing = this.phase === Phase.Dialing
    this.phase = Phase.Closing
    this.loop.push(dialing ? abi.CommandAbort : abi.CommandClose, this.index, this.owner.settings.lingerMs, 0)
    this.inbox?.fail(this.closedError('read'))
    this.inbox?.dropHeld()
  }

  abort(reason?: Error): void {
    if (this.phase === Phase.Closed || (this.phase === Phase.Closing && this.reason !== undefined)) return
    this.reason =
      reason instanceof NetError
        ? reason
        : new NetError('ERR_CONN_ABORTED', this.place('close'), reason?.message ?? 'aborted on this side', {
            cause: reason,
          })
    this.phase = Phase.Closing
    this.loop.push(abi.CommandAbort, this.index, 0, 0)
    this.failWaiting(reason ?? this.reason)
  }

  private failWaiting(error: unknown): void {
    this.inbox?.fail(error)
    this.inbox?.dropHeld()
    this.settleWaiters('drained', error)
    this.settleWaiters('flushed', error)
  }

  get closed(): Promise<NetError | undefined> {
    if (this.phase === Phase.Closed) return Promise.resolve(this.reason)
    const rare = this.rarely()
    if (rare.closed === undefined) {
      let resolve!: (error: NetError | undefined) => void
      const promise = new Promise<NetError | undefined>((settle) => {
        resolve = settle
      })
      rare.closed = { promise, resolve }
    }
    return rare.closed.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
    await this.closed
  }

  // ---- deadlines ---------------------------------------------------------------------------------------------------

  setDeadline(deadline: Deadline): void {
    this.setReadDeadline(deadline)
    this.setWriteDeadline(deadline)
  }

  setReadDeadline(deadline: Deadline): void {
    const epoch = typeof deadline === 'number' && deadline === deadline ? deadline : epochOf(deadline)
    this.needOpen('read')
    this.readExpired = false
    storeDeadline(this.loop, this.index, abi.RowReadDeadline, epoch)
    if (epoch <= Date.now() && this.inbox?.hasReader) this.expireReads()
  }

  setWriteDeadline(deadline: Deadline): void {
    const epoch = epochOf(deadline)
    this.needOpen('write')
    this.writeExpired = false
    storeDeadline(this.loop, this.index, abi.RowWriteDeadline, epoch)
    if (epoch <= Date.now()) this.expireWrites()
  }

  setIdleTimeout(ms: number): void {
    checkInteger('configure', 'the idle timeout', ms, 0, BytesMax)
    this.needOpen('configure')
    storeIdleTimeout(this.loop, this.index, ms)
  }

  private expireReads(): void {
    this.setInterest(0)
    this.inbox?.fail(this.deadlineError('read'))
  }

  private expireWrites(): boolean {
    const { rare } = this
    if (rare === undefined || rare.drained.length + rare.flushed.length === 0) return false
    const error = this.deadlineError('write')
    this.settleWaiters('drained', error)
    this.settleWaiters('flushed', error)
    return true
  }

  // ---- leases ------------------------------------------------------------------------------------------------------

  retain<T extends Uint8Array>(chunk: T): T {
    retainAddress(this.loop, lentAddress(this.loop, chunk))
    return chunk
  }

  release(chunk: Uint8Array): void {
    releaseAddress(this.loop, lentAddress(this.loop, chunk))
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

  private address(which: number): readonly [string, string, number] | undefined {
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
    return this.setOption(abi.OptionKeepAlive, on ? Math.max(1, Math.round(initialDelayMs / 1000)) : 0)
  }

  private setOption(option: number, value: number): this {
    this.needOpen('option')
    const result = this.loop.native.setOption(this.index, option, value)
    if (result < 0) throw systemError(result, this.place('option'))
    return this
  }

  ref(): this {
    if (!this.refd && this.index >= 0) this.loop.ref()
    this.refd = true
    return this
  }

  unref(): this {
    if (this.refd && this.index >= 0) this.loop.unref()
    this.refd = false
    return this
  }

  // ---- what the loop tells -----------------------------------------------------------------------------------------

  onConnected(): void {
    if (this.phase !== Phase.Dialing) return
    this.phase = Phase.Open
    this.owner.connConnected(this)
    this.observe(this.owner.handlers?.open?.(this))
  }

  /** The listener has it: tells `open`. */
  start(): void {
    this.observe(this.owner.handlers?.open?.(this))
  }

  onData(address: number, bytes: number): void {
    if (this.phase >= Phase.Closing) return
    if (this.owner.handlers === undefined) {
      this.inbox ??= new Inbox(this.loop)
      this.inbox.feed(address, bytes)
      if (this.inbox.hasReader) this.askForBytes()
      return
    }
    if (this.paused || this.inbox?.hasBytes) {
      this.inbox ??= new Inbox(this.loop)
      this.inbox.hold(address, bytes)
      return
    }
    this.callData(undefined, address, bytes)
  }

  private callData(held: Buffer | undefined, address: number, bytes = 0): void {
    const { handlers } = this.owner
    if (handlers?.data === undefined || this.phase >= Phase.Closing) return
    const result = handlers.data(this, held ?? this.loop.view(address, bytes))
    if (result !== undefined) this.observe(result, address)
  }

  /** What a handler returned: of a promise, its failure counts, and until it settles the chunk at `address` is held. */
  private observe(result: unknown, address = -1): void {
    if (!isThenable(result)) return
    if (address >= 0) retainAddress(this.loop, address)
    const done = () => {
      if (address >= 0) releaseAddress(this.loop, address)
    }
    result.then(done, (error: unknown) => {
      done()
      this.onHandlerError(error)
    })
  }

  onEnd(): void {
    this.input = Input.Ended
    if (this.phase >= Phase.Closing) return
    if (this.owner.handlers === undefined) this.inbox?.end()
    else if (!this.paused && !this.inbox?.hasBytes) this.callEnd()
  }

  private callEnd(): void {
    if (this.phase === Phase.Closing) return
    const { handlers } = this.owner
    if (handlers?.end === undefined) this.close()
    else this.observe(handlers.end(this))
  }

  onHangup(): void {
    if (this.input === Input.Open) this.input = Input.HungUp
  }

  onDrain(): void {
    const crossed = this.aboveHighWater
    this.aboveHighWater = false
    this.settleWaiters('drained')
    if (crossed && this.phase < Phase.Closing) this.observe(this.owner.handlers?.drain?.(this))
  }

  onFlushed(): void {
    this.settleWaiters('flushed')
  }

  onTimeout(which: number): void {
    if (this.phase >= Phase.Closing) return
    if (which === abi.DeadlineIdle) {
      const error = new NetError('ERR_IDLE_TIMEOUT', this.place('read'), 'no byte moved within the idle timeout', {
        timeout: true,
      })
      return this.abort(error)
    }
    const reading = which === abi.DeadlineRead
    if (reading) this.readExpired = true
    else this.writeExpired = true
    if (reading ? this.inbox?.hasReader : this.expireWrites()) {
      if (reading) this.expireReads()
      return
    }
    const { handlers } = this.owner
    if (handlers === undefined) return
    if (handlers.timeout === undefined) this.abort(this.deadlineError(reading ? 'read' : 'write'))
    else this.observe(handlers.timeout(this, reading ? 'read' : 'write'))
  }

  onClosed(op: number, errno: number): void {
    const { loop, owner, index } = this
    this.readBytes = this.bytesRead
    const wasDialing = this.phase === Phase.Dialing
    if (errno !== 0) this.reason ??= systemError(errno, this.place(opName(op)))
    this.phase = Phase.Closed
    const { reason } = this
    if (reason === undefined && (this.paused || this.inbox?.hasBytes) && owner.handlers !== undefined) {
      this.rarely().heldClose = true
    } else {
      this.inbox?.fail(reason ?? this.closedError('read'))
      if (reason !== undefined) this.inbox?.dropHeld()
    }
    // Ended in order: everything that was written has been sent, so those who waited for that have it.
    this.settleWaiters('drained', reason)
    this.settleWaiters('flushed', reason)
    this.acceptedBytes = this.bytesWritten
    loop.conns[index] = undefined
    if (this.refd) loop.unref()
    try {
      owner.connClosed(this, reason)
      if (!wasDialing && !this.rare?.heldClose) this.callClose()
    } finally {
      this.index = -1
      loop.push(abi.CommandAcknowledge, index, 0, 0)
    }
  }

  private callClose(): void {
    const { reason } = this
    this.rare?.closed?.resolve(reason)
    this.observe(this.owner.handlers?.close?.(this, reason))
  }

  /** A handler or the task threw: this connection ends; others are not touched. */
  onHandlerError(error: unknown): void {
    // What the network did to this connection and a handler let through is that connection's end, not a bug to report.
    const expected = error instanceof NetError && isNetworksDoing(error.code)
    this.abort(error instanceof Error ? error : new Error(String(error)))
    if (!expected) this.owner.handlerFailed(this, error)
  }

  // ---- errors ------------------------------------------------------------------------------------------------------

  private needOpen(op: Op): void {
    if (this.phase === Phase.Closed) throw this.reason ?? this.closedError(op)
  }

  private closedError(op: Op): NetError {
    return new NetError('ERR_CONN_CLOSED', this.place(op), 'the connection is closed')
  }

  private deadlineError(op: Op): NetError {
    return new NetError('ERR_DEADLINE_EXCEEDED', this.place(op), 'deadline exceeded', { timeout: true })
  }

  private place(op: Op): ErrorPlace {
    const local = this.address(abi.AddressLocal)
    const remote = this.address(abi.AddressRemote)
    const unix = (remote ?? local)?.[0] === 'unix'
    const text = (address: typeof local): string | undefined => {
      if (address === undefined) return undefined
      return unix ? printablePath(address[1]) : joinHostPort(address[1], address[2])
    }
    return { op, network: unix ? 'unix' : 'tcp', local: text(local), remote: text(remote) }
  }

  private rarely(): Rare {
    this.rare ??= { drained: [], flushed: [], addresses: [], closed: undefined, heldClose: false }
    return this.rare
  }
}

function opName(op: number): Op {
  if (op === abi.OpDial) return 'dial'
  if (op === abi.OpWrite) return 'write'
  return op === abi.OpClose ? 'close' : 'read'
}

/** Codes of the system, and those of ours that say what the peer or the clock did. */
function isNetworksDoing(code: string): boolean {
  if (!code.startsWith('ERR_')) return true
  return (
    code === 'ERR_DEADLINE_EXCEEDED' ||
    code === 'ERR_IDLE_TIMEOUT' ||
    code === 'ERR_CONN_CLOSED' ||
    code === 'ERR_CONN_ABORTED' ||
    code === 'ERR_BUFFER_OVERFLOW'
  )
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function'
}

function bytesOf(data: unknown): Uint8Array {
  if (data instanceof Uint8Array) return data
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  if (data instanceof ArrayBuffer) return new Uint8Array(data)
  throw invalidArgument('write', 'write() takes a string, a Uint8Array, an ArrayBuffer or a DataView', data)
}
