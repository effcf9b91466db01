// @ts-check
// Round numbers for the axes.

const TIME_STEPS = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400] // seconds
const TIME_TICKS_MAX = 9

/**
 * From 0 in equal round steps to the first that is not below `most`.
 * @param {number} most above 0
 * @param {number} wanted about so many steps
 * @returns {number[]}
 */
export function ticksUpTo(most, wanted) {
  const rough = most / wanted
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = power * ([1, 2, 2.5, 5].find((factor) => factor * power >= rough) ?? 10)
  const count = Math.ceil(most / step - 1e-9)
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(6)))
}

/**
 * @param {number} seconds
 * @returns {number[]}
 */
export function timeTicks(seconds) {
  const step = TIME_STEPS.find((size) => seconds / size <= TIME_TICKS_MAX) ?? 86_400
  return Array.from({ length: Math.floor(seconds / step) + 1 }, (_, i) => i * step)
}
