// This side of the bridge: takes completions out of the ring and writes commands into it. One Loop per thread.
//
// The shared memory is described in native/abi.h. dispatch() is called once per round with everything that has
// happened; it runs the handlers, and what they ask for lies in the command ring when it returns.

import type { AsyncResource } from 'node:async_hooks'
import { Buffer } from 'node:buffer'
import * as abi from './abi.js'
import { type Binding, binding, type Hooks } from './binding.js'
import { DispatchScope } from './dispatch_scope.js'
import { type Driver, driverFromEnvironment, driverName, driverNumber, refusal } from './driver.js'
import { CopyLoopBytes, type Slab, SlabViews } from './slab_views.js'

/** A connection, as the loop sees it. */
export interface ConnSink {
  /** The async context (AsyncLocalStorage) in which its handlers run; undefined: it has none. */
  readonly context: AsyncResource | undefined
  onConnected(): void
  onData(address: number, bytes: number): void
  onEnd(): void
  onHangup(): void
  onDrain(): void
  onFlushed(): void
  onTimeout(which: number): void
  onClosed(op: number, errno: number): void
  /** A handler of this connection threw. Must not throw. */
  onHandlerError(error: unknown): void
}

export interface ListenerSink {
  readonly context: AsyncResource
  onAccepted(index: number): void
  onAcceptError(errno: number): void
  onHandlerError(error: unknown): void
}

const CompletionMask = abi.CompletionCapacity - 1
const CommandMask = abi.CommandCapacity - 1
/** Who carries out commands that are left outside a dispatch: the driver by itself, or we, at once or soon already. */
const Flushing = { ByDriver: 0, Wanted: 1, UnderWay: 2 } as const

const ChunkMask = 2 ** abi.ChunkBytesLog2 - 1

/** A string may take three bytes a character: up to this many characters are encoded straight into the arena. */
const ArenaStringMax = 16 * 1024
/** Up to so many characters of ASCII are copied in a loop: Buffer.prototype.write is a call into C++. */
const TextLoopChars = 16

/** Chunks of 64 KiB that may be in use at once, by default: 256 MiB. See configure(). */
export const DefaultSlabBudgetBytes = 256 * 1024 * 1024
export const SlabBudgetBytesMin = 2 ** abi.SlabBytesLog2
export const SlabBudgetBytesMax = 2 ** 32

export class Loop {
  readonly native: Binding
  /** Who gives the reactor its turns. */
  readonly driver: Driver
  readonly control: Int32Array
  readonly metrics: Float64Array
  /** Rows of RowWords and InterestWords per connection; replaced when the tables grow, so do not keep them. */
  doubles = new Float64Array(0)
  words = new Int32Array(0)

  readonly slabs: SlabViews
  readonly scope: DispatchScope
  readonly conns: (ConnSink | undefined)[] = []
  readonly listeners: (ListenerSink | undefined)[] = []
  /** The bytes that the current `data` completion lends: an address and a length; bytes 0 outside of one. */
  lentAddress = 0
  lentBytes = 0
  /** The object that its handler got. */
  private lentView: Buffer | undefined
  /** Chunks that JavaScript holds beyond the handler, with how often. */
  readonly leases = new Map<number, number>()

  /** Over all connections; each listener counts its own as well. */
  overflowAborts = 0
  overflowDrops = 0
  /** Leases whose object was collected unreleased. */
  leakedLeases = 0

  private readonly hooks: Hooks
  private readonly completions: Int32Array
  private readonly commands: Int32Array
  private readonly arena: Buffer
  /** Memory that read() was given. Written back to the network, it is copied if it cannot be sent at once. */
  private readonly readMemory = new WeakSet<ArrayBufferLike>()
  /** Such memory may stand in the command ring. */
  private brieflyPinned = false
  private flushing: (typeof Flushing)[keyof typeof Flushing]
  private rows = 0
  private refs = 0
  /** Whose handler runs: gets what it throws. */
  private current: ConnSink | ListenerSink | undefined

