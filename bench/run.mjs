// @ts-check
// `npm run bench`: all servers under all loads, with the spread of the trials, and the memory of idle connections.
import { writeFile } from 'node:fs/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import pc from 'picocolors'
import { measureLoads, measureMemory } from './harness/campaign.mjs'
import { describeMachine, machine } from './harness/machine.mjs'
import { IDLE_CONNECTIONS } from './harness/memory.mjs'
import { Progress } from './harness/progress.mjs'
import { IDLE, scenarios } from './harness/scenarios.mjs'
import { servers } from './harness/servers.mjs'
import { requirePrograms, run } from './harness/start.mjs'
import { explain, summarize } from './harness/summary.mjs'
import { loadTable, memoryTable } from './harness/tables.mjs'

const serverNames = servers.map(({ name }) => name)
const scenarioNames = [...scenarios.map(({ name }) => name), IDLE]

const program = new Command('bench')
  .description('Compares echo servers: messages a second, latency, server CPU time per message, memory.')
  .option('--trials <n>', 'trials of each server under each load', positive(Number.isInteger), 5)
  .option('--seconds <s>', 'length of a trial', positive(), 2)
  .option('--warmup <s>', 'time before it, not measured', positive(), 0.5)
  .addOption(new Option('--scenario <name...>', 'only these loads').choices(scenarioNames))
  .addOption(new Option('--server <name...>', 'only these servers').choices(serverNames))
  .option('--idle', `the memory of idle connections; alone: nothing else (like --scenario ${IDLE})`)
  .option('--bin <folder>', 'where edgewire-floor and edgewire-load are')
  .option('--json <file>', 'write every trial to a file')
  .allowExcessArguments(false)

/**
 * @param {(value: number) => boolean} [also]
 * @returns {(text: string) => number}
 */
function positive(also = Number.isFinite) {
  return (text) => {
    const value = Number(text)
    if (!(value > 0) || !also(value)) throw new InvalidArgumentError('A positive number is wanted.')
    return value
  }
}

/**
 * @typedef {object} Options
 * @property {number} trials
 * @property {number} seconds
 * @property {number} warmup
 * @property {string[]} [scenario]
 * @property {string[]} [server]
 * @property {boolean} [idle]
 * @property {string} [bin]
 * @property {string} [json]
 */

run(async () => {
  /** @type {Options} */
  const options = program.parse().opts()
  const wanted = options.scenario ?? (options.idle ? [] : scenarioNames)
  const loads = scenarios.filter(({ name }) => wanted.includes(name))
  const idle = options.idle || wanted.includes(IDLE)
  const chosen = servers.filter(({ name }) => (options.server ?? serverNames).includes(name))
  const settings = {
    bin: requirePrograms(chosen, options.bin),
    seconds: options.seconds,
    warmup: options.warmup,
  }

  const progress = new Progress((loads.length + (idle ? 1 : 0)) * chosen.length * options.trials)
  const plan = { servers: chosen, rounds: options.trials, settings, onStep: progress.onStep }
  const { measured, memory } = await measure().finally(() => progress.end())
  const about = machine()
  if (options.json !== undefined) {
    const record = { date: new Date().toISOString(), machine: about, settings: options, loads: measured, memory }
    await writeFile(options.json, `${JSON.stringify(record, null, 2)}\n`)
  }

  const summaries = summarize(measured)
  if (loads.length > 0) console.log(loadTable(summaries, { spreads: true }))
  if (idle) console.log(memoryTable(memory, IDLE_CONNECTIONS))
  for (const sentence of explain(summaries)) console.log(sentence)
  console.log(
    pc.dim(
      `\n${describeMachine(about)}\nMedians of ${options.trials} trials, smallest..largest below; "~": the ranges of the two ` +
        'overlap. How to read this: bench/README.md.',
    ),
  )

  async function measure() {
    const measured = await measureLoads({ ...plan, scenarios: loads })
    return { measured, memory: idle ? await measureMemory(plan) : [] }
  }
})
