// @ts-check
// All trials of a run, in an order that is fair to everybody.
import { bytesPerIdleConnection } from './memory.mjs'
import { titleOf } from './scenarios.mjs'
import { runTrial } from './trial.mjs'

/** @import { Server } from './servers.mjs' */
/** @import { Scenario } from './scenarios.mjs' */
/** @import { LoadResult, Settings } from './trial.mjs' */

/**
 * @typedef {object} Measured
 * @property {Scenario} scenario
 * @property {{ server: Server, trials: LoadResult[] }[]} servers one trial a round, so that all have equally many
 */

/**
 * @typedef {object} Step progress: a trial that is about to begin, or has ended (then with its outcome)
 * @property {string} title
 * @property {Server} server
 * @property {number} round
 * @property {string} [outcome]
 */

/**
 * @typedef {object} Plan
 * @property {Server[]} servers
 * @property {Scenario[]} scenarios
 * @property {number} rounds
 * @property {Settings} settings
 * @property {number} [budgetMs] when it runs out, later rounds are left out (never the first)
 * @property {(step: Step) => void} onStep
 */

/**
 * Scenario by scenario, and within one round by round, each server once a round: what is divided by each other lies as
 * close together in time as it can. Every round begins with another server, so that none is always the first one.
 * @param {Plan} plan
 * @returns {Promise<Measured[]>}
 */
export async function measureLoads(plan) {
  const { scenarios, budgetMs = Number.POSITIVE_INFINITY } = plan
  const start = Date.now()
  const measured = []
  for (const [index, scenario] of scenarios.entries()) {
    const deadline = start + (budgetMs * (index + 1)) / scenarios.length
    measured.push(await measureLoad(plan, scenario, deadline))
  }
  return measured
}

/**
 * @param {Plan} plan
 * @param {Scenario} scenario
 * @param {number} deadline epoch milliseconds: no round is begun that would end after it
 * @returns {Promise<Measured>}
 */
async function measureLoad({ servers, rounds, settings, onStep }, scenario, deadline) {
  const results = servers.map((server) => ({ server, trials: /** @type {LoadResult[]} */ ([]) }))
  let roundMs = 0
  for (let round = 0; round < rounds; round++) {
    const begun = Date.now()
    if (round > 0 && begun + roundMs > deadline) break
    for (const { server, trials } of rotate(results, round)) {
      const step = { title: titleOf(scenario), server, round }
      onStep(step)
      const result = await named(step, runTrial(server, scenario, settings))
      trials.push(result)
      onStep({ ...step, outcome: loadOutcome(result) })
    }
    roundMs = Date.now() - begun
  }
  return { scenario, servers: results }
}

/**
 * @param {Pick<Plan, 'servers' | 'rounds' | 'settings' | 'onStep'>} plan
 * @returns {Promise<{ server: Server, bytes: number[] }[]>} resident bytes per idle connection, one value a round
 */
export async function measureMemory({ servers, rounds, settings, onStep }) {
  const results = servers.map((server) => ({ server, bytes: /** @type {number[]} */ ([]) }))
  for (let round = 0; round < rounds; round++) {
    for (const { server, bytes } of rotate(results, round)) {
      const step = { title: 'idle', server, round }
      onStep(step)
      const each = await named(step, bytesPerIdleConnection(server, settings.bin))
      bytes.push(each)
      onStep({ ...step, outcome: `${each.toFixed(0)} bytes each` })
    }
  }
  return results
}

/**
 * @template T
 * @param {T[]} list
 * @param {number} by
 */
function rotate(list, by) {
  const first = by % list.length
  return [...list.slice(first), ...list.slice(0, first)]
}

/** @param {LoadResult} result */
function loadOutcome({ messagesPerSecond, cpuUsPerMessage }) {
  return `${Math.round(messagesPerSecond).toLocaleString('en')}/s, ${cpuUsPerMessage.toFixed(2)} us CPU each`
}

/**
 * @template T
 * @param {Step} step
 * @param {Promise<T>} trial
 */
async function named({ title, server, round }, trial) {
  try {
    return await trial
  } catch (error) {
    const message = error instanceof Error ? error.message : `${error}`
    throw new Error(`${title} on ${server.label}, round ${round + 1}: ${message}`, { cause: error })
  }
}
