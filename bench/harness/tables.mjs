// @ts-check
// The tables that are printed.
import Table from 'cli-table3'
import pc from 'picocolors'
import { EDGEWIRE } from './servers.mjs'
import { spread } from './stats.mjs'
import { times } from './summary.mjs'

/** @import { Summary } from './summary.mjs' */
/** @import { Ratio, Spread } from './stats.mjs' */
/** @import { Server } from './servers.mjs' */

/**
 * @param {Summary[]} summaries
 * @param {{ spreads: boolean }} options spreads: also the smallest and the largest of the trials
 */
export function loadTable(summaries, { spreads }) {
  const show = (/** @type {Spread} */ value, /** @type {(n: number) => string} */ format) =>
    spreads ? `${format(value.median)}\n${pc.dim(`${format(value.min)}..${format(value.max)}`)}` : format(value.median)
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
  for (const { title, rows } of summaries) {
    for (const [index, row] of rows.entries()) {
      const { messagesPerSecond, p50Us, p99Us, cpuUsPerMessage } = row.metrics
      table.push([
        ...(index === 0 ? [{ content: title, rowSpan: rows.length }] : []),
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
 * @param {{ server: Server, bytes: number[] }[]} results
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

/** @param {string[]} head */
function newTable(head) {
  // Colours are ours (picocolors knows when there must be none), not the table's.
  const colAligns = head.map((_, column) => ((head.length > 3 && column < 2) || column < 1 ? 'left' : 'right'))
  return new Table({ head, colAligns: /** @type {any} */ (colAligns), style: { head: [], border: [], compact: true } })
}

/** @param {Server} server */
function serverCell({ name, label }) {
  return name.startsWith(EDGEWIRE) ? pc.bold(label) : label
}

/**
 * @param {Ratio | undefined} ratio
 * @param {boolean} judge green: less than the other, red: more
 */
function ratioCell(ratio, judge) {
  if (ratio === undefined) return pc.dim('-')
  if (!ratio.clear) return `~${times(ratio.value)}`
  if (!judge) return times(ratio.value)
  return ratio.value < 1 ? pc.green(times(ratio.value)) : pc.red(times(ratio.value))
}

/** @param {number} value */
function whole(value) {
  return Math.round(value).toLocaleString('en')
}

/** Three significant digits. @param {number} value */
function digits(value) {
  if (value >= 100) return whole(value)
  return value.toFixed(value >= 10 ? 1 : 2)
}
