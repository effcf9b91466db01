// @ts-check
// `npm run bench`: all servers under all loads, with the spread of the trials, the memory of idle connections and system
// calls; and the report that is made from that.
import path from 'node:path'
import pc from 'picocolors'
import { countSystemCalls, measureLoads, measureMemory } from './harness/campaign.mjs'
import { withheld } from './harness/child.mjs'
import { buildRevision, REVISION } from './harness/compare.mjs'
import { judge } from './harness/goals.mjs'
import { installPeers } from './harness/install.mjs'
import { describeMachine } from './harness/machine.mjs'
import { IDLE_CONNECTIONS } from './harness/memory.mjs'
import { parseOptions } from './harness/options.mjs'
import {
  chosenServers,
  countTrials,
  describeTime,
  estimate,
  memoryRounds,
  planLoads,
  withIdle,
} from './harness/plan.mjs'
import { Progress } from './harness/progress.mjs'
import {
  describeTrials,
  portable,
  readRecord,
  recordRun,
  requireWritable,
  resultFile,
  writeRecord,
} from './harness/record.mjs'
import { writeReport } from './harness/report.mjs'
import { scenarioNamed, titleOf } from './harness/scenarios.mjs'
import { NET, root, servers } from './harness/servers.mjs'
import { present, requirePrograms, run } from './harness/start.mjs'
import { ROUNDS_LEAST } from './harness/stats.mjs'
import { explain, summarize } from './harness/summary.mjs'
import { noStrace } from './harness/syscalls.mjs'
import { callTable, comparisonTable, goalTable, loadTable, memoryTable } from './harness/tables.mjs'

/** @import { Failure } from './harness/campaign.mjs' */
/** @import { Judged } from './harness/goals.mjs' */
/** @import { Options } from './harness/options.mjs' */
/** @import { Results, RunRecord } from './harness/record.mjs' */

const QUICK_BUDGET_MS = 165_000 // of the three minutes that are promised

run(async () => {
  const options = parseOptions(process.argv.slice(2))
  if (options.installPeers) return console.log(installPeers().join('\n'))
  if (options.report !== undefined) {
    const written = await writeReport(readRecord(options.report), root)
    return console.log(written.map((file) => path.relative(process.cwd(), file)).join('\n'))
  }
  const file = options.json ?? resultFile(root, new Date())
  requireWritable(file)
  const record = await recordRun(root, options, () => measure(options))
  show(record, options) // first: if it cannot be written any more, it has been seen
  writeRecord(file, record)
  console.log(pc.dim(`\nEvery trial: ${path.relative(process.cwd(), file)}`))
  if (record.failures.length > 0) throw new Error(describeFailures(record.failures))
})

