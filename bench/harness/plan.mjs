// @ts-check
// What a run is made of: which servers take part in which load, in which order, and how long it will take.
import { hasGoal } from './goals.mjs'
import { IDLE, scenarioNamed, scenarios, windowSeconds } from './scenarios.mjs'
import { ROUNDS_LEAST } from './stats.mjs'

/** @import { Server } from './servers.mjs' */
/** @import { Scenario } from './scenarios.mjs' */

/** @typedef {{ scenario: Scenario, servers: Server[] }} Entry a load, and who is put under it */

/**
 * @typedef {object} Choice
 * @property {string[]} [scenarios] only these; otherwise all, or the quick ones
 * @property {string[]} [servers]   only these, and these in every load; otherwise as the tables say
 * @property {boolean} [quick]
 */

/** @typedef {{ scenario: string, server: string, reason: string }} Absence */

const QUICK_SERVERS = ['floor', 'net', 'edgewire', 'bun', 'go']

// What a trial takes beside its window: two processes that start, connections, the end.
const TRIAL_EXTRA_S = 0.45
const MEMORY_TRIAL_S = 12
// Memory scatters little, and its trials are long (they wait until a garbage collector has had its time): no more of them
// than decide about a goal.
const MEMORY_ROUNDS_MAX = ROUNDS_LEAST
const SYSCALL_TRIAL_S = 2
export const PEAK_ROUNDS = 3

/** @param {number} rounds of the loads */
export function memoryRounds(rounds) {
  return Math.min(rounds, MEMORY_ROUNDS_MAX)
}

/** Whether the memory of idle connections is part of it. @param {Choice} choice */
export function withIdle({ scenarios: names, quick }) {
  return names === undefined ? quick !== true : names.includes(IDLE)
}

/**
 * The loads in groups. Those of one group are compared with each other and share their rounds.
 * @param {Choice} choice
 * @param {Server[]} available
 * @returns {{ groups: Entry[][], absent: Absence[] }}
 */
export function planLoads(choice, available) {
  /** @type {Absence[]} */
  const absent = []
  /** @type {Map<string, Entry[]>} */
  const groups = new Map()
  for (const scenario of chosenScenarios(choice)) {
    const servers = available.filter((server) => {
      const reason = scenario.without?.[server.name]
      const wanted = takesPart(choice, scenario, server)
      if (wanted && reason !== undefined) absent.push({ scenario: scenario.name, server: server.name, reason })
      return wanted && reason === undefined
    })
    if (servers.length === 0) continue
    const key = scenario.beside ?? scenario.name
    groups.set(key, [...(groups.get(key) ?? []), { scenario, servers }])
  }
  return { groups: [...groups.values()], absent }
}

/**
 * In the table's order; a load that another is compared with comes along.
 * @param {Choice} choice
 */
function chosenScenarios({ scenarios: names, quick }) {
  if (names === undefined) return scenarios.filter((scenario) => (quick ? scenario.quick : !scenario.rare))
  const wanted = new Set(names.flatMap((name) => [name, scenarioNamed(name)?.beside ?? name]))
  return scenarios.filter(({ name }) => wanted.has(name))
}

/**
 * The servers that the command line leaves.
 * @param {Choice} choice
 * @param {Server[]} all
 */
export function chosenServers({ servers: names, quick }, all) {
  if (names !== undefined) return all.filter(({ name }) => names.includes(name))
  return quick ? all.filter(({ name }) => QUICK_SERVERS.includes(name)) : all
}

/**
 * @param {Choice} choice
 * @param {Scenario} scenario
 * @param {Server} server
 */
function takesPart({ servers: names }, { also = [] }, { name, some }) {
  return names !== undefined || !some || also.includes(name)
}

/**
 * @typedef {object} Rounds
 * @property {number} rounds        each server once in each
 * @property {number} [goalRounds]  of the loads that have a goal; as many as the others if it is not given
 */

/**
 * Known before the first trial: a run that went on until the figures please would find what it looks for.
 * @param {Entry[]} group
 * @param {Rounds} wanted
 */
export function roundsOf(group, { rounds, goalRounds = rounds }) {
  return group.some(({ scenario }) => hasGoal(scenario.name)) ? goalRounds : rounds
}

/** @param {Entry[][]} groups @param {Rounds} wanted */
export function countTrials(groups, wanted) {
  const peaks = groups.flat().filter(({ scenario }) => scenario.atPeak !== undefined).length * PEAK_ROUNDS
  return groups.reduce((sum, group) => sum + serversIn(group) * roundsOf(group, wanted), peaks)
}

/** @param {Entry[]} group */
function serversIn(group) {
  return group.reduce((sum, { servers }) => sum + servers.length, 0)
}

/**
 * @typedef {object} Size
 * @property {Entry[][]} groups
 * @property {Server[]} idle      whose idle connections are measured
 * @property {Entry[]} syscalls   the pass that counts system calls
 * @property {number} seconds
 * @property {number} warmup
 */

/** @typedef {Size & Rounds} Extent */

/**
 * How long a run will take, in seconds; a machine that is slow at starting processes takes longer.
 * @param {Extent} extent
 */
export function estimate({ groups, idle, syscalls, seconds, warmup, ...wanted }) {
  const trial = seconds + warmup + TRIAL_EXTRA_S
  const opening = groups.flatMap((group) =>
    group.map(({ scenario, servers }) => {
      const longer = windowSeconds(scenario, seconds) - seconds + (scenario.extraSeconds ?? 0)
      return longer * servers.length * roundsOf(group, wanted)
    }),
  )
  return (
    countTrials(groups, wanted) * trial +
    opening.reduce((sum, each) => sum + each, 0) +
    idle.length * memoryRounds(wanted.rounds) * MEMORY_TRIAL_S +
    syscalls.reduce((sum, { servers }) => sum + servers.length * SYSCALL_TRIAL_S, 0)
  )
}

/** @param {number} seconds */
export function describeTime(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s`
  return `about ${Math.round(seconds / 60)} minutes`
}
