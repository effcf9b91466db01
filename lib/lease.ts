// Leases: who holds a chunk of the pool beyond the handler that it was lent to. Native counts references per chunk;
// here each retain() is matched with its release().

import * as abi from './abi.js'
import { NetError } from './errors.js'
import type { Loop } from './loop.js'

/** Holds the chunk that `address` lies in. */
export function retainAddress(loop: Loop, address: number): void {
  const chunk = address >>> abi.ChunkBytesLog2
  loop.leases.set(chunk, (loop.leases.get(chunk) ?? 0) + 1)
  loop.push(abi.CommandRetain, chunk, 0, 0)
}

export function releaseAddress(loop: Loop, address: number): void {
  const chunk = address >>> abi.ChunkBytesLog2
  const count = loop.leases.get(chunk)
  if (count === undefined) throw notRetained('this chunk is not retained, or was released already')
  if (count === 1) loop.leases.delete(chunk)
  else loop.leases.set(chunk, count - 1)
  loop.push(abi.CommandRelease, chunk, 0, 0)
}

/** Memory of bytes that waited for a paused handler as a copy: it is the handler's own, to retain and release freely. */
const owned = new WeakSet<ArrayBufferLike>()

export function ownedCopy(bytes: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes)
  owned.add(copy.buffer)
  return copy
}

export function isOwned(chunk: Uint8Array): boolean {
  return chunk instanceof Uint8Array && owned.has(chunk.buffer)
}

/** The pool address of a chunk that a handler was lent, for retain() and release(). */
export function lentAddress(loop: Loop, chunk: Uint8Array): number {
  const address = chunk instanceof Uint8Array ? loop.addressOf(chunk) : -1
  if (address < 0 || !loop.isLent(address)) {
    throw notRetained('only a chunk that a data handler was lent, or a part of it, can be retained and released')
  }
  return address
}

function notRetained(reason: string): NetError {
  return new NetError('ERR_NOT_RETAINED', { op: 'read' }, reason)
}