  constructor(
    budgetBytes: number,
    /** EDGEWIRE_DEBUG=1: look for mistakes, at a price. */
    readonly debug: boolean,
    driver: Driver,
  ) {
    this.native = binding()
    this.scope = new DispatchScope(this.native.setScope)
    const opened: (Slab | undefined)[] = []
    this.hooks = { dispatch: () => this.dispatchBatch(), slabs: [], opened }
    this.slabs = new SlabViews(this.hooks.slabs, opened)
    const shared = this.native.open(this.hooks, budgetBytes, debug, driverNumber(driver))
    if (typeof shared !== 'object') throw refusal(driver, shared)
    this.control = new Int32Array(shared.control)
    this.metrics = new Float64Array(shared.metrics)
    this.completions = new Int32Array(shared.completions)
    this.commands = new Int32Array(shared.commands)
    this.arena = Buffer.from(shared.arena)
    this.driver = driverName(shared.driver)
    this.flushing = shared.driver === abi.DriverWaiterTsfn ? Flushing.Wanted : Flushing.ByDriver
  }

  // ---- completions -------------------------------------------------------------------------------------------------

  /** Called by the addon, which carries out afterwards what the handlers command: that needs no flush of its own. */
  private dispatchBatch(): void {
    if (this.flushing === Flushing.ByDriver) {
      this.dispatch()
      return
    }
    this.flushing = Flushing.UnderWay
    this.dispatch()
    this.flushing = Flushing.Wanted
  }

  /** Nothing that a handler throws gets out of here: it costs that handler's connection. */
  private dispatch(): void {
    this.refreshTables()
    let context: AsyncResource | undefined
    for (;;) {
      try {
        while (this.control[abi.ControlCompletionHead] !== this.control[abi.ControlCompletionTail]) {
          context = this.nextContext()
          this.scope.run(context, this.drain, this)
        }
        this.current = undefined
        this.scope.settle(context)
        return
      } catch (error) {
        this.lendNothing()
        const { current } = this
        this.current = undefined
        if (current === undefined) process.nextTick(rethrow, error)
        else this.scope.enter(current.context, () => this.tellHandlerError(current, error))
      }
    }
  }

  /** The batch goes on whatever happens: what is left in the ring belongs to others. */
  private tellHandlerError(sink: ConnSink | ListenerSink, error: unknown): void {
    try {
      sink.onHandlerError(error)
    } catch (second) {
      process.nextTick(rethrow, second)
    }
  }

  private nextContext(): AsyncResource | undefined {
    const at = (this.control[abi.ControlCompletionHead] & CompletionMask) << 2
    return this.sinkOf(this.completions[at] & 0xff, at)?.context
  }

  private sinkOf(type: number, at: number): ConnSink | ListenerSink | undefined {
    if (type === abi.CompletionAccepted) return this.listeners[this.completions[at + 2]]
    if (type === abi.CompletionAcceptError) return this.listeners[this.completions[at + 1]]
    return this.conns[this.completions[at + 1]]
  }

  /** Serves completions while they belong to `context`: as a rule all of them, in one async scope. */
  private drain(context: AsyncResource | undefined): void {
    const { control, completions, conns } = this
    for (;;) {
      const head = control[abi.ControlCompletionHead]
      if (head === control[abi.ControlCompletionTail]) return
      const at = (head & CompletionMask) << 2
      const word = completions[at]
      if ((word & 0xff) !== abi.CompletionData) {
        const sink = this.sinkOf(word & 0xff, at)
        if (sink?.context !== context && sink?.context !== undefined) return
        control[abi.ControlCompletionHead] = (head + 1) | 0
        this.current = sink
        if (sink !== undefined) this.serve(sink, at)
        continue
      }
      const conn = conns[completions[at + 1]]
      if (conn?.context !== context && conn?.context !== undefined) return
      control[abi.ControlCompletionHead] = (head + 1) | 0
      if (conn === undefined) continue
      this.current = conn
      this.lentAddress = completions[at + 2] >>> 0
      this.lentBytes = completions[at + 3]
      conn.onData(this.lentAddress, this.lentBytes)
      this.lendNothing()
    }
  }

