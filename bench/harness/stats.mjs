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

// The interval of a ratio holds the true median with at least this chance, whatever the distribution. Five rounds are
// the fewest that reach it: their whole range does, with 94%.
const CONFIDENCE = 0.9
export const ROUNDS_LEAST = 5

// Both ends of an interval this close to 1: the two are the same for all that matters.
const SAME = 0.05

// An interval whose ends are further apart than this says who is ahead at best; its middle says nothing.
const WIDEST = 2

/**
 * @typedef {object} Ratio
 * @property {number} value  mine divided by theirs: the median of the ratios within the rounds
 * @property {number} low    the interval that the spread leaves for it
 * @property {number} high
 * @property {'ratio' | 'same' | 'refused'} verdict  only a 'ratio' may be shown as a number of its own
 */

/**
 * The ratio of two servers. It is taken within each round: the two trials of a round lie seconds apart, so a machine
 * whose speed drifts over the minutes moves both; the ratio of the two overall medians would not cancel that.
 *
 * It is refused when the spread swallows it: when the interval contains 1 (the spread towards 1 is at least as large as
 * the effect, so the order of the two may be chance), when the interval is wider than a factor of two, or when there is
 * one round only, which has no spread to judge by.
 * @param {number[]} mine one value a round
 * @param {number[]} theirs of the same rounds
 * @returns {Ratio}
 */
export function ratio(mine, theirs) {
  const each = mine.map((value, round) => value / theirs[round])
  const { low, high } = medianInterval(each)
  return { value: spread(each).median, low, high, verdict: verdictOn(each.length, low, high) }
}

/**
 * @param {number} rounds
 * @param {number} low
 * @param {number} high
 * @returns {Ratio['verdict']}
 */
function verdictOn(rounds, low, high) {
  if (rounds < 2 || !Number.isFinite(low) || !Number.isFinite(high)) return 'refused'
  if (low > 1 - SAME && high < 1 + SAME) return low <= 1 && high >= 1 ? 'same' : 'ratio'
  if (low <= 1 && high >= 1) return 'refused'
  return high > low * WIDEST ? 'refused' : 'ratio'
}

/**
 * The whole interval is on the wrong side of 1. Also when it is too wide for its middle to be shown: who is behind by x2
 * to x9 is behind, and only by how much is not known.
 * @param {Ratio} ratio
 * @param {boolean} [moreIsBetter]
 */
export function isBehind(ratio, moreIsBetter = false) {
  return !isOpen(ratio) && (moreIsBetter ? ratio.high < 1 : ratio.low > 1)
}

/** The spread leaves open who is ahead; of one round there is none that could tell. @param {Ratio} ratio */
export function isOpen({ low, high, verdict }) {
  return verdict === 'refused' && (low === high || !Number.isFinite(high) || (low <= 1 && high >= 1))
}

/**
 * The distribution-free confidence interval of a median: from the k-th smallest to the k-th largest value, k as large
 * as CONFIDENCE allows. Each value lies below the true median with a chance of one half, like a coin.
 * @param {number[]} values at least one
 */
export function medianInterval(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const n = sorted.length
  let cut = 0 // values left out at either end
  let tail = 2 ** -n // the chance that at most `cut` of n coins show heads
  let term = tail
  while (cut + 1 < (n - 1) / 2) {
    term *= (n - cut) / (cut + 1)
    if (1 - 2 * (tail + term) < CONFIDENCE) break
    tail += term
    cut++
  }
  return { low: sorted[cut], high: sorted[n - 1 - cut] }
}
