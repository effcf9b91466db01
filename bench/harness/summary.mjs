// @ts-check
// From trials to the numbers that are shown, and to the sentences that say what they mean.
import { titleOf } from './scenarios.mjs'
import { EDGEWIRE, FLOOR, NET } from './servers.mjs'
import { ratio, spread } from './stats.mjs'

/** @import { Measured } from './campaign.mjs' */
/** @import { Ratio, Spread } from './stats.mjs' */
/** @import { LoadResult } from './trial.mjs' */
/** @import { Server } from './servers.mjs' */

/** @typedef {'messagesPerSecond' | 'p50Us' | 'p99Us' | 'cpuUsPerMessage'} Metric */

/**
 * @typedef {object} Row
 * @property {Server} server
 * @property {Record<Metric, Spread>} metrics
 * @property {Record<Metric, Ratio> | undefined} toNet    undefined: not measured, or it is net.Server itself
 * @property {Record<Metric, Ratio> | undefined} toFloor  undefined: not measured, or it is the floor itself
 */

/** @typedef {{ title: string, name: string, rounds: number, rows: Row[] }} Summary */

/** @type {Metric[]} */
const METRICS = ['messagesPerSecond', 'p50Us', 'p99Us', 'cpuUsPerMessage']

/**
 * @param {Measured[]} measured
 * @returns {Summary[]}
 */
export function summarize(measured) {
  return measured.map(({ scenario, servers }) => {
    const trialsOf = (/** @type {string} */ name) => servers.find(({ server }) => server.name === name)?.trials
    const net = trialsOf(NET)
    const floor = trialsOf(FLOOR)
    const rows = servers.map(({ server, trials }) => ({
      server,
      metrics: eachMetric((metric) => spread(trials.map((trial) => trial[metric]))),
      toNet: ratiosTo(trials, net),
      toFloor: ratiosTo(trials, floor),
    }))
    return { title: scenario.title, name: titleOf(scenario), rounds: servers[0].trials.length, rows }
  })
}

/**
 * @param {LoadResult[]} mine
 * @param {LoadResult[]} [theirs]
 */
function ratiosTo(mine, theirs) {
  if (theirs === undefined || theirs === mine) return undefined
  return eachMetric((metric) => {
    return ratio(
      mine.map((trial) => trial[metric]),
      theirs.map((trial) => trial[metric]),
    )
  })
}

/**
 * @template T
 * @param {(metric: Metric) => T} value
 */
function eachMetric(value) {
  return /** @type {Record<Metric, T>} */ (Object.fromEntries(METRICS.map((metric) => [metric, value(metric)])))
}

/**
 * @typedef {object} Finding
 * @property {string} load
 * @property {Record<Metric, Ratio>} toNet
 * @property {Record<Metric, Ratio>} [toFloor]
 */

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
  return [againstNet(findings), ...againstFloor(findings), losses(findings)]
}

/** @param {Finding[]} findings */
function againstNet(findings) {
  const cpu = extremes(findings.map(({ load, toNet }) => ({ load, value: toNet.cpuUsPerMessage.value })))
  const rate = extremes(findings.map(({ load, toNet }) => ({ load, value: toNet.messagesPerSecond.value })))
  return (
    `For a message, edgewire takes ${range(cpu, 'the server CPU time of net.Server')}, ` +
    `and in a second it moves ${range(rate, 'its messages')}.`
  )
}

/**
 * @param {Finding[]} findings
 * @returns {string[]}
 */
function againstFloor(findings) {
  const values = findings.flatMap(({ load, toFloor }) =>
    toFloor === undefined ? [] : [{ load, value: toFloor.cpuUsPerMessage.value }],
  )
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
    const worse = (/** @type {Ratio} */ { value, clear }) => clear && value > 1
    const { messagesPerSecond: rate, p50Us, p99Us, cpuUsPerMessage: cpu } = toNet
    const points = [
      rate.clear && rate.value < 1 ? `messages/s ${times(rate.value)}` : '',
      worse(p50Us) ? `p50 ${times(p50Us.value)}` : '',
      worse(p99Us) ? `p99 ${times(p99Us.value)}` : '',
      worse(cpu) ? `CPU ${times(cpu.value)}` : '',
    ].filter((point) => point !== '')
    return points.length === 0 ? [] : [`${load} (${points.join(', ')})`]
  })
  return lost.length === 0
    ? 'In none of these loads is it behind net.Server by more than the trials scatter.'
    : `It is behind net.Server in: ${lost.join('; ')}.`
}

/** @typedef {{ load: string, value: number }} Point */

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
