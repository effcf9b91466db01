// @ts-check
// All trials of a run, in an order that is fair to everybody.
import { bytesPerIdleConnection } from './memory.mjs'
import { memoryRounds, PEAK_ROUNDS, roundsOf } from './plan.mjs'
import { titleOf } from './scenarios.mjs'
import { spread } from './stats.mjs'
import { callsPerMessage } from './syscalls.mjs'
import { runTrial } from './trial.mjs'

/** @import { Entry } from './plan.mjs' */
/** @import { Server, ServerName } from './servers.mjs' */
/** @import { Scenario } from './scenarios.mjs' */
/** @import { Calls } from './syscalls.mjs' */
/** @import { LoadResult, Settings } from './trial.mjs' */

/**
 * @typedef {object} Measured
 * @property {Scenario} scenario
 * @property {number} [rate]  messages a second, where the loop was an open one
 * @property {{ server: ServerName, trials: LoadResult[] }[]} servers one trial a round, so that all have equally many
 */

/**
 * @typedef {object} Step progress: a trial that is about to begin, or has ended (then with its outcome)
 * @property {string} title
 * @property {ServerName} server
 * @property {number} round
 * @property {string} [outcome]
 */

/** @typedef {{ scenario: string, server: string, round: number, reason: string }} Failure */

/**
 * @typedef {object} Campaign
 * @property {Entry[][]} groups  of loads that share their rounds (plan.mjs)
 * @property {number} rounds
 * @property {number} [goalRounds]  of the loads that have a goal (plan.mjs)
 * @property {Settings} settings
 * @property {number} [budgetMs] when it runs out, later rounds are left out (never the first)
 * @property {Server[]} [rated]  where the servers are found whose peak sets the rate of an open loop
 * @property {typeof runTrial} [trial] what measures once
 * @property {(step: Step) => void} onStep
 * @property {(failure: Failure) => void} [onFailure] a server that fails is left out of that load, and this is told;
 *   without it, the run fails
 */

/**
 * Group by group, and within one round by round, each server once a round: what is divided by each other lies as close
 * together in time as it can. Every round begins with another server, so that none is always the first one, and every
 * other one runs backwards, so that none always follows the same one.
 * @param {Campaign} campaign
 * @returns {Promise<Measured[]>}
 */
export async function measureLoads(campaign) {
  const { groups, budgetMs = Number.POSITIVE_INFINITY } = campaign
  const start = Date.now()
  const measured = []
  for (const [index, group] of groups.entries()) {
    const deadline = start + (budgetMs * (index + 1)) / groups.length
    measured.push(...(await measureGroup(campaign, group, deadline)))
  }
  return measured
}

/** A load while it is measured: a server that has failed is no longer in `trials`. */
class Tally {
  /** @type {Map<string, LoadResult[]>} */
  trials

  /**
   * @param {Entry} entry
   * @param {number} [rate]
   */
  constructor({ scenario, servers }, rate) {
    this.scenario = scenario
    this.servers = servers
    this.rate = rate
    this.trials = new Map(servers.map(({ name }) => [name, []]))
    this.load = rate === undefined ? scenario : { ...scenario, load: [...scenario.load, '--rate', `${rate}`] }
  }

  /** @returns {Measured} */
  measured() {
    const left = this.servers.filter(({ name }) => this.trials.has(name))
    const { scenario, rate, trials } = this
    return {
      scenario,
      ...(rate !== undefined && { rate }),
      servers: left.map(({ name, label }) => ({ server: { name, label }, trials: trials.get(name) ?? [] })),
    }
  }
}

/**
 * @param {Campaign} campaign
 * @param {Entry[]} group
 * @param {number} deadline epoch milliseconds: no round is begun that would end after it
 * @returns {Promise<Measured[]>}
 */
async function measureGroup(campaign, group, deadline) {
  const tallies = []
  for (const entry of group) {
    const rate = await rateOf(campaign, entry)
    if (rate !== 'unknown') tallies.push(new Tally(entry, rate))
  }
  const servers = [...new Set(tallies.flatMap((tally) => tally.servers))]
  const rounds = roundsOf(group, campaign)
  let roundMs = 0
  for (let round = 0; round < rounds; round++) {
    const begun = Date.now()
    if (round > 0 && begun + roundMs > deadline) break
    for (const server of inTurn(servers, round)) {
      for (const tally of inTurn(tallies, round)) await measureOnce(campaign, tally, server, round)
    }
    roundMs = Date.now() - begun
  }
  return tallies.map((tally) => tally.measured()).filter(({ servers: left }) => left.length > 0)
}

/**
 * @param {Campaign} campaign
 * @param {Tally} tally
 * @param {Server} server
 * @param {number} round
 */
async function measureOnce({ settings, onStep, onFailure, trial = runTrial }, tally, server, round) {
  const trials = tally.trials.get(server.name)
  if (trials === undefined) return
  const step = { title: titleOf(tally.scenario), server, round }
  onStep(step)
  try {
    const result = await trial(server, tally.load, settings)
    trials.push(result)
    onStep({ ...step, outcome: loadOutcome(result) })
  } catch (error) {
    if (onFailure === undefined) throw named(step, error)
    tally.trials.delete(server.name)
    onFailure({ scenario: tally.scenario.name, server: server.name, round, reason: messageOf(error) })
    onStep({ ...step, outcome: `failed: ${messageOf(error)}` })
  }
}

