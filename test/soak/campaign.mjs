// @ts-check
// The course of a run: warm-up, rest, load, rest, end. Memory is compared between the two rests, when nothing is open.
import { setTimeout as sleep } from 'node:timers/promises'
import { Child } from './child.mjs'
import { Pinger } from './pinger.mjs'
import { HUNG_MS } from './session.mjs'

/** @import { Place } from './protocol.mjs' */
/** @import { Beginning, Rest } from './worker.mjs' */
/** @import { ListenerStats } from 'edgewire' */

const WARM_UP_PART = 0.2
const WARM_UP_MAX_MS = 30_000
const SAMPLE_MS = 1000
const SILENT_MS = 15_000 // a process that says nothing for so long hangs in a loop

const START_MS = 20_000
const STOP_MS = HUNG_MS + 10_000 // every session has ended, or was found hanging
const REST_MS = 60_000
/** What may come on top of the minutes of the load before the run is stopped from outside. */
export const EXTRA_MS = 240_000

const PINGED = ['tcp handlers', 'unix handlers', 'tcp task']

/**
 * @typedef {object} Sample one second
 * @property {number} seconds since the start
 * @property {Phase} phase
 * @property {number} rss           of the server, bytes
 * @property {number} heap          of the server, bytes
 * @property {number} clientRss     bytes
 * @property {number} slabInUse     of the server, bytes
 * @property {number} slabMapped    of the server, bytes
 * @property {number} open          connections of the server
 * @property {number} messages      that the server got, a second
 * @property {number} bytes         that the server got and sent, a second
 * @property {number | undefined} p50 of the pinger, ms
 * @property {number | undefined} p99
 */

/** @typedef {'warm-up' | 'load' | 'rest'} Phase */

/** @typedef {Rest & { listeners: ({ name: string } & ListenerStats)[], book: import('./server.mjs').Book }} ServerRest */
/** @typedef {{ calls: number, leases: number, stats: import('edgewire').PoolStats }} PoolEnd after a load */
/** @typedef {Rest & { tallies: import('./client.mjs').Tally[], pools: PoolEnd[] }} ClientRest */

/**
 * @typedef {object} Outcome
 * @property {{ server: Beginning, client: Beginning }} start
 * @property {{ server: ServerRest, client: ClientRest }} warm  at rest after the warm-up
 * @property {{ server: ServerRest, client: ClientRest }} end   at rest after the load, listeners closed
 */

export class Campaign {
  /** @type {Sample[]} */
  samples = []
  /** @type {Phase} */
  phase = 'rest'
  #start = Date.now()
  #server
  #client
  #onViolation
  #onSample
  /** @type {Pinger | undefined} */
  #pinger
  /** @type {{ name: string, place: Place }[]} */
  #places = []
  #isEnding = false
  #last = { at: Date.now(), messages: 0, bytes: 0 }

  /**
   * @param {string} folder for Unix sockets
   * @param {{ onViolation: (text: string) => void, onSample: (sample: Sample, client: any) => void }} told
   */
  constructor(folder, { onViolation, onSample }) {
    this.#onViolation = onViolation
    this.#onSample = onSample
    this.#server = new Child('server', [folder], onViolation)
    this.#client = new Child('client', [], onViolation)
  }

  /**
   * @param {number} seed
   * @param {number} lastsMs
   * @returns {Promise<Outcome>}
   */
  async run(seed, lastsMs) {
    const server = await this.#server.ask('start', undefined, START_MS)
    const client = await this.#client.ask('start', undefined, START_MS)
    this.#places = server.places
    /** @type {NodeJS.Timeout | undefined} */
    let timer
    const lost = new Promise((_, reject) => {
      timer = setInterval(() => {
        this.#sample()
        const loss = this.#loss()
        if (loss !== undefined) reject(new Error(loss))
      }, SAMPLE_MS)
    })
    try {
      const rests = await Promise.race([this.#course(seed, lastsMs), lost])
      clearInterval(timer)
      await this.#ended()
      return { start: { server, client }, ...rests }
    } finally {
      clearInterval(timer)
      this.kill()
    }
  }

  /**
   * @param {number} seed
   * @param {number} lastsMs
   */
  async #course(seed, lastsMs) {
    const warmUpMs = Math.min(lastsMs * WARM_UP_PART, WARM_UP_MAX_MS)
    await this.#load('warm-up', seed, warmUpMs)
    const warm = await this.#both('rest')
    await this.#load('load', seed, lastsMs - warmUpMs)
    const end = await this.#both('end')
    return { warm, end }
  }

  /**
   * @param {Phase} phase
   * @param {number} seed
   * @param {number} lastsMs
   */
  async #load(phase, seed, lastsMs) {
    this.phase = phase
    this.#pinger = new Pinger(
      this.#places.filter(({ name }) => PINGED.includes(name)),
      this.#onViolation,
    )
    await this.#client.ask('load', { seed, places: this.#places, lastsMs }, START_MS)
    await sleep(lastsMs)
    await this.#client.ask('stop', undefined, STOP_MS)
    await this.#pinger.stop()
    this.#pinger = undefined
    this.phase = 'rest'
  }

  /** A process that has ended, or shows no sign of life. A client that has been told to end may do so. */
  #loss() {
    for (const { name, sampledAt, end } of this.#isEnding ? [this.#server] : [this.#server, this.#client]) {
      if (end !== undefined) return `the ${name} process ended with ${end}`
      const silentMs = Date.now() - sampledAt
      if (silentMs > SILENT_MS) return `the ${name} process has hung for ${silentMs} ms`
    }
    return undefined
  }

  /**
   * The client first: what it still holds open is open at the server.
   * @param {'rest' | 'end'} question
   */
  async #both(question) {
    /** @type {ClientRest} */
    const client = await this.#client.ask(question, undefined, REST_MS)
    this.#isEnding = question === 'end'
    /** @type {ServerRest} */
    const server = await this.#server.ask(question, undefined, REST_MS)
    return { server, client }
  }

  async #ended() {
    for (const child of [this.#client, this.#server]) {
      const how = await child.ended()
      if (how !== 'exit code 0') this.#onViolation(`the ${child.name} process, told to end: ${how}`)
    }
  }

  #sample() {
    const { sample: server } = this.#server
    const { sample: client } = this.#client
    if (server === undefined || client === undefined) return
    const times = this.#pinger?.take() ?? []
    const at = Date.now()
    const bytes = server.stats.bytesRead + server.stats.bytesWritten
    const seconds = (at - this.#last.at) / 1000
    const sample = {
      seconds: (at - this.#start) / 1000,
      phase: this.phase,
      rss: server.memory.rss,
      heap: server.memory.heapUsed,
      clientRss: client.memory.rss,
      slabInUse: server.stats.slabInUseBytes,
      slabMapped: server.stats.slabMappedBytes,
      open: server.stats.open,
      messages: (server.messages - this.#last.messages) / seconds,
      bytes: (bytes - this.#last.bytes) / seconds,
      p50: times[Math.floor(times.length * 0.5)],
      p99: times[Math.floor(times.length * 0.99)],
    }
    this.#last = { at, messages: server.messages, bytes }
    this.samples.push(sample)
    this.#onSample(sample, client)
  }

  kill() {
    this.#server.kill()
    this.#client.kill()
  }
}
