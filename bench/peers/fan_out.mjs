// @ts-check
// The app `fanout` of the servers with event handlers: who subscribes, who publishes, and who waits for whom.
//
// A connection whose first byte is `S` subscribes and gets an `S`; what any other connection sends goes to all
// subscribers as it came. A publisher is not read from while a subscriber is too slow, so nothing piles up.

const SUBSCRIBE = 0x53 // S

/**
 * @template {{ pause(): unknown, resume(): unknown }} Peer a connection of the runtime
 */
export class FanOut {
  /** @type {Set<Peer>} */
  #subscribers = new Set()
  /** @type {Set<Peer>} */
  #publishers = new Set()
  /**
   * Subscribers whose output is above the high watermark.
   * @type {Set<Peer>}
   */
  #slow = new Set()
  /**
   * Publishers that wait for them.
   * @type {Set<Peer>}
   */
  #waiting = new Set()
  #send

  /** @param {(peer: Peer, bytes: Buffer | string) => boolean} send false: wait for drained() before sending more */
  constructor(send) {
    this.#send = send
  }

  /**
   * @param {Peer} peer
   * @param {Buffer} chunk
   */
  received(peer, chunk) {
    if (this.#publishers.has(peer)) return this.#publish(peer, chunk)
    if (this.#subscribers.has(peer)) return
    if (chunk[0] === SUBSCRIBE) {
      this.#subscribers.add(peer)
      this.#sendTo(peer, 'S')
    } else {
      this.#publishers.add(peer)
      this.#publish(peer, chunk)
    }
  }

  /** @param {Peer} peer */
  drained(peer) {
    if (!this.#slow.delete(peer) || this.#slow.size > 0) return
    for (const publisher of this.#waiting) publisher.resume()
    this.#waiting.clear()
  }

  /**
   * It has closed, or sent its FIN; safe to call again.
   * @param {Peer} peer
   */
  left(peer) {
    this.#subscribers.delete(peer)
    this.#publishers.delete(peer)
    this.#waiting.delete(peer)
    this.drained(peer)
  }

  #publish(publisher, chunk) {
    for (const subscriber of this.#subscribers) this.#sendTo(subscriber, chunk)
    if (this.#slow.size === 0) return
    publisher.pause()
    this.#waiting.add(publisher)
  }

  #sendTo(subscriber, bytes) {
    if (!this.#send(subscriber, bytes)) this.#slow.add(subscriber)
  }
}
