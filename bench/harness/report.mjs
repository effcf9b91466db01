// @ts-check
// docs/benchmarks.md and its charts, from the file of one run: nothing in it is written by hand. And what other documents
// repeat of it.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { noCharts, svgOf } from './charts.mjs'
import { REVISION } from './compare.mjs'
import { excerptFiles, fillIn } from './excerpts.mjs'
import { judge } from './goals.mjs'
import { lossesIn } from './losses.mjs'
import { describeCommit, describeMachine } from './machine.mjs'
import { table } from './markdown.mjs'
import { groupTitles, picturesOf } from './pictures.mjs'
import { describeTrials } from './record.mjs'
import { scenarioNamed, titleOf, windowSeconds } from './scenarios.mjs'
import { EDGEWIRE, FLOOR, NET } from './servers.mjs'
import { ROUNDS_LEAST, spread } from './stats.mjs'
import { ratiosTo, ratioText } from './summary.mjs'
import { commonest, digits, whole } from './tables.mjs'

/** @import { Measured } from './campaign.mjs' */
/** @import { Verdict } from './goals.mjs' */
/** @import { Loss } from './losses.mjs' */
/** @import { Picture } from './pictures.mjs' */
/** @import { RunRecord } from './record.mjs' */
/** @import { Group } from './scenarios.mjs' */

/**
 * @param {RunRecord} record
 * @param {string} root of the clone
 * @returns {Promise<string[]>} the files that were written
 */
export async function writeReport(record, root) {
  if (record.loads.some(({ servers }) => servers.some(({ server }) => server.name === REVISION))) {
    throw new Error('that was a run of --compare: the page is about edgewire and its peers')
  }
  const problem = noCharts()
  if (problem !== undefined) throw new Error(problem)
  const documents = excerptFiles.map((file) => {
    const target = path.join(root, file)
    return { target, text: fillIn(file, readFileSync(target, 'utf8'), record) }
  })
  const folder = path.join(root, 'docs/benchmarks')
  mkdirSync(folder, { recursive: true })
  for (const old of readdirSync(folder).filter((name) => name.endsWith('.svg'))) rmSync(path.join(folder, old))
  const pictures = picturesOf(record)
  const written = pictures.map(({ file, chart }) => {
    const target = path.join(folder, file)
    writeFileSync(target, svgOf(chart))
    return target
  })
  const page = path.join(root, 'docs/benchmarks.md')
  writeFileSync(page, pageOf(record, pictures))
  for (const { target, text } of documents) writeFileSync(target, text)
  return [page, ...documents.map(({ target }) => target), ...written]
}

/**
 * @param {RunRecord} record
 * @param {Picture[]} pictures
 * @returns {string} Markdown
 */
export function pageOf(record, pictures) {
  const picture = (/** @type {string} */ file) => {
    const found = pictures.find((each) => each.file === file)
    return found === undefined ? [] : [`![${found.chart.title}](benchmarks/${file})`]
  }
  const groups = /** @type {[Exclude<Group, 'latency'>, string][]} */ (Object.entries(groupTitles))
  const sections = [
    introduction(record),
    goalSection(record),
    lossSection(record),
    ...groups.map(([group, title]) =>
      loadSection(record, group, `CPU time: ${title.toLowerCase()}`, picture(`cpu-${group}.svg`)),
    ),
    latencySection(record, picture('latency.svg')),
    memorySection(record, picture('memory.svg')),
    callSection(record),
    gaps(record),
  ]
  return `${sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n\n'))
    .join('\n\n')}\n`
}

/** @param {RunRecord} record */
function introduction(record) {
  const { date, commit, machine, versions, settings, tookSeconds, loads } = record
  const found = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  const longer = loads
    .map(({ scenario }) => ({ title: titleOf(scenario), seconds: windowSeconds(scenario, settings.seconds) }))
    .filter(({ seconds }) => seconds > settings.seconds)
    .map(({ title, seconds }) => `${title}: ${seconds} s`)
  return [
    '# Benchmarks',
    'One run of `npm run bench`, as a page. `npm run bench -- --report FILE` has made it from the file of that run; edit ' +
      'the program, not this. What is measured, and how: [bench/README.md](../bench/README.md).',
    [
      `- **Machine**: ${describeMachine(machine)}`,
      `- **Versions**: edgewire ${describeCommit(commit)}; ${found.join(', ')}`,
      `- **Run**: ${date.slice(0, 10)}, ${describeTrials(record)} of ${settings.seconds} s each ` +
        `${longer.length > 0 ? `(${longer.join(', ')}) ` : ''}after ${settings.warmup} s of warm-up, ${Math.round(tookSeconds / 60)} minutes${settings.quick ? '; a quick run, with fewer loads and trials' : ''}`,
    ].join('\n'),
    ...(settings.trials < ROUNDS_LEAST
      ? [
          `**A short run**: fewer than ${ROUNDS_LEAST} rounds do not reach the confidence that the intervals are meant to have.`,
        ]
      : []),
    'A ratio is the median of the ratios within the rounds, in which all servers run seconds apart. Where the spread ' +
      'swallows it, it is not shown: `~` stands before the range in which it lies, `same` means that it is within 5% of 1. ' +
      'Absolute times belong to this machine on this day; the ratios are what carries over.',
  ]
}

