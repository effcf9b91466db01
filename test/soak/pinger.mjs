// @ts-check
// The steady neighbour of the crowd: a few connections on which a small message goes back and forth fifty times a
// second. It lives in the process that is otherwise idle, so that what it measures is the server's latency.

import net from 'node:net'
import { performance } from 'node:perf_hooks'
import { Checker, pattern } from './pattern.mjs'
import { Command, header } from './protocol.mjs'
import { until } from './session.mjs'

/** @import { Place } from './protocol.mjs' */

const EVERY_MS = 20
const MESSAGE_BYTES = 64
const STREAM_BYTES = 2 ** 31
const STUCK_MS = 5_000
const END_MS = 10_000

export class Pinger {
  /** @type {number[]} since take() */
  #timesMs = []
  /** @type {Line[]} */
  #lines = []
  #timer

  /**
   * @param {{ name: string, place: Place }[]} places
   * @param {(text: string) => void} onViolation
   */
  constructor(places, onViolation) {
    this.#lines = places.map(({ name, place }, i) => {
      const line = new Line(place, i * 1000, (ms) => this.#timesMs.push(ms))
      line.over.catch((error) => onViolation(`the pinger at ${name}: ${error.message}`))
      return line
    })
    this.#timer = setInterval(() => {
      for (const line of this.#lines) line.ping()
    }, EVERY_MS)
  }

  /** Sorted, and forgotten. */
  take() {
    return this.#timesMs.splice(0).sort((a, b) => a - b)
  }

  async stop() {
    clearInterval(this.#timer)
    await Promise.allSettled(this.#lines.map((line) => line.end()))
  }
}

class Line {
  #socket
  #checker
  #offset
  #sent = 0
  #sentAt = 0
  #onTime

  /**
   * @param {Place} place
   * @param {number} offset
   * @param {(ms: number) => void} onTime
   */
  constructor(place, offset, onTime) {
    this.#offset = offset
    this.#onTime = onTime
    this.#checker = new Checker(offset, STREAM_BYTES)
    this.#socket = net.connect({ ...place, allowHalfOpen: true, noDelay: true })
    this.#socket.on('error', () => {})
    this.#socket.write(header(Command.Echo, offset, STREAM_BYTES, true))
    this.#socket.on('data', (chunk) => this.#receive(chunk))
    /** Rejects when the connection does not end in order. */
    this.over = until(this.#socket, 'end').then(() => until(this.#socket, 'close'))
  }

  ping() {
    const waitingMs = performance.now() - this.#sentAt
    if (this.#checker.position < this.#sent) {
      if (waitingMs > STUCK_MS) this.#socket.destroy(new Error(`no answer for ${Math.round(waitingMs)} ms`))
      return
    }
    if (!this.#socket.writable) return
    this.#sentAt = performance.now()
    this.#socket.write(pattern(this.#offset + this.#sent, MESSAGE_BYTES))
    this.#sent += MESSAGE_BYTES
  }

  /** @param {Buffer} chunk */
  #receive(chunk) {
    try {
      this.#checker.take(chunk)
    } catch (error) {
      this.#socket.destroy(/** @type {Error} */ (error))
    }
    if (this.#checker.position === this.#sent) this.#onTime(performance.now() - this.#sentAt)
  }

  async end() {
    this.#socket.end()
    const timer = setTimeout(() => this.#socket.destroy(new Error(`no end for ${END_MS / 1000} s`)), END_MS)
    await this.over.finally(() => clearTimeout(timer))
    if (this.#checker.position !== this.#sent) {
      throw new Error(`${this.#checker.position} of ${this.#sent} bytes came`)
    }
  }
}
