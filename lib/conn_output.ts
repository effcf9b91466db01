// The writing half of a connection. Nothing is sent from here: bytes and commands lie in shared memory until the turn
// flushes them, all writes of a connection in one system call.

import { isArrayBuffer } from 'node:util/types'
import * as abi from './abi.js'
import { ConnCore, Mark, Output, Phase } from './conn_core.js'
import { isPast } from './deadline.js'
import { invalidArgument, NetError } from './errors.js'
import type { Writable } from './net.js'

/** Writes below this are copied: cheaper than keeping track of whose memory it is. */
const CopyBelowBytes = 4 * 1024
/** The very chunk that a handler was lent is sent from where it lies from this on: it is recognised for nothing. */
const LentFromBytes = 1024
/** Writes from this on are sent from the caller's memory; between the two, only lent chunks are. */
const PinFromBytes = 32 * 1024

export abstract class ConnOutput extends ConnCore {
  abstract abort(reason?: Error): void

  // ---- writing -----------------------------------------------------------------------------------------------------

  write(data: Writable): boolean {
    const { loop } = this
    if (this.phase >= Phase.Closing || this.output !== Output.Open || this.writeDeadlinePassed()) {
      // Overflowed, but its `close` is not told yet: a fan-out that goes on writing to it is no mistake.
      if (this.phase === Phase.Closing && this.reason?.code === 'ERR_BUFFER_OVERFLOW') return false
      throw this.writeRefusal()
    }
    if (typeof data !== 'string') return this.writeBytes(bytesOf(data))
    if (!loop.fitsArena(data) || this.bufferedAmount + data.length * 3 > this.limitBytes) {
      return this.writeBytes(Buffer.from(data))
    }
    return data.length === 0 ? !this.has(Mark.AboveHighWater) : this.wrote(loop.writeText(this.index, data))
  }

  protected writeBytes(bytes: Uint8Array): boolean {
    const { loop, index } = this
    const count = bytes.length
    if (count === 0) {
      checkAttached(bytes)
      return !this.has(Mark.AboveHighWater)
    }
    if (loop.debug) this.checkLent(bytes)
    if (this.bufferedAmount + count > this.limitBytes) return this.overflow(count)
    if (count < CopyBelowBytes) {
      if (count >= LentFromBytes && loop.isLentView(bytes)) {
        loop.push(abi.CommandWriteSlab, index, loop.lentAddress | 0, count)
      } else {
        loop.writeCopy(index, bytes)
      }
      return this.wrote(count)
    }
    const address = loop.sendableAddressOf(bytes)
    if (address >= 0) loop.push(abi.CommandWriteSlab, index, address | 0, count)
    else if (count < PinFromBytes) loop.writeCopy(index, bytes)
    else this.writePinned(bytes)
    return this.wrote(count)
  }

  /** Debug mode: bytes of the pool that nobody holds are somebody else's by now. */
  protected checkLent(bytes: Uint8Array): void {
    const address = this.loop.slabs.addressOf(bytes)
    if (address < 0 || this.loop.isLent(address)) return
    const reason =
      'the handler that this chunk was lent to has returned: retain() it there, or copy it with Buffer.from()'
    throw new NetError('ERR_CHUNK_EXPIRED', this.place('write'), reason, { value: bytes })
  }

  protected writePinned(bytes: Uint8Array): void {
    // Memory of the pool that nobody holds, or that other threads share, may change before it is sent.
    const own = this.loop.slabs.owns(bytes) || !(bytes.buffer instanceof ArrayBuffer) ? Buffer.from(bytes) : bytes
    if (this.loop.writePinned(this.index, own)) return
    throw new NetError('ENOMEM', this.place('write'), 'out of memory')
  }

  protected wrote(count: number): boolean {
    this.acceptedBytes += count
    if (this.bufferedAmount <= this.owner.settings.highWaterMark) return !this.has(Mark.AboveHighWater)
    this.awaitDrain()
    return false
  }

  private awaitDrain(): void {
    this.mark(Mark.AboveHighWater)
    this.raiseFlag(abi.FlagWantDrain)
  }

  protected raiseFlag(flag: number): void {
    this.loop.words[this.index * abi.InterestWords + abi.InterestFlags] |= flag
  }

  protected overflow(count: number): boolean {
    const { owner } = this
    const { overflow } = owner.settings
    if (overflow === 'drop') {
      owner.overflowDrops++
      this.loop.overflowDrops++
      if (this.bufferedAmount > owner.settings.lowWaterMark) this.awaitDrain()
      return false
    }
    const text = `${count} bytes on top of ${this.bufferedAmount} would pass maxBufferedBytes (${this.limitBytes})`
    const error = new NetError('ERR_BUFFER_OVERFLOW', this.place('write'), text)
    if (overflow === 'throw') {
      owner.overflowDrops++
      this.loop.overflowDrops++
      throw error
    }
    // No exception: in a fan-out it would end the sender's handler, and with it the sender's connection.
    owner.overflowAborts++
    this.loop.overflowAborts++
    this.abort(error)
    return false
  }

  protected writeDeadlinePassed(): boolean {
    return isPast(this.loop, this.index, abi.RowWriteDeadline)
  }

  protected writeRefusal(): NetError {
    if (this.phase >= Phase.Closing && this.reason !== undefined) return this.reason
    if (this.phase >= Phase.Closing) return this.closedError('write')
    if (this.output !== Output.Open) {
      return new NetError('ERR_WRITE_CLOSED', this.place('write'), 'write after closeWrite()')
    }
    return this.deadlineError('write')
  }

  drained(): Promise<void> {
    return this.waitForOutput('drained', this.owner.settings.lowWaterMark, abi.FlagWantDrain)
  }

  flushed(): Promise<void> {
    return this.waitForOutput('flushed', 0, abi.FlagWantFlushed)
  }

  protected waitForOutput(list: 'drained' | 'flushed', level: number, flag: number): Promise<void> {
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

  protected settleWaiters(list: 'drained' | 'flushed', error?: unknown): void {
    const waiters = this.rare?.[list]
    if (waiters === undefined || waiters.length === 0) return
    for (const waiter of waiters.splice(0)) {
      if (error === undefined) waiter.resolve()
      else waiter.reject(error)
    }
  }
}

function bytesOf(data: unknown): Uint8Array {
  if (data instanceof Uint8Array) return data
  try {
    if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    if (isArrayBuffer(data)) return new Uint8Array(data)
  } catch {
    throw detachedArgument(data)
  }
  throw invalidArgument('write', 'write() takes a string, a Uint8Array, an ArrayBuffer or a DataView', data)
}

/** A view of memory that was transferred away, or shrunk so far, has no bytes either, but was not meant to be empty. */
function checkAttached(bytes: Uint8Array): void {
  try {
    // The cheapest call that asks; `detached` of ArrayBuffer is newer than Node 20.
    Uint8Array.prototype.keys.call(bytes)
  } catch {
    throw detachedArgument(bytes)
  }
}

function detachedArgument(data: unknown): NetError {
  return invalidArgument('write', 'the bytes to write were transferred away, or their buffer shrunk', data)
}