  private serve(sink: ConnSink | ListenerSink, at: number): void {
    const { completions } = this
    const word = completions[at]
    switch (word & 0xff) {
      case abi.CompletionAccepted:
        ;(sink as ListenerSink).onAccepted(completions[at + 1])
        break
      case abi.CompletionAcceptError:
        ;(sink as ListenerSink).onAcceptError(completions[at + 2])
        break
      case abi.CompletionEnd:
        ;(sink as ConnSink).onEnd()
        break
      case abi.CompletionDrain:
        ;(sink as ConnSink).onDrain()
        break
      case abi.CompletionFlushed:
        ;(sink as ConnSink).onFlushed()
        break
      case abi.CompletionTimeout:
        ;(sink as ConnSink).onTimeout(word >> 8)
        break
      case abi.CompletionConnected:
        ;(sink as ConnSink).onConnected()
        break
      case abi.CompletionHangup:
        ;(sink as ConnSink).onHangup()
        break
      case abi.CompletionClosed:
        ;(sink as ConnSink).onClosed(word >> 8, completions[at + 2])
        break
      default:
        throw new Error(`edgewire: unknown completion ${word & 0xff}`)
    }
  }

  /** The tables move when native makes them larger: before a dispatch, or in dial(). */
  refreshTables(): void {
    const rows = this.control[abi.ControlTableRows]
    if (rows === this.rows) return
    this.rows = rows
    this.doubles = new Float64Array(this.hooks.doubles as ArrayBuffer)
    this.words = new Int32Array(this.hooks.words as ArrayBuffer)
  }

  // ---- lent bytes --------------------------------------------------------------------------------------------------

  private lendNothing(): void {
    this.lentBytes = 0
    this.lentView = undefined
  }

  /** The view of the bytes that the current completion lends. */
  lend(address: number, bytes: number): Buffer {
    this.lentView = this.slabs.view(address, bytes)
    return this.lentView
  }

  isLentView(bytes: Uint8Array): boolean {
    return bytes === this.lentView
  }

  /** May these bytes of the pool be sent from where they lie? Only while somebody holds their chunk. */
  isLent(address: number): boolean {
    const chunk = address >>> abi.ChunkBytesLog2
    return (this.lentBytes > 0 && this.lentAddress >>> abi.ChunkBytesLog2 === chunk) || this.leases.has(chunk)
  }

  /** Where bytes lie that may be sent from there, because they are in one chunk and somebody holds it; or -1. */
  sendableAddressOf(bytes: Uint8Array): number {
    if (bytes === this.lentView) return this.lentAddress
    const address = this.slabs.addressOf(bytes)
    if (address < 0 || (address & ChunkMask) + bytes.length > ChunkMask + 1) return -1
    return this.isLent(address) ? address : -1
  }

  // ---- commands ----------------------------------------------------------------------------------------------------

  push(type: number, subject: number, a: number, b: number): void {
    const { control, commands } = this
    let tail = control[abi.ControlCommandTail]
    if (((tail - control[abi.ControlCommandHead]) | 0) >= abi.CommandCapacity) {
      this.flush()
      tail = control[abi.ControlCommandTail]
    }
    const at = (tail & CommandMask) << 2
    commands[at] = type
    commands[at + 1] = subject
    commands[at + 2] = a
    commands[at + 3] = b
    control[abi.ControlCommandTail] = (tail + 1) | 0
    if (this.flushing === Flushing.Wanted) this.flushLater()
  }

  /** Once for all commands until then. */
  private flushLater(): void {
    this.flushing = Flushing.UnderWay
    setImmediate(this.flushNow)
  }

  private readonly flushNow = (): void => {
    this.flushing = Flushing.Wanted
    if (this.control[abi.ControlCommandHead] !== this.control[abi.ControlCommandTail]) this.native.flush()
  }

  flush(): void {
    this.native.flush()
  }

  /** Copies bytes (at most ArenaBytes) into the arena and leaves the write command. */
  writeCopy(subject: number, bytes: Uint8Array): void {
    const count = bytes.length
    const used = this.room(count)
    if (count <= CopyLoopBytes) {
      const { arena } = this
      for (let i = 0; i < count; i++) arena[used + i] = bytes[i]
    } else {
      this.arena.set(bytes, used)
    }
    this.commit(subject, used, count)
  }

