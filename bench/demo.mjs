// @ts-check
// `npm run demo`: edgewire beside net.Server and beside a bare C loop, under five loads, in less than a minute.
import pc from 'picocolors'
import { measureLoads } from './harness/campaign.mjs'
import { describeMachine, machine } from './harness/machine.mjs'
import { Progress } from './harness/progress.mjs'
import { scenarios } from './harness/scenarios.mjs'
import { EDGEWIRE, FLOOR, NET, servers } from './harness/servers.mjs'
import { requirePrograms, run } from './harness/start.mjs'
import { explain, summarize } from './harness/summary.mjs'
import { loadTable } from './harness/tables.mjs'

const ROUNDS = 3
const SECONDS = 0.6
const WARMUP = 0.3 // JavaScript has to be compiled before it is measured
const BUDGET_MS = 50_000 // on a slow machine later rounds are left out; the promise is 55 s

run(async () => {
  const bin = process.env.EDGEWIRE_BENCH_BIN
  const chosen = servers.filter(({ name }) => [FLOOR, NET, EDGEWIRE].includes(name))
  const loads = scenarios.filter(({ demo }) => demo)
  const settings = { bin: requirePrograms(bin), seconds: SECONDS, warmup: WARMUP }

  console.log(
    `${chosen.length} echo servers under ${loads.length} loads, ${ROUNDS} trials each; every byte is checked.\n`,
  )
  const progress = new Progress(loads.length * chosen.length * ROUNDS)
  const measured = await measureLoads({
    groups: loads.map((scenario) => [{ scenario, servers: chosen }]),
    rounds: ROUNDS,
    settings,
    budgetMs: BUDGET_MS,
    onStep: progress.onStep,
  }).finally(() => progress.end())

  const summaries = summarize(measured)
  console.log(loadTable(summaries, { spreads: false }))
  console.log(explain(summaries).join('\n'))
  const rounds = Math.min(...summaries.map((summary) => summary.rounds))
  console.log(
    pc.dim(
      `\n${describeMachine(machine())}\nMedians of ${rounds === ROUNDS ? ROUNDS : `${rounds} to ${ROUNDS}`} trials ` +
        `of ${SECONDS} s; "~": the spread swallows the ratio. Absolute times drift within minutes;\n` +
        'ratios are taken between trials that lie seconds apart. More of it: npm run bench.',
    ),
  )
})
