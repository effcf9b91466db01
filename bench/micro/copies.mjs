// @ts-check
// What the place of a buffer within its page costs: the kernel copies 64 KiB from its page cache into memory of ours. The
// slabs' place (native/node/env.cc) comes from this.
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

/** @import { Measurement } from './run.mjs' */

const BYTES = 64 * 1024
const PAGE_BYTES = 4096
/** Half of what malloc places blocks by: a piece of a larger message begins anywhere. */
const STEP_BYTES = 8
const TRIES = 9

/** @returns {Promise<{ measurements: Measurement[], end: () => Promise<void> }>} */
export async function copies() {
  const folder = mkdtempSync(path.join(tmpdir(), 'edgewire-copies-'))
  const name = path.join(folder, 'source')
  writeFileSync(name, Buffer.alloc(BYTES, 'x'))
  const file = openSync(name, 'r')
  const memory = new Uint8Array(BYTES + PAGE_BYTES)
  const copyTo = (/** @type {number} */ at) => readSync(file, memory, at, BYTES, 0)
  const places = byTime(copyTo)
  /** @param {string} title @param {number} at @param {string} what */
  const row = (title, at, what) => ({ name: title, what, run: () => copyTo(at) })
  return {
    measurements: [
      row('read(2), the best place', places[0], 'of a buffer within its page'),
      row('read(2), the usual place', places[places.length >> 1], 'the median of all 512'),
      row('read(2), the worst place', places[places.length - 1], 'a little behind the source, in the low 12 bits'),
    ],
    async end() {
      closeSync(file)
      rmSync(folder, { recursive: true })
    },
  }
}

/**
 * Every place in a page, from the fastest to the slowest by the best of some tries: where the memory itself begins is not
 * known in JavaScript.
 * @param {(at: number) => unknown} copyTo
 */
function byTime(copyTo) {
  const best = new Map(
    Array.from({ length: PAGE_BYTES / STEP_BYTES }, (_, i) => [i * STEP_BYTES, Number.POSITIVE_INFINITY]),
  )
  for (let round = 0; round < TRIES; round++) {
    for (const [at, before] of best) {
      const begun = process.hrtime.bigint()
      copyTo(at)
      best.set(at, Math.min(before, Number(process.hrtime.bigint() - begun)))
    }
  }
  return [...best].sort(([, a], [, b]) => a - b).map(([at]) => at)
}