/** @param {RunRecord} record */
function goalSection(record) {
  const outcomes = judge(record)
  const rows = outcomes.flatMap(({ load, verdict, drivers }) =>
    drivers.flatMap(({ server, findings }, driver) =>
      findings.map((finding, i) => [
        driver === 0 && i === 0 ? load : '',
        driver === 0 && i === 0 ? `**${verdict}**` : '',
        i === 0 ? (server === EDGEWIRE ? 'default' : server.replace(`${EDGEWIRE}-`, '')) : '',
        finding.text,
        finding.measured,
        finding.floor ?? '',
        finding.verdict,
      ]),
    ),
  )
  const byDefault = outcomes.flatMap(({ drivers }) => drivers.filter(({ server }) => server === EDGEWIRE))
  return [
    '## Goals',
    `${tally(outcomes)}. A goal is met when the whole interval of every one of its ratios keeps its bound, missed when ` +
      'one lies beyond it, and not decided when the spread leaves both open, or when fewer than ' +
      `${ROUNDS_LEAST} rounds were measured; it holds if it holds under the better driver. Unless something else is named, ` +
      'the ratio is that of the server CPU time per message.',
    `With the default driver alone: ${tally(byDefault)}.`,
    'Where a bound asks for less than another server takes, the floor’s own ratio to that server stands beside it. A bound ' +
      'that is missed is out of reach when the floor’s whole interval lies beyond it, too, and no server of the run keeps ' +
      'it: on this machine even a server that does little but system calls takes more than it allows. A goal is out of ' +
      'reach when one of its bounds is, and none is missed that could be reached.',
    table(['load', 'goal', 'driver', 'bound', 'measured', 'the floor’s', 'verdict'], rows),
  ]
}

/** @param {{ verdict: Verdict }[]} judged */
function tally(judged) {
  const verdicts = /** @type {const} */ (['met', 'missed', 'out of reach', 'not decided', 'not measured'])
  return verdicts
    .map((verdict) => ({ verdict, count: judged.filter((each) => each.verdict === verdict).length }))
    .filter(({ verdict, count }) => count > 0 || verdict !== 'not measured')
    .map(({ verdict, count }) => `${count} ${verdict}`)
    .join(', ')
}

/** @param {RunRecord} record */
function lossSection(record) {
  const { peers, floor, undecided, compared } = lossesIn(record)
  const rows = (/** @type {Loss[]} */ losses) =>
    losses.map(({ load, server, points }) => [load, server, points.join(', ')])
  return [
    '## Where edgewire loses',
    `All ${compared} comparisons of edgewire (its default driver, with handlers) with another server are looked at here; ` +
      `in ${undecided} of them the spread decides nothing. An interval misses its ratio in up to one case of ten, so among so ` +
      'many a few are decided by chance, for it or against it. A factor is edgewire’s value divided by the other’s (`~`: by ' +
      'how much it is behind is known as a range only). In closed loops a slow server is asked less, so latencies there ' +
      'belong to different rates.',
    peers.length === 0
      ? 'No peer is ahead of it by more than the spread in this run.'
      : table(['load', 'behind', 'in'], rows(peers)),
    ...(floor.length === 0
      ? []
      : [
          'And against the bare C loop, which does nothing but this one job:',
          table(['load', 'behind', 'in'], rows(floor)),
        ]),
  ]
}

/**
 * @param {RunRecord} record
 * @param {Group} group
 * @param {string} title
 * @param {string[]} picture
 */
