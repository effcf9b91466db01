// @ts-check
// What has become dearer than the committed reference.

/**
 * @typedef {object} Cost  of one message
 * @property {number} instructions
 * @property {Record<string, number>} calls  system calls, by name
 */

/** A count may grow by this part before it is a finding: a change that is worth it saves a new reference. */
export const GROWTH_ALLOWED = 0.1
/** System calls are exact; this is for the rounding of the third decimal. */
const CALLS_ROUNDING = 0.002

/**
 * One sentence for everything that has grown too much; empty if nothing has. A load that only one side has is none.
 * @param {Record<string, Cost>} before
 * @param {Record<string, Cost>} now
 * @returns {string[]}
 */
export function compare(before, now) {
  return Object.entries(now).flatMap(([load, cost]) => {
    const then = before[load]
    if (then === undefined) return []
    const found = []
    if (cost.instructions > then.instructions * (1 + GROWTH_ALLOWED)) {
      const growth = ((cost.instructions / then.instructions - 1) * 100).toFixed(1)
      found.push(`${load}: ${cost.instructions} instructions a message, ${growth}% more than ${then.instructions}`)
    }
    for (const [name, each] of Object.entries(cost.calls)) {
      const was = then.calls[name] ?? 0
      if (each > was + CALLS_ROUNDING) found.push(`${load}: ${each} calls of ${name} a message instead of ${was}`)
    }
    return found
  })
}
