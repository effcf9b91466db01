// @ts-check
// From trials to the numbers that are shown, and to the sentences that say what they mean.
import { metrics, ratioOf, valuesOf } from './metrics.mjs'
import { titleOf } from './scenarios.mjs'
import { EDGEWIRE, FLOOR, NET } from './servers.mjs'
import { isBehind, spread } from './stats.mjs'

/** @import { Measured } from './campaign.mjs' */
/** @import { Metric } from './metrics.mjs' */
/** @import { ServerName } from './servers.mjs' */
/** @import { Ratio, Spread } from './stats.mjs' */

/** @typedef {Partial<Record<Metric, Ratio>>} Ratios */

/**
 * @typedef {object} Row
 * @property {ServerName} server
 * @property {Partial<Record<Metric, Spread>>} metrics
 * @property {Ratios | undefined} toNet    undefined: not measured, or it is net.Server itself
 * @property {Ratios | undefined} toFloor  undefined: not measured, or it is the floor itself
 */

/** @typedef {{ title: string, name: string, unit: string, rounds: number, rows: Row[] }} Summary */

/**
 * @param {Measured[]} measured
 * @returns {Summary[]}
 */
export function summarize(measured) {
  return measured.map((load) => {
    const { scenario, servers } = load
    const rows = servers.map(({ server }) => ({
      server,
      metrics: eachMetric((metric) => {
        const values = valuesOf(load, server.name, metric)
        return values && spread(values)
      }),
      toNet: ratiosTo(load, server.name, NET),
      toFloor: ratiosTo(load, server.name, FLOOR),
    }))
    const { title, unit } = scenario
    return { title, unit, name: titleOf(scenario), rounds: servers[0].trials.length, rows }
  })
}

/**
 * @param {Measured} load
 * @param {string} mine
 * @param {string} theirs
 * @returns {Ratios | undefined}
 */
export function ratiosTo(load, mine, theirs) {
  if (mine === theirs || !load.servers.some(({ server }) => server.name === theirs)) return undefined
  return eachMetric((metric) => ratioOf(valuesOf(load, mine, metric), valuesOf(load, theirs, metric)))
}

/**
 * @template T
 * @param {(metric: Metric) => T | undefined} value
 */
function eachMetric(value) {
  const names = /** @type {Metric[]} */ (Object.keys(metrics))
  const entries = names.map((metric) => [metric, value(metric)]).filter(([, each]) => each !== undefined)
  return /** @type {Partial<Record<Metric, T>>} */ (Object.fromEntries(entries))
}

/** @typedef {{ load: string, toNet: Ratios, toFloor?: Ratios }} Finding */

/**
 * Two or three sentences on edgewire, computed from the results; none if edgewire or net.Server was not measured.
 * @param {Summary[]} summaries
 * @returns {string[]}
 */
export function explain(summaries) {
  /** @type {Finding[]} */
  const findings = summaries.flatMap(({ name, rows }) => {
    const row = rows.find(({ server }) => server.name === EDGEWIRE)
    if (row?.toNet === undefined) return []
    return [{ load: name, toNet: row.toNet, ...(row.toFloor && { toFloor: row.toFloor }) }]
  })
  if (findings.length === 0) return []
  return [...againstNet(findings), ...againstFloor(findings), losses(findings)]
}

/**
 * @param {Finding[]} findings
 * @returns {string[]}
 */
function againstNet(findings) {
  const cpu = decided(findings.map(({ load, toNet }) => ({ load, ratio: toNet.cpuUsPerMessage })))
  const rate = decided(findings.map(({ load, toNet }) => ({ load, ratio: toNet.messagesPerSecond })))
  const parts = [
    cpu.length > 0 ? `For a message, edgewire takes ${range(extremes(cpu), 'the server CPU time of net.Server')}` : '',
    rate.length > 0 ? `in a second it moves ${range(extremes(rate), 'its messages')}` : '',
  ].filter((part) => part !== '')
  return parts.length === 0 ? [] : [`${parts.join(', and ')}.`]
}

/**
 * @param {Finding[]} findings
 * @returns {string[]}
 */
function againstFloor(findings) {
  const values = decided(findings.map(({ load, toFloor }) => ({ load, ratio: toFloor?.cpuUsPerMessage })))
  if (values.length === 0) return []
  return [
    `Against a bare C loop on epoll, which does nothing else, it takes ${range(extremes(values), 'the CPU time')}.`,
  ]
}

/**
 * Where edgewire is behind net.Server by more than the trials scatter.
 * @param {Finding[]} findings
 */
function losses(findings) {
  const lost = findings.flatMap(({ load, toNet }) => {
    const behind = (/** @type {string} */ title, /** @type {Ratio | undefined} */ each, moreIsBetter = false) =>
      each !== undefined && isBehind(each, moreIsBetter) ? [`${title} ${ratioText(each)}`] : []
    const points = [
      ...behind('messages/s', toNet.messagesPerSecond, true),
      ...behind('p50', toNet.p50Us),
      ...behind('p99', toNet.p99Us),
      ...behind('CPU', toNet.cpuUsPerMessage),
    ]
    return points.length === 0 ? [] : [`${load} (${points.join(', ')})`]
  })
  return lost.length === 0
    ? 'In none of these loads is it behind net.Server by more than the trials scatter.'
    : `It is behind net.Server in: ${lost.join('; ')}.`
}

/** @typedef {{ load: string, value: number }} Point */

/**
 * Only what may be shown as a number.
 * @param {{ load: string, ratio: Ratio | undefined }[]} found
 * @returns {Point[]}
 */
function decided(found) {
  return found.flatMap(({ load, ratio }) => (ratio?.verdict === 'ratio' ? [{ load, value: ratio.value }] : []))
}

/** @param {Point[]} points */
function extremes(points) {
  const sorted = [...points].sort((a, b) => a.value - b.value)
  return { least: sorted[0], most: sorted[sorted.length - 1] }
}

/**
 * @param {{ least: Point, most: Point }} points
 * @param {string} what
 */
function range({ least, most }, what) {
  if (times(least.value) === times(most.value)) return `${times(least.value)} ${what}`
  return `${times(least.value)} (${least.load}) to ${times(most.value)} (${most.load}) ${what}`
}

/** @param {number} value */
export function times(value) {
  return `x${value.toFixed(2)}`
}

/**
 * A ratio as far as it may be shown: its value; or that there is no difference to speak of; or the range alone.
 * @param {Ratio} ratio
 */
export function ratioText({ value, low, high, verdict }) {
  if (verdict === 'ratio') return times(value)
  if (verdict === 'same') return 'same'
  return low === high ? '~' : `~ ${low.toFixed(2)}..${high.toFixed(2)}` // of one round there is no range
}
