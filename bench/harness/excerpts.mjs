// @ts-check
// Documents that are written by hand repeat figures of the reference run. They stand between two comments there,
// `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`, and come from the same file as docs/benchmarks.md.
import { lossesIn } from './losses.mjs'
import { table, wrap } from './markdown.mjs'
import { describeTrials } from './record.mjs'
import { EDGEWIRE, FLOOR, NET, PREPARE, servers, WAITER } from './servers.mjs'
import { spread } from './stats.mjs'
import { ratiosTo, ratioText } from './summary.mjs'
import { whole } from './tables.mjs'

/** @import { RunRecord } from './record.mjs' */

/** @typedef {{ file: string, name: string, partOf: (record: RunRecord) => string[] }} Excerpt  partOf: its paragraphs */

/** @type {Excerpt[]} */
const excerpts = [
  { file: 'README.md', name: 'what-it-costs', partOf: whatItCosts },
  { file: 'docs/tuning.md', name: 'drivers', partOf: drivers },
]

/** The documents that have such parts. */
export const excerptFiles = excerpts.map(({ file }) => file)

/**
 * @param {string} file one of excerptFiles
 * @param {string} text what it says now
 * @param {RunRecord} record
 * @returns {string} what it has to say
 */
export function fillIn(file, text, record) {
  for (const { name, partOf } of excerpts.filter((each) => each.file === file)) {
    const [begin, end] = [`<!-- bench:${name} -->`, `<!-- /bench:${name} -->`]
    const [from, to] = [text.indexOf(begin), text.indexOf(end)]
    if (from < 0 || to < from) throw new Error(`${file} has no part between ${begin} and ${end}`)
    const before = text.slice(0, from + begin.length)
    text = [before, ...partOf(record), text.slice(to)].join('\n\n')
  }
  return text
}

/** @type {[scenario: string, title: string][]} */
const COSTS = [
  ['64b-64', '64 B x 64 connections'],
  ['64b-64-d16', 'the same, 16 messages in flight on each'],
  ['1k-1000', '1 KiB x 1000 connections'],
  ['64k-64', '64 KiB x 64 connections'],
  ['churn', 'connect, echo 64 B, close'],
  ['lines', 'a line protocol, parsed'],
  ['fanout-1000', '256 B to 1000 subscribers'],
]

/** @param {RunRecord} record */
function whatItCosts(record) {
  const { machine, date } = record
  const rows = COSTS.map(([scenario, title]) => [
    title,
    ...[NET, FLOOR].map((other) => cpuRatio(record, scenario, EDGEWIRE, other)),
  ]).filter(someFigure)
  const where = [
    machine.cpu,
    `${machine.cores} core${machine.cores === 1 ? '' : 's'}`,
    machine.kernel.replace(/^(\w+ \d+\.\d+).*$/, '$1'),
    `Node ${machine.node.replace(/^v(\d+\.\d+).*$/, '$1')}`,
  ].join(', ')
  return [
    table(['load', 'to net.Server', 'to a bare C loop on epoll'], rows),
    ...[
      `${legend(rows)}The run: ${date.slice(0, 10)}, ${describeTrials(record)} of each, on ${where}.`,
      idle(record),
      losses(record),
    ]
      .filter((paragraph) => paragraph !== '')
      .map(wrap),
  ]
}

/** @type {[scenario: string, title: string][]} */
const DRIVER_LOADS = [
  ['64b-64', '64 B x 64 connections'],
  ['64b-64-d16', 'the same, 16 in flight'],
  ['1k-1000', '1 KiB x 1000'],
  ['64k-64', '64 KiB x 64'],
  ['64b-1', '64 B x 1 connection'],
  ['churn', 'connect, echo, close'],
]

/** @param {RunRecord} record */
function drivers(record) {
  const rows = DRIVER_LOADS.map(([scenario, title]) => [
    title,
    ...[EDGEWIRE, PREPARE, WAITER].map((driver) => cpuRatio(record, scenario, driver, FLOOR)),
  ]).filter(someFigure)
  return [table(['load', '`uv_poll`', '`prepare`', '`waiter`'], rows)]
}

/**
 * @param {RunRecord} record
 * @param {string} scenario
 * @param {string} mine
 * @param {string} theirs
 * @returns {string} nothing if it was not measured
 */
function cpuRatio({ loads }, scenario, mine, theirs) {
  const load = loads.find((each) => each.scenario.name === scenario)
  const ratio = load && ratiosTo(load, mine, theirs)?.cpuUsPerMessage
  return ratio === undefined ? '' : ratioText(ratio)
}

/** @param {string[]} row */
function someFigure([, ...figures]) {
  return figures.some((figure) => figure !== '')
}

/** What the signs in a table mean, as far as there are any. @param {string[][]} rows */
function legend(rows) {
  const shown = rows.flatMap(([, ...figures]) => figures)
  const refused = shown.some((figure) => figure.startsWith('~'))
  const same = shown.includes('same')
  return `${refused ? '`~`: the trials scatter so much that only the range is said. ' : ''}${same ? '`same`: within 5% of 1. ' : ''}`
}

/** @param {RunRecord} record */
function idle({ memory }) {
  const bytesOf = (/** @type {string} */ name) => {
    const bytes = memory.find(({ server }) => server.name === name)?.bytes
    if (bytes === undefined) return undefined
    const { median, min, max } = spread(bytes)
    return { middle: whole(median), range: `${whole(min)}..${whole(max)}` }
  }
  const [mine, theirs] = [bytesOf(EDGEWIRE), bytesOf(NET)]
  if (mine === undefined || theirs === undefined) return ''
  return (
    `An idle connection takes ${mine.middle} bytes of the process (${mine.range}), one of \`net.Server\` ` +
    `${theirs.middle} (${theirs.range}); the kernel's socket comes on top of both.`
  )
}

/** @param {RunRecord} record */
function losses(record) {
  const label = servers.find(({ name }) => name === NET)?.label
  const lost = lossesIn(record).peers.filter(({ server }) => server === label)
  if (lost.length === 0) return ''
  const loads = lost.map(({ load, points }) => `${load} (${points.join(', ')})`)
  return `**It loses** to \`net.Server\` by more than the trials scatter in: ${loads.join('; ')}.`
}
