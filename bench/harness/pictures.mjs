// @ts-check
// Which charts a run makes, and what is in them.
import { IDLE_BYTES } from './goals.mjs'
import { ratioOf, valuesOf } from './metrics.mjs'
import { titleOf } from './scenarios.mjs'
import { FLOOR, NET } from './servers.mjs'
import { medianInterval, spread } from './stats.mjs'
import { ratioText } from './summary.mjs'
import { digits, whole } from './tables.mjs'

/** @import { Measured } from './campaign.mjs' */
/** @import { Bar, Chart, Panel } from './charts.mjs' */
/** @import { Metric } from './metrics.mjs' */
/** @import { RunRecord } from './record.mjs' */
/** @import { Group } from './scenarios.mjs' */

/** @typedef {{ file: string, chart: Chart }} Picture */

/** @type {Record<Exclude<Group, 'latency'>, string>} */
export const groupTitles = {
  echo: 'Echo',
  connections: 'Connections',
  patterns: 'Deadlines, transfers, fan-out',
  protocols: 'Protocols parsed in the handler',
}

/**
 * @param {RunRecord} record
 * @returns {Picture[]} only of what was measured
 */
export function picturesOf(record) {
  const groups = /** @type {[Exclude<Group, 'latency'>, string][]} */ (Object.entries(groupTitles))
  const cpu = groups.map(([group, title]) => ({
    file: `cpu-${group}.svg`,
    chart: {
      title: `${title}: server CPU time per message, relative to the C floor`,
      subtitle:
        'Less is better. Whiskers: the spread of the in-round ratios. Faint, with ~: the spread swallows the ratio.',
      panels: record.loads.filter(({ scenario }) => scenario.group === group).flatMap(cpuPanel),
    },
  }))
  return [...cpu, latencyPicture(record.loads), memoryPicture(record)].filter(({ chart }) => chart.panels.length > 0)
}

/**
 * @param {Measured} load
 * @returns {Panel[]}
 */
function cpuPanel(load) {
  const base = [FLOOR, NET].find((name) => load.servers.some(({ server }) => server.name === name))
  if (base === undefined) return []
  const theirs = valuesOf(load, base, 'cpuUsPerMessage')
  const bars = load.servers.flatMap(({ server: { name, label } }) => {
    if (name === base) return [{ server: name, label, value: 1, low: 1, high: 1, text: '1' }]
    const ratio = ratioOf(valuesOf(load, name, 'cpuUsPerMessage'), theirs)
    if (ratio === undefined) return []
    const { value, low, high, verdict } = ratio
    const text = ratioText(ratio).replace(/^x/, '')
    return [{ server: name, label, value, low, high, text, faint: verdict === 'refused' }]
  })
  const title = titleOf(load.scenario) + (base === FLOOR ? '' : ' (to net.Server)')
  return [{ title, bars, mark: 1 }]
}

/**
 * @param {Measured[]} loads
 * @returns {Picture}
 */
function latencyPicture(loads) {
  const load = loads.find(({ scenario }) => scenario.group === 'latency')
  const percentiles = /** @type {[Metric, string][]} */ ([
    ['p50Us', 'p50, µs'],
    ['p99Us', 'p99, µs'],
    ['p999Us', 'p99.9, µs'],
  ])
  const panels = load === undefined ? [] : percentiles.map(([metric, title]) => latencyPanel(load, metric, title))
  const rate = load?.rate === undefined ? '' : `, ${whole(load.rate)} messages a second`
  return {
    file: 'latency.svg',
    chart: {
      title: `Latency at half of net.Server’s peak rate${rate}`,
      subtitle: 'Open loop, corrected for coordinated omission. Less is better. Whiskers: the spread of the trials.',
      panels: panels.filter(({ bars }) => bars.length > 0),
    },
  }
}

/**
 * @param {Measured} load
 * @param {Metric} metric
 * @param {string} title
 * @returns {Panel}
 */
function latencyPanel(load, metric, title) {
  const bars = load.servers.flatMap(({ server }) => {
    const values = valuesOf(load, server.name, metric)
    return values === undefined ? [] : [barOf(server, values, digits)]
  })
  return { title, bars }
}

/**
 * @param {RunRecord} record
 * @returns {Picture}
 */
function memoryPicture({ memory }) {
  const bars = memory.map(({ server, bytes }) => barOf(server, bytes, whole))
  return {
    file: 'memory.svg',
    chart: {
      title: 'Memory of an idle connection',
      subtitle: `Bytes of resident memory, less is better. Dashed: the goal, ${IDLE_BYTES} bytes. Whiskers: the spread of the trials.`,
      panels: bars.length === 0 ? [] : [{ title: 'bytes each, of 10,000', bars, mark: IDLE_BYTES }],
    },
  }
}

/**
 * @param {import('./servers.mjs').ServerName} server
 * @param {number[]} values
 * @param {(value: number) => string} format
 * @returns {Bar}
 */
function barOf({ name, label }, values, format) {
  const { median } = spread(values)
  return { server: name, label, value: median, ...medianInterval(values), text: format(median) }
}
