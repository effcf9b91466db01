// What has been read from the kernel and not taken yet, and who waits for it: the reading half of a connection that is
// read by read() or iteration, and the waiting room of a paused one.

import * as abi from './abi.js'
import { invalidArgument } from './errors.js'
import { ownedCopy, releaseAddress, retainAddress } from './lease.js'
import type { Loop } from './loop.js'

/** Held bytes below this are copied, so that they do not keep a whole chunk of the pool. */
const CopyBelowBytes = 4096
const NotLeased = -1
const ChunkBytes = 1 << abi.ChunkBytesLog2
/** Bytes are read ahead while no more than one part in so many of the pool is in use. */
const PoolPartReadAhead = 4

/** A read that waits: into the caller's buffer, or (null) for a chunk that the caller will own. */
interface PendingRead {
  into: Uint8Array | null
  resolve(value: never): void
  reject(error: unknown): void
}

interface Held {
  bytes: Buffer
  /** The pool address that is leased for it, or NotLeased when `bytes` is a copy. */
  address: number
}

export class Inbox {
  /** The oldest waiting read, apart from the others because as a rule it is the only one. */
  private first: PendingRead | undefined
  private others: PendingRead[] | undefined
  private held: Held[] | undefined
  /** The last read was filled to the brim: there is more behind it, as a rule. */
  private filled = false
  /** The memory that the last read() was given; see Loop.reads. */
  private memory: ArrayBufferLike | undefined

  constructor(private readonly loop: Loop) {}

  get hasReader(): boolean {
    return this.first !== undefined
  }

  get hasBytes(): boolean {
    return this.held !== undefined
  }

  /**
   * How much to read for the oldest reader; see InterestRead in native/abi.h. Small reads are read ahead, so that parsing
   * a header byte by byte does not cost a system call each; and so are those of a reader whose buffer was too small the
   * last time, as long as what readers leave here keeps no more than a part of the pool from others.
   */
  get interest(): number {
    const into = this.first?.into
    const { metrics } = this.loop
    const roomy = metrics[abi.MetricSlabInUse] * PoolPartReadAhead <= metrics[abi.MetricSlabBudget]
    if (into === null || into === undefined || (this.filled && roomy)) return ChunkBytes
    return Math.min(Math.max(into.length, CopyBelowBytes), ChunkBytes)
  }

  /** Queues a read; it is served at once when bytes are held. */
  read<T>(into: Uint8Array | null): Promise<T> {
    if (into !== null && into.buffer !== this.memory) {
      this.memory = into.buffer
      this.loop.reads(into.buffer)
    }
    return new Promise<T>((resolve, reject) => {
      if (this.loop.debug && into !== null && this.waitsFor(into)) warnOfSharedBuffer()
      const read: PendingRead = { into, resolve: resolve as (value: never) => void, reject }
      if (this.first === undefined) this.first = read
      else if (this.others === undefined) this.others = [read]
      else this.others.push(read)
      if (this.held !== undefined) this.serveHeld()
    })
  }

  private waitsFor(into: Uint8Array): boolean {
    const waiting = this.first === undefined ? [] : [this.first, ...(this.others ?? [])]
    return waiting.some((read) => read.into?.buffer === into.buffer && read.into.byteOffset === into.byteOffset)
  }

  private shift(): PendingRead {
    const read = this.first as PendingRead
    this.first = this.others?.shift()
    if (this.others?.length === 0) this.others = undefined
    return read
  }

  /** Bytes have come from the pool: to the readers in order, and what is left is held. */
  feed(address: number, bytes: number): void {
    if (this.held !== undefined || this.first === undefined) {
      this.hold(address, bytes)
      if (this.first !== undefined) this.serveHeld()
      return
    }
    const { into } = this.first
    if (into === null) {
      const chunk = Buffer.allocUnsafe(bytes)
      this.loop.slabs.copyOut(address, bytes, chunk)
      this.shift().resolve(chunk as never)
      return
    }
    const count = Math.min(bytes, into.length)
    this.filled = bytes >= into.length
    // A buffer whose memory was transferred away while the read waited takes nothing; see serveHeld().
    if (count > 0) {
      this.loop.sendBrieflyPinned()
      this.loop.slabs.copyOut(address, count, into)
      this.shift().resolve(count as never)
    }
    if (count === bytes) return
    this.hold(address + count, bytes - count)
    if (this.first !== undefined) this.serveHeld()
  }

  hold(address: number, bytes: number): void {
    let entry: Held
    if (bytes < CopyBelowBytes) {
      const copy = ownedCopy(bytes)
      this.loop.slabs.copyOut(address, bytes, copy)
      entry = { bytes: copy, address: NotLeased }
    } else {
      retainAddress(this.loop, address)
      entry = { bytes: this.loop.slabs.view(address, bytes), address }
    }
    if (this.held === undefined) this.held = [entry]
    else this.held.push(entry)
  }

  private serveHeld(): void {
    while (this.first !== undefined && this.held !== undefined) {
      const entry = this.held[0] as Held
      const read = this.shift()
      if (read.into === null) {
        read.resolve((entry.address === NotLeased ? entry.bytes : Buffer.from(entry.bytes)) as never)
        this.dropFirst()
        continue
      }
      const count = Math.min(read.into.length, entry.bytes.length)
      if (count === 0) {
        read.reject(invalidArgument('read', 'the buffer to read into was detached while the read waited', read.into))
        continue
      }
      this.loop.sendBrieflyPinned()
      read.into.set(entry.bytes.subarray(0, count))
      if (count === entry.bytes.length) this.dropFirst()
      else entry.bytes = entry.bytes.subarray(count)
      read.resolve(count as never)
    }
  }

  /** The oldest held bytes for an event handler: `use` gets them and where they lie (or -1), then they are let go. */
  takeHeld(use: (bytes: Buffer, address: number) => void): void {
    const entry = this.shiftHeld()
    if (entry === undefined) return
    try {
      use(entry.bytes, entry.address)
    } finally {
      // Only now: the handler may have retained it, or closed the connection, which drops all that is held.
      this.letGo(entry)
    }
  }

  private shiftHeld(): Held | undefined {
    const entry = this.held?.shift()
    if (this.held?.length === 0) this.held = undefined
    return entry
  }

  private letGo(entry: Held | undefined): void {
    if (entry !== undefined && entry.address !== NotLeased) releaseAddress(this.loop, entry.address)
  }

  private dropFirst(): void {
    this.letGo(this.shiftHeld())
  }

  dropHeld(): void {
    while (this.held !== undefined) this.dropFirst()
  }

  /** The peer's FIN: readers that still wait get null. Held bytes come first, so there are none then. */
  end(): void {
    while (this.first !== undefined) this.shift().resolve(null as never)
  }

  fail(error: unknown): void {
    while (this.first !== undefined) this.shift().reject(error)
  }
}

/** Debug mode. */
function warnOfSharedBuffer(): void {
  const { stack } = new Error('read here')
  process.emitWarning('two reads of a connection wait for the same buffer: is an await missing before read()?', {
    type: 'EdgewireWarning',
    code: 'EDGEWIRE_READ',
    ...(stack === undefined ? {} : { detail: stack }),
  })
}
