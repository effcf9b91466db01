// @ts-check
// What is made of the repeated trials of one server under one load.

/** @typedef {{ median: number, min: number, max: number }} Spread */

/**
 * @param {number[]} values at least one
 * @returns {Spread}
 */
export function spread(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  return { median, min: sorted[0], max: sorted[sorted.length - 1] }
}

/**
 * @typedef {object} Ratio
 * @property {number} value  mine divided by theirs
 * @property {boolean} clear the ranges of the two do not overlap: the order of the two is not chance
 */

/**
 * The ratio of two servers: the median of the ratios within each round. The two trials of a round lie seconds apart, so
 * a machine whose speed drifts over the minutes moves both; the ratio of the two overall medians would not cancel that.
 * @param {number[]} mine one value a round
 * @param {number[]} theirs of the same rounds
 * @returns {Ratio}
 */
export function ratio(mine, theirs) {
  const a = spread(mine)
  const b = spread(theirs)
  return {
    value: spread(mine.map((value, round) => value / theirs[round])).median,
    clear: a.max < b.min || b.max < a.min,
  }
}