/** @param {Options} options @returns {Promise<Results>} */
async function measure(options) {
  const wanted = options.compare === undefined ? chosenServers(options, servers) : buildRevision(options.compare)
  const bin = requirePrograms(options.bin)
  const { found, skipped } = await present(wanted, bin)
  const settings = { bin, seconds: options.seconds, warmup: options.warmup }
  const rounds = {
    rounds: options.trials,
    ...(options.goalTrials !== undefined && { goalRounds: options.goalTrials }),
  }
  const plan = planLoads(options, found)
  const extent = {
    groups: plan.groups,
    idle: withIdle(options) ? found.filter(({ some }) => !some || options.servers !== undefined) : [],
    syscalls: syscallPass(options, plan.groups.flat(), skipped),
    ...rounds,
    ...settings,
  }
  for (const line of skipped) console.log(pc.yellow(`skipped: ${portable(line, root)}`))
  if (withheld().length > 0) console.log(pc.dim(`No server gets ${withheld().join(', ')}.`))
  const trials = countTrials(plan.groups, rounds) + extent.idle.length * memoryRounds(options.trials)
  const more = extent.syscalls.reduce((sum, entry) => sum + entry.servers.length, 0)
  if (trials + more === 0) {
    const reasons = plan.absent.map(({ scenario, server, reason }) => `\n  ${scenario} without ${server}: ${reason}`)
    throw new Error(`nothing is left to measure.${reasons.join('')}`)
  }
  const budget = options.quick ? { budgetMs: QUICK_BUDGET_MS } : {}
  const seconds = Math.min(estimate(extent), (budget.budgetMs ?? Number.POSITIVE_INFINITY) / 1000)
  console.log(`${trials + more} trials, ${describeTime(seconds)}.`)

  /** @type {Failure[]} */
  const failures = []
  const progress = new Progress(trials + more)
  const rated = servers.filter(({ name }) => name === NET)
  const { onStep } = progress
  const onFailure = (/** @type {Failure} */ failure) => failures.push(failure)
  const campaign = { groups: plan.groups, ...rounds, settings, rated, onStep, onFailure, ...budget }
  try {
    const loads = await measureLoads(campaign)
    const memory = await measureMemory(campaign, extent.idle)
    const syscalls = await countSystemCalls(campaign, extent.syscalls)
    return {
      skipped: skipped.map((line) => portable(line, root)),
      absent: plan.absent,
      failures: failures.map((failure) => ({ ...failure, reason: portable(failure.reason, root) })),
      loads,
      memory,
      syscalls,
    }
  } finally {
    progress.end()
  }
}

/**
 * @param {Options} options
 * @param {import('./harness/plan.mjs').Entry[]} entries
 * @param {string[]} skipped gets a line if there can be no such pass
 */
function syscallPass({ syscalls, scenarios }, entries, skipped) {
  if (!syscalls) return []
  const reason = noStrace()
  if (reason !== undefined) {
    skipped.push(reason)
    return []
  }
  return entries.filter(({ scenario }) => scenario.syscalls || scenarios !== undefined)
}

/** @param {RunRecord} record @param {Options} options */
function show(record, options) {
  const { loads, memory, syscalls, absent, settings } = record
  const title = (/** @type {string} */ name) => titleOf(scenarioNamed(name) ?? { title: name })
  const summaries = summarize(loads)
  if (loads.length > 0) console.log(loadTable(summaries, { spreads: true }))
  if (options.compare !== undefined) console.log(comparisonTable(loads, REVISION, options.compare))
  if (memory.length > 0) console.log(memoryTable(memory, IDLE_CONNECTIONS))
  if (syscalls.length > 0) console.log(callTable(syscalls, title))
  if (options.compare === undefined && Math.max(settings.trials, settings.goalTrials ?? 0) >= ROUNDS_LEAST) {
    const outcomes = judge(record)
      .map(({ drivers, ...rest }) => ({ ...rest, drivers: drivers.map(onlyMeasured) }))
      .filter(({ drivers }) => drivers.some(({ findings }) => findings.length > 0))
    if (outcomes.length > 0) console.log(goalTable(outcomes))
  }
  for (const sentence of explain(summaries)) console.log(sentence)
  for (const { scenario, server, reason } of absent) console.log(pc.dim(`${scenario} without ${server}: ${reason}`))
  console.log(
    pc.dim(
      `\n${describeMachine(record.machine)}\nMedians of ${describeTrials(record)}, smallest..largest below. A ratio that ` +
        'the spread swallows is not shown: "~" is its range, "same": within 5%. How to read this: bench/README.md.',
    ),
  )
}

/** @param {Judged} driver @returns {Judged} */
function onlyMeasured({ findings, ...rest }) {
  return { ...rest, findings: findings.filter(({ verdict }) => verdict !== 'not measured') }
}

/** @param {Failure[]} failures */
function describeFailures(failures) {
  const lines = failures.map(
    ({ scenario, server, round, reason }) => `  ${scenario} on ${server}, round ${round + 1}: ${reason}`,
  )
  return `${failures.length} servers were left out of a load in which they failed:\n${lines.join('\n')}`
}