/**
 * The rate of an open loop, from what the named server does at most in a closed one, on this machine and today.
 * @param {Campaign} campaign
 * @param {Entry} entry
 * @returns {Promise<number | undefined | 'unknown'>} undefined: its loop is closed; unknown: that server has failed
 */
async function rateOf({ rated = [], settings, onStep, onFailure, trial = runTrial }, { scenario, servers }) {
  const { atPeak } = scenario
  if (atPeak === undefined) return undefined
  const server = [...rated, ...servers].find(({ name }) => name === atPeak.of)
  if (server === undefined) throw new Error(`${scenario.name} needs ${atPeak.of}, whose peak sets its rate`)
  const peaks = []
  for (let round = 0; round < PEAK_ROUNDS; round++) {
    const step = { title: `${titleOf(scenario)}: peak`, server, round }
    onStep(step)
    try {
      const result = await trial(server, scenario, settings)
      peaks.push(result.messagesPerSecond)
      onStep({ ...step, outcome: loadOutcome(result) })
    } catch (error) {
      // All that was measured before would be lost with the run.
      if (onFailure === undefined) throw named(step, error)
      onFailure({ scenario: `${scenario.name} (its rate)`, server: server.name, round, reason: messageOf(error) })
      onStep({ ...step, outcome: `failed: ${messageOf(error)}` })
      return 'unknown'
    }
  }
  return Math.round(spread(peaks).median * atPeak.share)
}

/**
 * @param {Pick<Campaign, 'rounds' | 'settings' | 'onStep' | 'onFailure'>} campaign
 * @param {Server[]} servers
 * @returns {Promise<{ server: ServerName, bytes: number[] }[]>} resident bytes per idle connection, one value a round
 */
export async function measureMemory({ rounds, settings, onStep, onFailure }, servers) {
  /** @type {Map<Server, number[]>} */
  const results = new Map(servers.map((server) => [server, []]))
  for (let round = 0; round < memoryRounds(rounds); round++) {
    for (const server of inTurn(servers, round)) {
      const bytes = results.get(server)
      if (bytes === undefined) continue
      const step = { title: 'idle', server, round }
      onStep(step)
      try {
        const each = await bytesPerIdleConnection(server, settings.bin)
        bytes.push(each)
        onStep({ ...step, outcome: `${each.toFixed(0)} bytes each` })
      } catch (error) {
        if (onFailure === undefined) throw named(step, error)
        results.delete(server)
        onFailure({ scenario: 'idle', server: server.name, round, reason: messageOf(error) })
        onStep({ ...step, outcome: `failed: ${messageOf(error)}` })
      }
    }
  }
  return [...results].map(([{ name, label }, bytes]) => ({ server: { name, label }, bytes }))
}

/** @typedef {{ scenario: string, server: ServerName, calls: Calls }} Counted */

/**
 * A pass of its own: strace slows a server down so much that nothing else can be measured meanwhile.
 * @param {Pick<Campaign, 'settings' | 'onStep' | 'onFailure'>} campaign
 * @param {Entry[]} entries
 * @returns {Promise<Counted[]>}
 */
export async function countSystemCalls({ settings, onStep, onFailure }, entries) {
  const counted = []
  for (const { scenario, servers } of entries) {
    for (const server of servers) {
      const step = { title: `${titleOf(scenario)}: system calls`, server, round: 0 }
      onStep(step)
      try {
        const calls = await callsPerMessage(server, scenario, settings.bin)
        counted.push({ scenario: scenario.name, server: { name: server.name, label: server.label }, calls })
        onStep({ ...step, outcome: `${calls.all.toFixed(2)} system calls each` })
      } catch (error) {
        if (onFailure === undefined) throw named(step, error)
        onFailure({
          scenario: `${scenario.name} (system calls)`,
          server: server.name,
          round: 0,
          reason: messageOf(error),
        })
        onStep({ ...step, outcome: `failed: ${messageOf(error)}` })
      }
    }
  }
  return counted
}

/**
 * The order of a round. It begins with another one each time, and every other round runs backwards: with a rotation alone
 * each would always follow the same one, and inherit whatever that leaves behind (sockets in TIME_WAIT, a warm core).
 * @template T
 * @param {T[]} list
 * @param {number} round
 */
function inTurn(list, round) {
  const step = round % 2 === 0 ? 1 : list.length - 1
  return list.map((_, i) => list[(round + i * step) % list.length])
}

/** @param {LoadResult} result */
function loadOutcome({ messagesPerSecond, cpuUsPerMessage }) {
  return `${Math.round(messagesPerSecond).toLocaleString('en')}/s, ${cpuUsPerMessage.toFixed(2)} us CPU each`
}

/** @param {Step} step @param {unknown} error */
function named({ title, server, round }, error) {
  return new Error(`${title} on ${server.label}, round ${round + 1}: ${messageOf(error)}`, { cause: error })
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : `${error}`
}
