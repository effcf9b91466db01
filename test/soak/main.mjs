// @ts-check
// `npm run soak`: an edgewire server under a crowd of good, slow and rude clients for some minutes, and whether it is
// as it was before when they have gone. docs/soak.md says how to read it.
import { randomInt } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import logUpdate from 'log-update'
import pc from 'picocolors'
import { Campaign, EXTRA_MS } from './campaign.mjs'
import { terminalPlots } from './plots.mjs'
import { svgOf } from './svg.mjs'
import { checkTable, endsLine, listenerTable, progressLine, sessionTable } from './tables.mjs'
import { checksOf } from './verdict.mjs'

/** @import { Outcome, Sample } from './campaign.mjs' */

const LINE_EVERY = 5 // samples, when nobody watches
const VIOLATIONS_SHOWN = 30
const SEED_MAX = 2 ** 31

const program = new Command('soak')
  .description('An edgewire server under good, slow and rude clients; memory, descriptors and every byte are checked.')
  .option('--minutes <n>', 'length of the load; resting and checking come on top, about half a minute', positive, 5)
  .option('--seed <n>', 'repeats the choices of an earlier run', seed)
  .option('--svg <file>', 'writes the plots as a picture, too')
  .allowExcessArguments(false)

/** @param {string} text */
function positive(text) {
  const value = Number(text)
  if (!(value > 0) || !Number.isFinite(value)) throw new InvalidArgumentError('A positive number is wanted.')
  return value
}

/** @param {string} text */
function seed(text) {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0 || value >= SEED_MAX) {
    throw new InvalidArgumentError(`An integer below ${SEED_MAX} is wanted.`)
  }
  return value
}

/** @type {string[]} */
const violations = []
/** @type {Sample[]} */
let samples = []

/** @param {string} text */
function onViolation(text) {
  violations.push(text)
  if (violations.length <= VIOLATIONS_SHOWN) say(`${pc.red('violation:')} ${text}`)
}

/** @param {string} text */
function say(text) {
  if (process.stdout.isTTY) logUpdate.clear()
  console.log(text)
}

/**
 * @param {Sample} sample
 * @param {any} client
 */
function onSample(sample, client) {
  if (process.stdout.isTTY) logUpdate(progressLine(sample, client))
  else if (samples.length % LINE_EVERY === 0) console.log(progressLine(sample, client))
}

/** @param {Outcome} outcome */
function report(outcome) {
  const checks = checksOf(outcome)
  for (const { what, value, wanted, holds } of checks) {
    if (!holds) violations.push(`${what}: ${value}, wanted ${wanted}`)
  }
  const { server, client } = outcome.end
  say(`\n${sessionTable(client.tallies)}\n${listenerTable(server)}\n${endsLine(server)}\n\n${checkTable(checks)}`)
}

/**
 * @param {{ minutes: number, seed?: number, svg?: string }} options
 */
async function soak({ minutes, seed = randomInt(SEED_MAX), svg }) {
  console.log(`npm run soak -- --minutes ${minutes} --seed ${seed}\n`)
  const folder = mkdtempSync(join(tmpdir(), 'edgewire-soak-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const campaign = new Campaign(folder, { onViolation, onSample })
  samples = campaign.samples
  const late = setTimeout(
    () => {
      onViolation('the run did not end in time')
      campaign.kill() // whoever waits for an answer learns of it
    },
    minutes * 60_000 + EXTRA_MS,
  )
  try {
    const outcome = await campaign.run(seed, minutes * 60_000)
    if (process.stdout.isTTY) logUpdate.done()
    report(outcome)
  } catch (error) {
    onViolation(`the run was broken off: ${error instanceof Error ? error.message : error}`)
  }
  clearTimeout(late)
  if (samples.length > 1) {
    console.log(`\n${terminalPlots(samples)}`)
    if (svg !== undefined) await writeFile(svg, svgOf(samples, `edgewire soak, ${minutes} min, seed ${seed}`))
  }
}

for (const [signal, number] of /** @type {const} */ ([
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
])) {
  process.on(signal, () => process.exit(128 + number)) // and so to 'exit', which ends the children
}

if (process.platform !== 'linux') throw new Error('The soak counts descriptors in /proc: it runs on Linux only.')
await soak(program.parse().opts())
if (violations.length === 0) console.log(pc.green('\nsoak: nothing was violated'))
else console.log(pc.red(`\nsoak: ${violations.length} violations, the first: ${violations[0]}`))
process.exit(violations.length === 0 ? 0 : 1)
