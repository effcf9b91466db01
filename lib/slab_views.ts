// The slab pool's memory as JavaScript sees it: views of it, copies out of it, and where in it bytes lie. An address is
// slab << 20 | offset, as in native/core/slab.h.

import { Buffer } from 'node:buffer'
import { markAsUntransferable } from 'node:worker_threads'
import * as abi from './abi.js'

const SlabMask = 2 ** abi.SlabBytesLog2 - 1

/** Below this, bytes are copied in a loop: TypedArray.prototype.set costs more than it saves. */
export const CopyLoopBytes = 32

type MakeBuffer = new (memory: ArrayBuffer, offset: number, bytes: number) => Buffer

/** The class that Node makes its Buffers of: without the questions that Buffer.from() asks, a view costs half. */
const BufferView = (Buffer as unknown as { [Symbol.species]: MakeBuffer })[Symbol.species]

export class SlabViews {
  private readonly indices = new WeakMap<ArrayBufferLike, number>()

  /** By slab index, set and cleared by native; `views` is filled here, and native clears an element with its slab. */
  constructor(
    private readonly slabs: (ArrayBuffer | undefined)[],
    private readonly views: (Buffer | undefined)[],
  ) {}

  /** Valid while somebody holds the chunk. */
  view(address: number, bytes: number): Buffer {
    const index = address >>> abi.SlabBytesLog2
    if (this.views[index] === undefined) this.open(index)
    return new BufferView(this.slabs[index] as ArrayBuffer, address & SlabMask, bytes)
  }

  /** Copies to the start of `into`. */
  copyOut(address: number, bytes: number, into: Uint8Array): void {
    const index = address >>> abi.SlabBytesLog2
    const slab = this.views[index] ?? this.open(index)
    const offset = address & SlabMask
    if (bytes <= CopyLoopBytes) {
      for (let i = 0; i < bytes; i++) into[i] = slab[offset + i] as number
    } else {
      into.set(new BufferView(this.slabs[index] as ArrayBuffer, offset, bytes))
    }
  }

  /** The address of bytes that lie in the pool, or -1. */
  addressOf(bytes: Uint8Array): number {
    const index = this.indices.get(bytes.buffer)
    return index === undefined ? -1 : index * 2 ** abi.SlabBytesLog2 + bytes.byteOffset
  }

  /** At the first use of a slab. */
  private open(index: number): Buffer {
    const memory = this.slabs[index] as ArrayBuffer
    // A handler that transferred its chunk's memory to another thread would take the whole slab along.
    markAsUntransferable(memory)
    const slab = Buffer.from(memory)
    this.views[index] = slab
    this.indices.set(memory, index)
    return slab
  }
}
