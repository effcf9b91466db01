// Leases: who holds a chunk of the pool beyond the handler that it was lent to. Native counts references per chunk;
// here each retain() is matched with its release().
//
// Two kinds: a hold is the library's own (a promise that a handler returned, bytes that wait for resume()); a lease is
// the user's, made by retain(). A lease lives as long as the object that retain() returned: when that is collected
// unreleased, the chunk goes back to the pool and a warning says where it was taken.

import * as abi from './abi.js'
import { NetError } from './errors.js'
import type { Loop } from './loop.js'

/** Every so many leases one remembers its stack, which costs a few microseconds; in debug mode all do. */
const StackEvery = 64

interface Lease {
  loop: Loop
  address: number
  bytes: number
  count: number
  stack: string | undefined
}

const leaseOf = new WeakMap<Uint8Array, Lease>()
/** By chunk, so that a part of a retained chunk can be released. */
const leasesIn = new Map<number, Set<Lease>>()
const collected = new FinalizationRegistry<Lease>(onCollected)
let taken = 0

// ---- the library's own holds -----------------------------------------------------------------------------------------

/** Holds the chunk that `address` lies in. */
export function retainAddress(loop: Loop, address: number): void {
  const chunk = chunkOf(address)
  loop.leases.set(chunk, (loop.leases.get(chunk) ?? 0) + 1)
  loop.push(abi.CommandRetain, chunk, 0, 0)
}

export function releaseAddress(loop: Loop, address: number): void {
  const chunk = chunkOf(address)
  const count = loop.leases.get(chunk)
  if (count === undefined) throw notRetained('this chunk is not retained, or was released already')
  if (count === 1) loop.leases.delete(chunk)
  else loop.leases.set(chunk, count - 1)
  loop.push(abi.CommandRelease, chunk, 0, 0)
}

function chunkOf(address: number): number {
  return address >>> abi.ChunkBytesLog2
}

// ---- the user's leases -----------------------------------------------------------------------------------------------

export function retainChunk(loop: Loop, chunk: Uint8Array): void {
  if (isOwned(chunk)) return
  const known = leaseOf.get(chunk)
  if (known !== undefined && known.count > 0) {
    retainAddress(loop, known.address)
    known.count++
    return
  }
  const address = lentAddress(loop, chunk)
  retainAddress(loop, address)
  const stack = loop.debug || taken++ % StackEvery === 0 ? new Error('retained').stack : undefined
  const lease: Lease = { loop, address, bytes: chunk.length, count: 1, stack }
  leaseOf.set(chunk, lease)
  const inChunk = leasesIn.get(chunkOf(address))
  if (inChunk === undefined) leasesIn.set(chunkOf(address), new Set([lease]))
  else inChunk.add(lease)
  collected.register(chunk, lease, lease)
}

export function releaseChunk(loop: Loop, chunk: Uint8Array): void {
  if (isOwned(chunk)) return
  const lease = findLease(loop, chunk)
  if (lease === undefined) throw notRetained('this chunk is not retained, or was released already')
  releaseAddress(loop, lease.address)
  if (--lease.count === 0) forget(lease)
}

/** The lease of this very object, or of one whose bytes it shares: a part, or the whole of which a part was retained. */
function findLease(loop: Loop, chunk: Uint8Array): Lease | undefined {
  const own = chunk instanceof Uint8Array ? leaseOf.get(chunk) : undefined
  if (own !== undefined && own.count > 0) return own
  const address = chunk instanceof Uint8Array ? loop.slabs.addressOf(chunk) : -1
  for (const lease of leasesIn.get(chunkOf(address)) ?? []) {
    const overlaps = address < lease.address + lease.bytes && lease.address < address + chunk.length
    if (lease.loop === loop && overlaps) return lease
  }
  return undefined
}

function forget(lease: Lease): void {
  collected.unregister(lease)
  const inChunk = leasesIn.get(chunkOf(lease.address))
  inChunk?.delete(lease)
  if (inChunk?.size === 0) leasesIn.delete(chunkOf(lease.address))
}

function onCollected(lease: Lease): void {
  const { loop, address, stack } = lease
  loop.leakedLeases++
  forget(lease)
  for (; lease.count > 0; lease.count--) releaseAddress(loop, address)
  const options: { type: string; code: string; detail?: string } = { type: 'EdgewireWarning', code: 'EDGEWIRE_LEASE' }
  if (stack !== undefined) options.detail = stack
  process.emitWarning(
    `a retained chunk of ${lease.bytes} bytes was garbage-collected without release(); its memory went back to the pool. ` +
      'Keep the object that retain() returned, and release() it. EDGEWIRE_DEBUG=1 shows where each was taken.',
    options,
  )
}

// ---- copies ----------------------------------------------------------------------------------------------------------

/** Memory of bytes that waited for a paused handler as a copy: it is the handler's own, to retain and release freely. */
const owned = new WeakSet<ArrayBufferLike>()

export function ownedCopy(bytes: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes)
  owned.add(copy.buffer)
  return copy
}

function isOwned(chunk: Uint8Array): boolean {
  return chunk instanceof Uint8Array && owned.has(chunk.buffer)
}

/** The pool address of a chunk that a handler was lent. */
function lentAddress(loop: Loop, chunk: Uint8Array): number {
  const address = chunk instanceof Uint8Array ? loop.slabs.addressOf(chunk) : -1
  if (address < 0 || !loop.isLent(address)) {
    throw notRetained('only a chunk that a data handler was lent, or a part of it, can be retained and released')
  }
  return address
}

function notRetained(reason: string): NetError {
  return new NetError('ERR_NOT_RETAINED', { op: 'read' }, reason)
}
