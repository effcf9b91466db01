// The slab pool's memory as JavaScript sees it: views of it, copies out of it, and where in it bytes lie. An address is
// slab << 20 | offset, as in native/core/slab.h.

import { Buffer } from 'node:buffer'
import { markAsUntransferable } from 'node:worker_threads'
import * as abi from './abi.js'

const SlabMask = 2 ** abi.SlabBytesLog2 - 1

/** Below this, bytes are copied in a loop: TypedArray.prototype.set costs more than it saves. */
export const CopyLoopBytes = 32

type MakeBuffer = new (memory: ArrayBufferLike, offset: number, bytes: number) => Buffer

/** The class that Node makes its Buffers of: without the questions that Buffer.from() asks, a view costs half. */
const BufferView = (Buffer as unknown as { [Symbol.species]: MakeBuffer })[Symbol.species]

/** A slab: a part of its memory that begins at a page, so at a different place in each. */
export interface Slab {
  readonly memory: ArrayBufferLike
  readonly offset: number
  readonly bytes: Uint8Array
  readonly index: number
}

export class SlabViews {
  private readonly byMemory = new WeakMap<ArrayBufferLike, Slab>()

  /** By slab index, set and cleared by native; `opened` is filled here, and native clears an element with its slab. */
  constructor(
    private readonly slabs: (Uint8Array | undefined)[],
    private readonly opened: (Slab | undefined)[],
  ) {}

  /** Valid while somebody holds the chunk. */
  view(address: number, bytes: number): Buffer {
    const index = address >>> abi.SlabBytesLog2
    const slab = this.opened[index] ?? this.open(index)
    return new BufferView(slab.memory, slab.offset + (address & SlabMask), bytes)
  }

  /** Copies to the start of `into`. */
  copyOut(address: number, bytes: number, into: Uint8Array): void {
    const index = address >>> abi.SlabBytesLog2
    const slab = this.opened[index] ?? this.open(index)
    const offset = address & SlabMask
    if (bytes <= CopyLoopBytes) {
      const from = slab.bytes
      for (let i = 0; i < bytes; i++) into[i] = from[offset + i] as number
    } else {
      into.set(new BufferView(slab.memory, slab.offset + offset, bytes))
    }
  }

  /** The address of bytes that lie in a slab, or -1. */
  addressOf(bytes: Uint8Array): number {
    const slab = this.byMemory.get(bytes.buffer)
    if (slab === undefined) return -1
    const offset = bytes.byteOffset - slab.offset
    // The memory is a little larger than the slab.
    if (offset < 0 || offset + bytes.length > SlabMask + 1) return -1
    return slab.index * 2 ** abi.SlabBytesLog2 + offset
  }

  /** Is it the pool's, wherever in it `bytes` lie? */
  owns(bytes: Uint8Array): boolean {
    return this.byMemory.has(bytes.buffer)
  }

  /** At the first use of a slab. */
  private open(index: number): Slab {
    const bytes = this.slabs[index] as Uint8Array
    const memory = bytes.buffer
    // A handler that transferred its chunk's memory to another thread would take the whole slab along.
    markAsUntransferable(memory)
    const slab: Slab = { memory, offset: bytes.byteOffset, bytes, index }
    this.opened[index] = slab
    this.byMemory.set(memory, slab)
    return slab
  }
}
