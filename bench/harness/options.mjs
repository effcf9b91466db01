// @ts-check
// The command line of `npm run bench`.
import { Command, InvalidArgumentError, Option } from 'commander'
import { IDLE, scenarios } from './scenarios.mjs'
import { servers } from './servers.mjs'

const scenarioNames = [...scenarios.map(({ name }) => name), IDLE]
const serverNames = servers.map(({ name }) => name)

const TRIALS = 5
const QUICK_TRIALS = 3
const SECONDS = 1
const QUICK_SECONDS = 0.5
const WARMUP = 0.4
const QUICK_WARMUP = 0.25

/**
 * @typedef {object} Options
 * @property {number} trials
 * @property {number} [goalTrials]
 * @property {number} seconds
 * @property {number} warmup
 * @property {string[]} [scenarios]
 * @property {string[]} [servers]
 * @property {boolean} quick
 * @property {boolean} syscalls
 * @property {string} [compare]
 * @property {string} [bin]
 * @property {string} [json]
 * @property {string} [report]
 * @property {boolean} installPeers
 */

/**
 * @param {string[]} args
 * @param {{ throws?: boolean }} [how] throws: an error is thrown, for tests; otherwise it ends the process
 * @returns {Options}
 */
export function parseOptions(args, { throws = false } = {}) {
  const program = describe()
  if (throws) program.exitOverride().configureOutput({ writeErr: () => {} })
  program.parse(args, { from: 'user' })
  const given = program.opts()
  const quick = given.quick === true
  checkTogether(program, given)
  const peers = [...(given.peer ?? []), ...(given.server ?? [])]
  const names = given.scenario ?? (given.idle ? [IDLE] : undefined)
  return {
    trials: given.trials ?? (quick ? QUICK_TRIALS : TRIALS),
    ...(given.goalTrials !== undefined && { goalTrials: given.goalTrials }),
    seconds: given.seconds ?? (quick ? QUICK_SECONDS : SECONDS),
    warmup: given.warmup ?? (quick ? QUICK_WARMUP : WARMUP),
    ...(names !== undefined && { scenarios: given.idle ? [...new Set([...names, IDLE])] : names }),
    ...(peers.length > 0 && { servers: [...new Set(peers)] }),
    quick,
    syscalls: given.syscalls ?? (!quick && given.compare === undefined),
    ...(given.compare !== undefined && { compare: given.compare }),
    ...(given.bin !== undefined && { bin: given.bin }),
    ...(given.json !== undefined && { json: given.json }),
    ...(given.report !== undefined && { report: given.report }),
    installPeers: given.installPeers === true,
  }
}

function describe() {
  return new Command('bench')
    .description('Compares servers: CPU time per message, messages a second, latency, memory, system calls.')
    .addOption(new Option('--scenario <name...>', 'only these loads').choices(scenarioNames))
    .addOption(new Option('--peer <name...>', 'only these servers, and these under every load').choices(serverNames))
    .addOption(new Option('--server <name...>', 'the same').choices(serverNames).hideHelp())
    .option('--quick', 'fewer loads, servers and trials: under three minutes')
    .option('--compare <revision>', 'this tree beside that git revision, which is built in a worktree of its own')
    .option('--trials <n>', `trials of each server under each load (${TRIALS})`, positive(Number.isInteger))
    .option('--goal-trials <n>', 'as many under the loads that have a goal (like --trials)', positive(Number.isInteger))
    .option('--seconds <s>', `length of a trial (${SECONDS})`, positive(isWindow))
    .option('--warmup <s>', `time before it, not measured (${WARMUP})`, positive(isWindow))
    .option('--idle', `the memory of idle connections; alone: nothing else (like --scenario ${IDLE})`)
    .option('--syscalls', 'count system calls, too: a pass of its own (the default of a full run)')
    .option('--no-syscalls', 'do not')
    .option('--json <file>', 'where the results go (bench/results/<date>.json)')
    .option(
      '--report <file>',
      'make docs/benchmarks.md, its charts and the figures in README.md from such a file; measures nothing',
    )
    .option('--install-peers', 'fetch the peers that can be had, and build the Go server; measures nothing')
    .option('--bin <folder>', 'where edgewire-floor and edgewire-load are')
    .allowExcessArguments(false)
}

/**
 * @param {Command} program
 * @param {Record<string, unknown>} given
 */
function checkTogether(program, given) {
  const alone = ['report', 'installPeers'].filter((name) => given[name] !== undefined)
  const others = Object.keys(given).filter((name) => !alone.includes(name) && given[name] !== undefined)
  const flag = (/** @type {string} */ name) => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
  if (alone.length > 1 || (alone.length > 0 && others.length > 0)) {
    program.error(`error: ${flag(alone[0])} goes with no other option`)
  }
  if (given.compare !== undefined && (given.peer !== undefined || given.server !== undefined)) {
    program.error('error: --compare is edgewire against edgewire: it takes no --peer')
  }
}

/** What edgewire-load takes: known before every trial of a run fails. @param {number} seconds */
function isWindow(seconds) {
  return seconds >= 0.01 && seconds <= 3600
}

/**
 * @param {(value: number) => boolean} also
 * @returns {(text: string) => number}
 */
function positive(also) {
  return (text) => {
    const value = Number(text)
    if (!(value > 0) || !also(value)) {
      throw new InvalidArgumentError(
        also === isWindow ? 'Seconds from 0.01 to 3600 are wanted.' : 'A positive whole number is wanted.',
      )
    }
    return value
  }
}