  /** Encodes at most ArenaStringMax characters into the arena. Returns the bytes written. */
  writeText(subject: number, text: string): number {
    const used = this.room(text.length * 3)
    const count = this.encode(text, used)
    this.commit(subject, used, count)
    return count
  }

  private encode(text: string, at: number): number {
    const { arena } = this
    const { length } = text
    if (length > TextLoopChars) return arena.write(text, at, 'utf8')
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i)
      if (code > 0x7f) return arena.write(text, at, 'utf8')
      arena[at + i] = code
    }
    return length
  }

  fitsArena(text: string): boolean {
    return text.length <= ArenaStringMax
  }

  /** `memory` is read into: it will be written again, perhaps while the kernel has not taken what was written from it. */
  reads(memory: ArrayBufferLike): void {
    this.readMemory.add(memory)
  }

  /** Leaves the write of a large buffer from its own memory. False when native cannot keep it alive. */
  writePinned(subject: number, bytes: Uint8Array): boolean {
    const id = this.native.pin(bytes)
    if (id < 0) return false
    const briefly = this.readMemory.has(bytes.buffer)
    if (briefly) this.brieflyPinned = true
    this.push(abi.CommandWritePinned | (briefly ? abi.PinBriefly << 8 : 0), subject, id, bytes.length)
    return true
  }

  /** Call before writing into memory that was read into before: its bytes may wait to be sent. */
  sendBrieflyPinned(): void {
    if (!this.brieflyPinned) return
    this.brieflyPinned = false
    this.flush()
  }

  /** Makes room for `count` bytes in the arena and for a record in the ring; returns where the bytes go. */
  private room(count: number): number {
    const { control } = this
    const used = control[abi.ControlArenaUsed]
    const records = (control[abi.ControlCommandTail] - control[abi.ControlCommandHead]) | 0
    if (used + count <= abi.ArenaBytes && records < abi.CommandCapacity) return used
    this.flush()
    return 0
  }

  /** Commands the write of the arena's newest bytes; joins them to the write before when that is the same connection's. */
  private commit(subject: number, offset: number, count: number): void {
    const { control, commands } = this
    const tail = control[abi.ControlCommandTail]
    control[abi.ControlArenaUsed] = offset + count
    if (tail !== control[abi.ControlCommandHead]) {
      const last = ((tail - 1) & CommandMask) << 2
      if (
        commands[last] === abi.CommandWriteArena &&
        commands[last + 1] === subject &&
        commands[last + 2] + commands[last + 3] === offset
      ) {
        commands[last + 3] += count
        return
      }
    }
    this.push(abi.CommandWriteArena, subject, offset, count)
  }

  // ---- the process's life --------------------------------------------------------------------------------------------

  /** Something began that keeps the process alive. */
  ref(): void {
    if (this.refs++ === 0) this.native.setRef(true)
  }

  unref(): void {
    if (--this.refs === 0) this.native.setRef(false)
  }
}

function rethrow(error: unknown): never {
  throw error
}

// ---- this thread's loop ----------------------------------------------------------------------------------------------

let budgetBytes = budgetFromEnvironment()
let instance: Loop | undefined

/** Loads the addon without opening anything. Throws where edgewire cannot run. */
export function loadAddon(): void {
  binding()
}

/** This thread's loop, opened at the first call. */
export function loop(): Loop {
  instance ??= new Loop(budgetBytes, process.env.EDGEWIRE_DEBUG === '1', driverFromEnvironment())
  return instance
}

/** This thread's loop, if it has one. */
export function openLoop(): Loop | undefined {
  return instance
}

/** The pool's budget, now and for a loop that is opened later. */
export function setSlabBudget(bytes: number): void {
  budgetBytes = bytes
  instance?.native.setBudget(bytes)
}

export function slabBudget(): number {
  return budgetBytes
}

function budgetFromEnvironment(): number {
  const wanted = Number(process.env.EDGEWIRE_SLAB_BUDGET_BYTES)
  if (!Number.isSafeInteger(wanted) || wanted <= 0) return DefaultSlabBudgetBytes
  return Math.min(Math.max(wanted, SlabBudgetBytesMin), SlabBudgetBytesMax)
}
