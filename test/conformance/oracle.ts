// The oracle: Node's net.Socket behind the same interface. A property that it does not satisfy is a wrong property.

import type net from 'node:net'
import type { ConnOptions, Deadline } from 'edgewire'
import { KiB } from '../e2e/harness.ts'
import { type End, type Events, epochOf, type Failure, failure, QueuedEnd, ReadQueue } from './ends.ts'

/** What close() gives the peer for its FIN, as edgewire does. */
const PeerFinWaitMs = 1000

const exceeded = () => failure('ERR_DEADLINE_EXCEEDED', 'deadline exceeded', true)

/** An absolute instant, kept with timers that may be early by a fraction of a millisecond. */
class Alarm {
  at = Number.POSITIVE_INFINITY
  private timer: NodeJS.Timeout | undefined

  constructor(private readonly ring: () => void) {}

  set(deadline: Deadline): void {
    const at = epochOf(deadline)
    if (Number.isNaN(at)) throw failure('ERR_INVALID_ARG', 'not a deadline')
    this.at = at
    this.wait()
  }

  get isPast(): boolean {
    return this.at <= Date.now()
  }

  stop(): void {
    clearTimeout(this.timer)
  }

  private wait(): void {
    clearTimeout(this.timer)
    const ms = this.at - Date.now()
    if (ms <= 0) this.ring()
    else if (ms < 2 ** 31) this.timer = setTimeout(() => this.wait(), ms)
  }
}

interface Waiter {
  resolve(): void
  reject(error: Failure): void
}

export class SocketEnd extends QueuedEnd implements End, Events {
  onData: ((chunk: Buffer) => void) | undefined
  drains = 0
  ends = 0
  readonly closed: Promise<Failure | undefined>
  protected readonly queue: ReadQueue
  private readonly readAlarm = new Alarm(() => this.queue.expire(exceeded()))
  private readonly writeAlarm = new Alarm(() => this.settle(this.drainWaiters, exceeded()))
  /** Those that wait for flushed() among them, with their level. */
  private readonly drainWaiters: (Waiter & { level: number })[] = []
  private readonly lowWaterMark: number
  private readonly highWaterMark: number
  private readonly lingerMs: number
  private readonly timers: NodeJS.Timeout[] = []
  private error: Failure | undefined
  private closing = false
  private writeEnded = false
  private aboveHighWater = false

  constructor(
    readonly socket: net.Socket,
    options: ConnOptions = {},
  ) {
    super()
    this.highWaterMark = options.highWaterMark ?? 64 * KiB
    this.lowWaterMark = options.lowWaterMark ?? Math.floor(this.highWaterMark / 2)
    this.lingerMs = options.lingerMs ?? 10_000
    this.queue = new ReadQueue({ pause: () => socket.pause(), resume: () => socket.resume() })
    socket.on('data', (chunk: Buffer) => {
      if (this.closing) return
      if (this.onData === undefined) this.queue.push(chunk)
      else this.onData(chunk)
    })
    socket.on('end', () => {
      this.ends++
      this.queue.end()
    })
    socket.on('error', (error) => {
      this.error ??= error
      this.queue.fail(this.error)
      this.settle(this.drainWaiters, this.error)
    })
    this.closed = new Promise((resolve) =>
      socket.once('close', () => {
        for (const timer of this.timers) clearTimeout(timer)
        this.readAlarm.stop()
        this.writeAlarm.stop()
        this.settle(this.drainWaiters, this.error)
        resolve(this.error)
      }),
    )
  }

  get events(): Events {
    return this
  }

  read(into: Uint8Array): Promise<number | null> {
    if (this.readAlarm.isPast && this.queue.refuse === undefined) return Promise.reject(exceeded())
    return this.queue.read(into)
  }

  write(data: string | Uint8Array): boolean {
    if (this.error !== undefined) throw this.error
    if (this.closing) throw failure('ERR_CONN_CLOSED', 'closed')
    if (this.writeEnded) throw failure('ERR_WRITE_CLOSED', 'write after closeWrite()')
    if (this.writeAlarm.isPast) throw exceeded()
    if (data.length === 0) return !this.aboveHighWater
    // A copy: net.Socket sends from the caller's memory.
    this.socket.write(typeof data === 'string' ? data : Buffer.from(data), () => this.wroteSome())
    if (this.bufferedAmount > this.highWaterMark) this.aboveHighWater = true
    return !this.aboveHighWater
  }

  private wroteSome(): void {
    // Node counts a write as gone after its callback.
    setImmediate(() => {
      if (this.aboveHighWater && this.bufferedAmount <= this.lowWaterMark) {
        this.aboveHighWater = false
        this.drains++
      }
      const reached = this.drainWaiters.filter((waiter) => this.bufferedAmount <= waiter.level)
      this.settle(reached.sort((one, other) => other.level - one.level))
    })
  }

  private settle(waiters: (Waiter & { level: number })[], error?: Failure): void {
    for (const waiter of [...waiters]) {
      this.drainWaiters.splice(this.drainWaiters.indexOf(waiter), 1)
      if (error === undefined) waiter.resolve()
      else waiter.reject(error)
    }
  }

  drained(): Promise<void> {
    return this.below(this.lowWaterMark)
  }

  flushed(): Promise<void> {
    return this.below(0)
  }

  private below(level: number): Promise<void> {
    if (this.error !== undefined) return Promise.reject(this.error)
    if (this.bufferedAmount <= level) return Promise.resolve()
    if (this.writeAlarm.isPast) return Promise.reject(exceeded())
    return new Promise((resolve, reject) => this.drainWaiters.push({ level, resolve, reject }))
  }

  closeWrite(): void {
    if (this.closing || this.writeEnded) return
    this.writeEnded = true
    this.socket.end()
  }

  close(): void {
    if (this.closing) return
    this.closing = true
    this.stopReading(failure('ERR_CONN_CLOSED', 'closed'))
    // What comes is dropped, so that no unread byte turns the end into a reset.
    this.socket.resume()
    this.socket.end(() => this.after(PeerFinWaitMs, () => this.socket.destroy()))
    this.after(this.lingerMs, () => {
      if (this.bufferedAmount > 0) this.reset(failure('ETIMEDOUT', 'timed out'))
    })
  }

  private after(ms: number, act: () => void): void {
    this.timers.push(setTimeout(act, ms))
  }

  abort(): void {
    if (this.closing && this.error !== undefined) return
    this.closing = true
    this.reset(failure('ERR_CONN_ABORTED', 'aborted'))
  }

  private reset(error: Failure): void {
    if (this.socket.destroyed) return
    this.error ??= error
    this.stopReading(error)
    this.settle(this.drainWaiters, error)
    // A socket that has begun its shutdown(2) cannot be reset: libuv refuses, and net.Socket never closes then.
    const finishing = this.socket.writableEnded && this.socket.writableLength === 0
    if (finishing || this.socket.remoteAddress === undefined) this.socket.destroy()
    else this.socket.resetAndDestroy()
  }

  setReadDeadline(deadline: Deadline): void {
    this.readAlarm.set(deadline)
    this.queue.deadline = epochOf(deadline)
  }

  setWriteDeadline(deadline: Deadline): void {
    this.writeAlarm.set(deadline)
  }

  get bufferedAmount(): number {
    return this.socket.writableLength
  }

  get bytesWritten(): number {
    return this.socket.bytesWritten - this.socket.writableLength
  }

  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }
}
