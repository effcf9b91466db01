// @ts-check
// The tables that are printed.
import Table from 'cli-table3'
import pc from 'picocolors'
import { metrics } from './metrics.mjs'
import { titleOf } from './scenarios.mjs'
import { EDGEWIRE } from './servers.mjs'
import { spread } from './stats.mjs'
import { ratiosTo, ratioText } from './summary.mjs'

/** @import { Counted, Measured } from './campaign.mjs' */
/** @import { Outcome } from './goals.mjs' */
/** @import { ServerName } from './servers.mjs' */
/** @import { Ratio, Spread } from './stats.mjs' */
/** @import { Summary } from './summary.mjs' */

/**
 * @param {Summary[]} summaries
 * @param {{ spreads: boolean }} options spreads: also the smallest and the largest of the trials
 */
export function loadTable(summaries, { spreads }) {
  const show = (/** @type {Spread | undefined} */ value, /** @type {(n: number) => string} */ format) => {
    if (value === undefined) return pc.dim('-')
    const middle = format(value.median)
    return spreads ? `${middle}\n${pc.dim(`${format(value.min)}..${format(value.max)}`)}` : middle
  }
  const table = newTable([
    'load',
    'server',
    'messages/s',
    'p50 us',
    'p99 us',
    'CPU us/msg',
    'CPU to\nnet.Server',
    'CPU to\nfloor',
  ])
  for (const { title, unit, rows } of summaries) {
    const name = unit === 'message' || !spreads ? title : `${title}\n${pc.dim(`(msg: ${unit})`)}`
    for (const [index, row] of rows.entries()) {
      const { messagesPerSecond, p50Us, p99Us, cpuUsPerMessage } = row.metrics
      table.push([
        ...(index === 0 ? [{ content: name, rowSpan: rows.length }] : []),
        serverCell(row.server),
        show(messagesPerSecond, whole),
        show(p50Us, digits),
        show(p99Us, digits),
        show(cpuUsPerMessage, digits),
        ratioCell(row.toNet?.cpuUsPerMessage, /*judge=*/ true),
        ratioCell(row.toFloor?.cpuUsPerMessage, /*judge=*/ false),
      ])
    }
  }
  return table.toString()
}

/**
 * @param {{ server: ServerName, bytes: number[] }[]} results
 * @param {number} connections
 */
export function memoryTable(results, connections) {
  const table = newTable([`idle, ${whole(connections)} conns`, 'bytes each', 'min..max'])
  for (const { server, bytes } of results) {
    const { median, min, max } = spread(bytes)
    table.push([serverCell(server), whole(median), `${whole(min)}..${whole(max)}`])
  }
  return table.toString()
}

/**
 * @param {Counted[]} counted
 * @param {(scenario: string) => string} titleOf
 */
export function callTable(counted, titleOf) {
  const table = newTable(['system calls', 'server', 'per msg', 'of which'])
  for (const { scenario, server, calls } of counted) {
    table.push([titleOf(scenario), serverCell(server), digits(calls.all), commonest(calls.byName)])
  }
  return table.toString()
}

const COMMONEST = 3

/** @param {Record<string, number>} byName */
export function commonest(byName) {
  const sorted = Object.entries(byName).sort(([, a], [, b]) => b - a)
  return sorted
    .slice(0, COMMONEST)
    .map(([name, each]) => `${name} ${digits(each)}`)
    .join(', ')
}

/** @param {Outcome[]} outcomes */
export function goalTable(outcomes) {
  const paint = {
    met: pc.green,
    missed: pc.red,
    'out of reach': pc.magenta,
    'not decided': pc.yellow,
    'not measured': pc.dim,
  }
  const table = newTable(['goal', 'driver', 'bound', 'ratio or bytes', 'verdict'])
  for (const { load, drivers } of outcomes) {
    for (const { server, findings } of drivers) {
      for (const { text, measured, floor, verdict } of findings) {
        table.push([
          load,
          server === EDGEWIRE ? 'default' : server.replace(/^edgewire-/, ''),
          text,
          floor === undefined ? measured : `${measured}\n${pc.dim(`floor ${floor}`)}`,
          paint[verdict](verdict),
        ])
      }
    }
  }
  return table.toString()
}

/**
 * This tree against another revision, in every metric that matters for it.
 * @param {Measured[]} loads
 * @param {string} other the server's name
 * @param {string} label
 */
export function comparisonTable(loads, other, label) {
  const shown = /** @type {const} */ (['cpuUsPerMessage', 'messagesPerSecond', 'p50Us', 'p99Us'])
  const table = newTable(['load', ...shown.map((metric) => `${metrics[metric].title}\nto ${label}`)])
  for (const load of loads) {
    const ratios = ratiosTo(load, EDGEWIRE, other)
    const cells = shown.map((metric) => ratioCell(ratios?.[metric], true, metrics[metric].moreIsBetter))
    table.push([titleOf(load.scenario), ...cells])
  }
  return table.toString()
}

/** @param {string[]} head */
function newTable(head) {
  // Colours are ours (picocolors knows when there must be none), not the table's.
  const colAligns = head.map((_, column) => ((head.length > 3 && column < 2) || column < 1 ? 'left' : 'right'))
  return new Table({ head, colAligns: /** @type {any} */ (colAligns), style: { head: [], border: [], compact: true } })
}

/** @param {ServerName} server */
function serverCell({ name, label }) {
  return name.startsWith(EDGEWIRE) ? pc.bold(label) : label
}

/**
 * @param {Ratio | undefined} ratio
 * @param {boolean} judge green: better than the other, red: worse
 * @param {boolean} [moreIsBetter]
 */
function ratioCell(ratio, judge, moreIsBetter = false) {
  if (ratio === undefined) return pc.dim('-')
  const text = ratioText(ratio)
  if (!judge || ratio.verdict !== 'ratio') return text
  return ratio.value < 1 !== moreIsBetter ? pc.green(text) : pc.red(text)
}

/** @param {number} value */
export function whole(value) {
  return Math.round(value).toLocaleString('en')
}

/** Three significant digits. @param {number} value */
export function digits(value) {
  if (value >= 100) return whole(value)
  return value.toFixed(value >= 10 ? 1 : 2)
}