function loadSection({ loads }, group, title, picture) {
  const inGroup = loads.filter(({ scenario }) => scenario.group === group)
  if (inGroup.length === 0) return []
  const head = ['load', 'server', 'CPU µs', 'to floor', 'to net', 'a second', 'p50 µs', 'p99 µs', 'switches']
  return [`## ${title}`, ...picture, table(head, inGroup.flatMap(loadRows), 2)]
}

/** @param {Measured} load */
function loadRows(load) {
  const unit = load.scenario.unit === 'message' ? '' : ` (a message: ${load.scenario.unit})`
  return load.servers.map(({ server, trials }, i) => {
    const to = (/** @type {string} */ other) => {
      const found = ratiosTo(load, server.name, other)?.cpuUsPerMessage
      return found === undefined ? '' : ratioText(found)
    }
    const middle = (/** @type {number[]} */ values) => spread(values).median
    const switches = trials.every(({ contextSwitches }) => contextSwitches !== undefined)
      ? middle(trials.map(({ contextSwitches = 0, messages }) => contextSwitches / messages)).toFixed(3)
      : ''
    return [
      i === 0 ? `${titleOf(load.scenario)}${unit}` : '',
      server.label,
      withSpread(trials.map(({ cpuUsPerMessage }) => cpuUsPerMessage)),
      to(FLOOR),
      to(NET),
      whole(middle(trials.map(({ messagesPerSecond }) => messagesPerSecond))),
      digits(middle(trials.map(({ p50Us }) => p50Us))),
      digits(middle(trials.map(({ p99Us }) => p99Us))),
      switches,
    ]
  })
}

/**
 * @param {RunRecord} record
 * @param {string[]} picture
 */
function latencySection({ loads }, picture) {
  const load = loads.find(({ scenario }) => scenario.group === 'latency')
  if (load === undefined) return []
  const metrics = /** @type {const} */ (['p50Us', 'p99Us', 'p999Us', 'cpuUsPerMessage'])
  const rows = load.servers.map(({ server, trials }) => [
    server.label,
    ...metrics.map((metric) => withSpread(trials.map((trial) => trial[metric]))),
    whole(trials.reduce((sum, { missed = 0 }) => sum + missed, 0)),
  ])
  const peak = load.scenario.atPeak
  return [
    '## Latency at a fixed rate',
    ...picture,
    `Open loop: ${whole(load.rate ?? 0)} messages a second are due at fixed instants whatever the server does, which is ` +
      `${whole((peak?.share ?? 1) * 100)}% of what net.Server moves at most in a closed loop in this run. A latency counts ` +
      'from the instant at which its message was due. Missed: not answered by the end.',
    table(['server', 'p50 µs', 'p99 µs', 'p99.9 µs', 'CPU µs', 'missed'], rows, 1),
  ]
}

/**
 * @param {RunRecord} record
 * @param {string[]} picture
 */
function memorySection({ memory }, picture) {
  if (memory.length === 0) return []
  const rows = memory.map(({ server, bytes }) => [server.label, withSpread(bytes)])
  return ['## Memory of idle connections', ...picture, table(['server', 'bytes each'], rows, 1)]
}

/** @param {RunRecord} record */
function callSection({ syscalls }) {
  if (syscalls.length === 0) return []
  const rows = syscalls.map(({ scenario, server, calls }, i) => [
    syscalls[i - 1]?.scenario === scenario ? '' : titleOf(scenarioNamed(scenario) ?? { title: scenario }),
    server.label,
    digits(calls.all),
    commonest(calls.byName),
  ])
  return [
    '## System calls per message',
    'Counted by strace in a pass of its own, in which the server is so slow that more messages wait for it at a time: what ' +
      'is paid once for many of them (waiting for events above all) shows less than it does at full speed.',
    table(['load', 'server', 'calls', 'of which'], rows),
  ]
}

/** @param {RunRecord} record */
function gaps({ skipped, absent, failures }) {
  const lines = [
    ...skipped.map((line) => `- Skipped: ${line}.`),
    ...absent.map(({ scenario, server, reason }) => `- ${scenario} without ${server}: ${reason}.`),
    ...failures.map(({ scenario, server, reason }) => `- ${server} failed in ${scenario}: ${reason.split('\n')[0]}`),
  ]
  return lines.length === 0 ? [] : ['## What is not in it', lines.join('\n')]
}

/** @param {number[]} values */
function withSpread(values) {
  const { median, min, max } = spread(values)
  return `${digits(median)} (${digits(min)}..${digits(max)})`
}
