// A connection: the contract is Conn in net.ts, the native half native/core/conn.h.

import { isUint8Array } from 'node:util/types'
import * as abi from './abi.js'
import { checkInteger } from './addr.js'
import { BytesMax, type ConnOwner, Input, Mark, Output, Phase } from './conn_core.js'
import { ConnOutput } from './conn_output.js'
import { epochOf, hasFired, idleTimeoutMs, isPast, markFired, storeDeadline, storeIdleTimeout } from './deadline.js'
import { describeValue, invalidArgument, NetError, type Op, systemError } from './errors.js'
import { Inbox } from './inbox.js'
import { releaseAddress, releaseChunk, retainAddress, retainChunk } from './lease.js'
import type { ConnSink, Loop } from './loop.js'
import type { Conn, Deadline } from './net.js'

export class StreamConn extends ConnOutput implements Conn, ConnSink {
  constructor(loop: Loop, index: number, owner: ConnOwner, dialing: boolean) {
    super(loop, index, owner, dialing)
    loop.conns[index] = this
    if (owner.handlers !== undefined) this.setInterest(abi.ReadStream)
  }

  // ---- reading -----------------------------------------------------------------------------------------------------

  read(into: Uint8Array): Promise<number | null> {
    if (!isUint8Array(into) || into.length === 0) {
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
      return new NetError(
        'ERR_WRONG_STYLE',
        this.place('read'),
        'this connection has event handlers, which get its bytes',
      )
    }
    if (this.phase >= Phase.Closing) {
      // Both directions came to their end in order: what was read before is still there, and then null.
      if (this.reason === undefined && this.input === Input.Ended) return undefined
      return this.reason ?? this.closedError('read')
    }
    return isPast(this.loop, this.index, abi.RowReadDeadline) ? this.deadlineError('read') : undefined
  }

  /** The oldest reader wants bytes that are not here. */
  private askForBytes(): void {
    this.setInterest(this.inbox?.interest ?? 0)
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
    // An orderly end that is still to be told: what is held is delivered at the handler's own pace.
    if (!this.rare?.heldClose) this.needOpen('read')
    if (this.has(Mark.Paused)) return
    this.mark(Mark.Paused)
    this.setInterest(0)
  }

  resume(): void {
    this.needHandlers('resume()')
    if (!this.has(Mark.Paused)) return
    this.unmark(Mark.Paused)
    if (this.inbox?.hasBytes || this.input === Input.Ended || this.rare?.heldClose) {
      // Not from here: the caller may be a handler of this very connection.
      queueMicrotask(() => this.context?.runInAsyncScope(this.deliverHeld, this))
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
      while (!this.has(Mark.Paused) && this.inbox?.hasBytes) {
        this.inbox.takeHeld((bytes, address) => this.callData(bytes, address))
      }
      if (this.has(Mark.Paused)) return
      if (this.rare?.heldClose) {
        if (this.input === Input.Ended) this.callEnd()
        this.rare.heldClose = false
        this.callClose()
      } else if (this.phase < Phase.Closing) {
        if (this.input === Input.Ended) this.callEnd()
        else this.setInterest(abi.ReadStream)
      }
    } catch (error) {
      this.onHandlerError(error)
      this.tellHeldClose()
    }
  }

  /** When only the telling was left: a handler threw, or gave it up. `close` is told all the same. */
  private tellHeldClose(): void {
    if (!this.rare?.heldClose) return
    this.rare.heldClose = false
    this.inbox?.dropHeld()
    try {
      this.callClose()
    } catch (error) {
      this.onHandlerError(error)
    }
  }

  // ---- ending ------------------------------------------------------------------------------------------------------

  closeWrite(): void {
    if (this.phase >= Phase.Closing || this.output !== Output.Open) return
    this.output = Output.Finished
    this.loop.push(abi.CommandCloseWrite, this.index, 0, 0)
  }

  close(): void {
    if (this.rare?.heldClose) this.forgoHeld()
    if (this.phase >= Phase.Closing) return
    const dialing = this.phase === Phase.Dialing
    this.phase = Phase.Closing
    this.loop.push(dialing ? abi.CommandAbort : abi.CommandClose, this.index, this.owner.settings.lingerMs, 0)
    this.inbox?.fail(this.closedError('read'))
    // What is dropped will be missing, so the peer's FIN behind it is not the end that a read may report.
    if (this.inbox?.hasBytes) this.input = Input.HungUp
    this.inbox?.dropHeld()
  }

  /** close() or abort() of a connection that is over but for the telling: only `close` is told, after the caller. */
  private forgoHeld(): void {
    this.inbox?.dropHeld()
    this.mark(Mark.EndTold)
    queueMicrotask(() => this.context?.runInAsyncScope(this.tellHeldClose, this))
  }

  abort(reason?: Error): void {
    if (this.rare?.heldClose) this.forgoHeld()
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
    const epoch = epochOf(deadline)
    this.needOpen('read')
    storeDeadline(this.loop, this.index, abi.RowReadDeadline, epoch)
    if (this.inbox?.hasReader && epoch <= Date.now()) this.expireReads()
  }

