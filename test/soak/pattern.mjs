// @ts-check
// The bytes that travel. A stream is a window on one long random table, from an offset of its own on: so every position
// of every stream has its byte, wherever it is made or checked, and making it costs nothing.
import { Random } from './random.mjs'

/** The most bytes that one call of pattern() gives. */
export const PIECE_MAX = 65_536
// A prime: no number of lost chunks, pages or slabs brings the stream back into step.
const PERIOD = 1_048_573
const PROBE_BYTES = 24 // long enough to stand once in the table

const table = Buffer.allocUnsafeSlow(PERIOD + PIECE_MAX)
const random = new Random(1)
for (let i = 0; i < PERIOD; i++) table[i] = random.int(0, 255)
table.copy(table, PERIOD, 0, PIECE_MAX)

/**
 * @param {number} at offset of the stream + position in it
 * @param {number} bytes at most PIECE_MAX
 * @returns {Buffer} a view: never write to it
 */
export function pattern(at, bytes) {
  const start = at % PERIOD
  return table.subarray(start, start + bytes)
}

/** Compares what arrives with what should. */
export class Checker {
  position = 0

  /**
   * @param {number} offset of the stream
   * @param {number} length of the stream
   */
  constructor(offset, length) {
    this.offset = offset
    this.length = length
  }

  get complete() {
    return this.position === this.length
  }

  /**
   * Throws when a byte is wrong.
   * @param {Uint8Array} chunk
   */
  take(chunk) {
    if (this.position + chunk.length > this.length) {
      throw new Error(`${this.position + chunk.length} bytes came where ${this.length} had been sent`)
    }
    for (let at = 0; at < chunk.length; at += PIECE_MAX) {
      const piece = chunk.subarray(at, at + PIECE_MAX)
      const wanted = pattern(this.offset + this.position, piece.length)
      if (!wanted.equals(piece)) throw new Error(this.#difference(piece, wanted))
      this.position += piece.length
    }
  }

  finish() {
    if (!this.complete) throw new Error(`only ${this.position} of ${this.length} bytes came`)
  }

  /**
   * @param {Uint8Array} piece
   * @param {Buffer} wanted
   */
  #difference(piece, wanted) {
    const first = wanted.findIndex((byte, i) => byte !== piece[i])
    const position = this.position + first
    const probe = piece.subarray(first, first + PROBE_BYTES)
    const found = probe.length === PROBE_BYTES ? table.indexOf(probe) : -1
    if (found < 0) return `wrong byte at position ${position} of ${this.length}`
    const home = (found - (this.offset % PERIOD) + PERIOD) % PERIOD
    return `at position ${position} of ${this.length} came the bytes of position ${home} (or of another stream)`
  }
}
