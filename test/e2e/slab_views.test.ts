// Views of slabs, which lie somewhere in memory that is a little larger.

import { expect, test } from 'vitest'
import { SlabViews } from '../../dist/slab_views.js'
import { randomBytes } from './harness.ts'

const SlabBytes = 2 ** 20
const SpareBytes = 4096

/** Two slabs, at different places in their memory. */
function twoSlabs() {
  const memories = [new ArrayBuffer(SlabBytes + SpareBytes), new ArrayBuffer(SlabBytes + SpareBytes)] as const
  const offsets = [0, SpareBytes - 16] as const
  const slabs = memories.map((memory, i) => new Uint8Array(memory, offsets[i], SlabBytes))
  for (const slab of slabs) randomBytes(SlabBytes).copy(slab)
  return { memories, offsets, slabs, views: new SlabViews(slabs, []) }
}

const places = [0, 1, 65_536, SlabBytes - 100]

test('a view shows the bytes of its address, and its address is found again', () => {
  const { slabs, views } = twoSlabs()
  for (const [index, slab] of slabs.entries()) {
    for (const place of places) {
      const address = index * SlabBytes + place
      const view = views.view(address, 100)
      expect(view.equals(slab.subarray(place, place + 100))).toBe(true)
      expect(views.addressOf(view)).toBe(address)
      expect(views.addressOf(view.subarray(40))).toBe(address + 40)
      expect(views.owns(view)).toBe(true)
    }
  }
})

test('bytes are copied from their address, few and many', () => {
  const { slabs, views } = twoSlabs()
  for (const [index, slab] of slabs.entries()) {
    for (const place of places) {
      for (const bytes of [1, 32, 33, 100]) {
        const into = new Uint8Array(bytes + 1).fill(7)
        views.copyOut(index * SlabBytes + place, bytes, into)
        expect(Buffer.from(into.subarray(0, bytes)).equals(slab.subarray(place, place + bytes))).toBe(true)
        expect(into[bytes]).toBe(7)
      }
    }
  }
})

test('what lies beside the slab in its memory has no address, but it is the pool’s; other memory is not', () => {
  const { memories, views } = twoSlabs()
  views.view(0, 1)
  views.view(SlabBytes, 1)
  for (const memory of memories) {
    const whole = new Uint8Array(memory)
    expect(views.addressOf(whole)).toBe(-1)
    expect(views.owns(whole)).toBe(true)
  }
  expect(views.addressOf(new Uint8Array(memories[0], SlabBytes - 1, 2))).toBe(-1)
  expect(views.addressOf(new Uint8Array(memories[1], 0, 10))).toBe(-1)
  const foreign = new Uint8Array(10)
  expect(views.addressOf(foreign)).toBe(-1)
  expect(views.owns(foreign)).toBe(false)
})