  setWriteDeadline(deadline: Deadline): void {
    const epoch = epochOf(deadline)
    this.needOpen('write')
    storeDeadline(this.loop, this.index, abi.RowWriteDeadline, epoch)
    if (this.rare === undefined || epoch > Date.now()) return
    // Those who waited have it: there is nothing left for the `timeout` handler.
    if (this.expireWrites()) markFired(this.loop, this.index, abi.RowWriteDeadline)
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
    retainChunk(this.loop, chunk)
    return chunk
  }

  release(chunk: Uint8Array): void {
    releaseChunk(this.loop, chunk)
  }

  // ---- what the loop tells -----------------------------------------------------------------------------------------

  onConnected(): void {
    if (this.phase !== Phase.Dialing) return
    this.phase = Phase.Open
    this.owner.connConnected(this)
    this.start()
  }

  /** Tells `open`. */
  start(): void {
    this.mark(Mark.Opened)
    this.observe(this.owner.handlers?.open?.(this))
  }

  onData(address: number, bytes: number): void {
    if (this.phase >= Phase.Closing) return
    if (this.owner.handlers === undefined) {
      if (this.stir()) return
      this.inbox ??= new Inbox(this.loop)
      this.inbox.feed(address, bytes)
      if (this.inbox.hasReader) this.askForBytes()
      return
    }
    if (this.has(Mark.Paused) || this.inbox?.hasBytes) {
      this.inbox ??= new Inbox(this.loop)
      this.inbox.hold(address, bytes)
      return
    }
    this.callData(undefined, address, bytes)
  }

  private callData(held: Buffer | undefined, address: number, bytes = 0): void {
    const { handlers } = this.owner
    if (handlers?.data === undefined || (this.phase >= Phase.Closing && !this.rare?.heldClose)) return
    const result = handlers.data(this, held ?? this.loop.lend(address, bytes))
    if (result !== undefined) this.observe(result, address)
  }

  /** What a handler returned: of a promise, its failure counts, and until it settles the chunk at `address` is held. */
  private observe(result: unknown, address = -1): void {
    if (!isThenable(result)) return
    if (address >= 0) retainAddress(this.loop, address)
    const done = () => {
      if (address >= 0) releaseAddress(this.loop, address)
    }
    // By way of a promise of our own: a thenable of the user's may call back twice.
    Promise.resolve(result).then(done, (error: unknown) => {
      done()
      this.onHandlerError(error)
    })
  }

  onEnd(): void {
    this.input = Input.Ended
    if (this.phase >= Phase.Closing) return
    if (this.owner.handlers !== undefined) {
      if (!this.has(Mark.Paused) && !this.inbox?.hasBytes) this.callEnd()
      return
    }
    this.inbox?.end()
    this.stir()
  }

  private callEnd(): void {
    if (this.has(Mark.EndTold) || (this.phase >= Phase.Closing && !this.rare?.heldClose)) return
    this.mark(Mark.EndTold)
    const { handlers } = this.owner
    if (handlers?.end === undefined) this.close()
    else this.observe(handlers.end(this))
  }

  onHangup(): void {
    if (this.input === Input.Open) this.input = Input.HungUp
    this.stir()
  }

  onDrain(): void {
    const crossed = this.has(Mark.AboveHighWater)
    this.unmark(Mark.AboveHighWater)
    this.settleWaiters('drained')
    if (crossed && this.phase < Phase.Closing) this.observe(this.owner.handlers?.drain?.(this))
  }

  onFlushed(): void {
    this.settleWaiters('flushed')
  }

  onTimeout(which: number): void {
    if (this.phase >= Phase.Closing) return
    if (which === abi.DeadlineIdle) {
      if (idleTimeoutMs(this.loop, this.index) > 0) return
      const error = new NetError('ERR_IDLE_TIMEOUT', this.place('read'), 'no byte moved within the idle timeout', {
        timeout: true,
      })
      this.abort(error)
      return
    }
    const reading = which === abi.DeadlineRead
    // Moved since: a handler earlier in this batch has set another deadline.
    if (!hasFired(this.loop, this.index, reading ? abi.RowReadDeadline : abi.RowWriteDeadline)) return
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
    const inOrder = this.phase < Phase.Closing
    if (errno !== 0) this.reason ??= systemError(errno, this.place(opName(op)))
    this.phase = Phase.Closed
    const { reason } = this
    if (
      inOrder &&
      reason === undefined &&
      (this.has(Mark.Paused) || this.inbox?.hasBytes) &&
      owner.handlers !== undefined
    ) {
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
    if (!this.has(Mark.Unref)) loop.unref()
    try {
      this.stir()
      owner.connClosed(this, reason)
      if (!this.rare?.heldClose) this.callClose()
    } finally {
      this.index = -1
      loop.push(abi.CommandAcknowledge, index, 0, 0)
    }
  }

  private callClose(): void {
    const { reason } = this
    this.rare?.closed?.resolve(reason)
    this.owner.keeper?.ended(reason)
    if (this.has(Mark.Opened)) this.observe(this.owner.handlers?.close?.(this, reason))
  }

  /** A handler or the task threw: this connection ends; others are not touched. */
  onHandlerError(error: unknown): void {
    // What the network did to this connection and a handler let through is that connection's end, not a bug to report.
    const expected = error instanceof NetError && isNetworksDoing(error.code)
    // close() was called: what is queued is still sent, and a read that waited has failed because of it.
    if (this.phase < Phase.Closing) this.abort(error instanceof Error ? error : new Error(describeValue(error)))
    if (!expected) this.owner.handlerFailed(this, error)
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
