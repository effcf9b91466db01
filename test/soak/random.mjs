// @ts-check
// Random numbers that a seed brings back.

export class Random {
  #state

  /**
   * @param {number} seed
   * @param {number} [stream] one seed has many independent streams: each session gets its own, so that what a session
   *   does depends on its number only, not on the order in which the network lets the sessions run
   */
  constructor(seed, stream = 0) {
    this.#state = mix(mix(seed) ^ mix(stream + 0x9e3779b9))
  }

  /** 0 to (not including) 1: mulberry32. */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    return mix(this.#state) / 2 ** 32
  }

  /**
   * @param {number} least
   * @param {number} most
   */
  int(least, most) {
    return least + Math.floor(this.next() * (most - least + 1))
  }

  /**
   * As many numbers of each size: sizes of messages are felt on this scale.
   * @param {number} least at least 1
   * @param {number} most
   */
  size(least, most) {
    return Math.min(most, Math.round(least * (most / least) ** this.next()))
  }

  /** @param {number} probability */
  chance(probability) {
    return this.next() < probability
  }

  /**
   * @template T
   * @param {readonly T[]} list
   * @returns {T}
   */
  pick(list) {
    return list[this.int(0, list.length - 1)]
  }

  /**
   * @template {{ weight: number }} T
   * @param {readonly T[]} list
   * @returns {T}
   */
  weighted(list) {
    let left = this.next() * list.reduce((sum, { weight }) => sum + weight, 0)
    for (const item of list) {
      left -= item.weight
      if (left < 0) return item
    }
    return list[0]
  }
}

/** @param {number} value */
function mix(value) {
  let t = Math.imul(value ^ (value >>> 15), 1 | value)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return (t ^ (t >>> 14)) >>> 0
}
