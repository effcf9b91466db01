// @ts-check
// One client session: what it has to work with, and what happens to it when it hangs.
import net from 'node:net'
import { Random } from './random.mjs'

/** @import { Conn } from 'edgewire' */
/** @import { Place } from './protocol.mjs' */

/** No session takes so long, on any machine; the slowest is rude.mjs's staller. */
export const HUNG_MS = 60_000

export class Session {
  /** Payload bytes that have come and were the right ones. */
  verifiedBytes = 0
  #closers = /** @type {(() => void)[]} */ ([])

  /**
   * @param {number} number
   * @param {number} seed
   * @param {{ name: string, place: Place }[]} places
   */
  constructor(number, seed, places) {
    this.number = number
    this.random = new Random(seed, number)
    const { name, place } = this.random.pick(places)
    this.at = name
    this.place = place
    this.places = places
    /** Where it stood, for the message when it hangs. */
    this.step = 'begins'
  }

  get isUnix() {
    return 'path' in this.place
  }

  /**
   * @param {(session: Session) => Promise<unknown>} behaviour
   */
  async run(behaviour) {
    /** @type {NodeJS.Timeout | undefined} */
    let timer
    const hung = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`hung for ${HUNG_MS / 1000} s: ${this.step}`)), HUNG_MS)
    })
    try {
      await Promise.race([behaviour(this), hung])
    } finally {
      clearTimeout(timer)
      this.destroy()
    }
  }

  /** Ends whatever is open: nothing outlives its session. */
  destroy() {
    for (const close of this.#closers.splice(0)) close()
  }

  /**
   * @param {Place} [place]
   * @returns {net.Socket} not connected yet
   */
  socket(place = this.place) {
    const socket = net.connect({ ...place, allowHalfOpen: true, noDelay: true })
    socket.on('error', () => {}) // whoever waits for something gets it: see until()
    this.#closers.push(() => socket.destroy())
    return socket
  }

  /**
   * @param {Conn} conn
   * @returns {Conn}
   */
  owns(conn) {
    this.#closers.push(() => conn.abort())
    return conn
  }
}

/**
 * Waits for an event; rejects with what ended the socket when that comes first.
 * @param {net.Socket} socket
 * @param {'connect' | 'drain' | 'end' | 'close'} event
 * @returns {Promise<void>}
 */
export function until(socket, event) {
  return new Promise((resolve, reject) => {
    const done = () => {
      socket.off(event, done)
      socket.off('close', onClose)
      resolve()
    }
    const onClose = () => {
      socket.off(event, done)
      if (event === 'close' && socket.errored === null) resolve()
      else reject(socket.errored ?? new Error(`closed before '${event}'`))
    }
    if (socket.closed) return onClose()
    if (event !== 'close') socket.once(event, done)
    socket.once('close', onClose)
  })
}

/**
 * The end, whatever it is.
 * @param {net.Socket} socket
 * @returns {Promise<void>}
 */
export function gone(socket) {
  return new Promise((resolve) => {
    if (socket.closed) resolve()
    else socket.once('close', () => resolve())
  })
}
