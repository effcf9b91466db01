// @ts-check
// What edgewire is meant to reach, and whether a run shows that it does.
import { ratioOf, valuesOf } from './metrics.mjs'
import { scenarioNamed, titleOf } from './scenarios.mjs'
import { EDGEWIRE, FLOOR, NET, PREPARE } from './servers.mjs'
import { medianInterval, ROUNDS_LEAST, spread } from './stats.mjs'

/** @import { Measured } from './campaign.mjs' */
/** @import { Metric } from './metrics.mjs' */
/** @import { ServerName } from './servers.mjs' */

/**
 * Out of reach: missed, and so it is by the floor, by its whole interval, and nobody in the run keeps the bound. The
 * floor makes the system calls that have to be made, and does next to nothing else: where those alone cost more than the
 * bound allows, a server that makes them cannot keep it.
 * @typedef {'met' | 'missed' | 'out of reach' | 'not decided' | 'not measured'} Verdict
 */

/**
 * A bound on a ratio: edgewire's metric under a load, divided by another server's under the same load, or by its own
 * under another one.
 * @typedef {object} Bound
 * @property {string} scenario
 * @property {Metric} [metric]   the CPU time per message if there is none
 * @property {string} [to]       the other server
 * @property {string} [toLoad]   the other load
 * @property {number} [most]     the ratio that is allowed
 * @property {boolean} [below]   it has to be below 1
 */

/** @typedef {{ load: string, bounds: Bound[] }} Goal */

const CPU = 'cpuUsPerMessage'

/** Bytes that an idle connection may take. */
export const IDLE_BYTES = 400

/** @type {Goal[]} */
export const goals = [
  goal('echo 64 B x 64, 1 in flight', '64b-64', [floor(1.15), below('bun'), below('go')]),
  goal('echo 64 B x 64, 16 in flight', '64b-64-d16', [floor(1.05), { to: 'bun', most: 1 }]),
  goal('echo 1 KiB x 1000', '1k-1000', [floor(1), below('bun'), below('go')]),
  goal('echo 4 KiB x 64, 4 in flight', '4k-64-d4', [floor(1.05), below('bun'), below('go')]),
  goal('echo 64 KiB x 64', '64k-64', [floor(1.1), { to: NET, most: 0.25 }]),
  goal('one connection, 64 B ping-pong', '64b-1', [floor(1.15), below('bun'), { ...floor(1.05), metric: 'p50Us' }]),
  goal('churn', 'churn', [floor(1.15), below('bun')]),
  goal('10,000 connections, 100 active', 'ping-idle', [{ toLoad: 'ping-100', most: 1.1 }]),
  goal('every message re-sets its read deadline', 'deadline', [{ toLoad: '64b-64', most: 1.03 }]),
  goal('fan-out of 256 B to 1,000 connections', 'fanout-1000', [{ to: NET, most: 0.4 }]),
  goal('line protocol', 'lines', [{ to: NET, most: 0.5 }]),
  goal('length-prefixed protocol', 'frames', [{ to: NET, most: 0.5 }]),
  goal('p99 at half of net.Server’s peak rate', 'rate', [
    { ...below(NET), metric: 'p99Us' },
    { ...below('bun'), metric: 'p99Us' },
  ]),
]

const loadsWithGoals = new Set(goals.flatMap(({ bounds }) => bounds.map(({ scenario }) => scenario)))

/** @param {string} scenario its name */
export function hasGoal(scenario) {
  return loadsWithGoals.has(scenario)
}

/**
 * @param {string} load
 * @param {string} scenario
 * @param {Omit<Bound, 'scenario'>[]} bounds
 * @returns {Goal}
 */
function goal(load, scenario, bounds) {
  return { load, bounds: bounds.map((bound) => ({ scenario, ...bound })) }
}

/** @param {number} most */
function floor(most) {
  return { to: FLOOR, most }
}

/** @param {string} to */
function below(to) {
  return { to, below: true }
}

/**
 * One bound, and what the run says on it.
 * @typedef {object} Finding
 * @property {string} text
 * @property {string} measured
 * @property {string} [floor]  the floor's own ratio, where it says what can be reached
 * @property {Verdict} verdict
 */

/** @typedef {{ server: string, verdict: Verdict, findings: Finding[] }} Judged one driver of edgewire */
/** @typedef {{ load: string, verdict: Verdict, drivers: Judged[] }} Outcome */

/**
 * @typedef {object} Results
 * @property {Measured[]} loads
 * @property {{ server: ServerName, bytes: number[] }[]} memory
 */

/**
 * Every goal under each driver that was measured. A goal holds under the better one.
 * @param {Results} results
 * @returns {Outcome[]}
 */
export function judge({ loads, memory }) {
  const drivers = [EDGEWIRE, PREPARE].filter(
    (name) => name === EDGEWIRE || loads.some(({ servers }) => servers.some(({ server }) => server.name === name)),
  )
  const outcomes = goals.map(({ load, bounds }) =>
    outcome(
      load,
      drivers.map((server) => ({ server, findings: bounds.map((bound) => judgeBound(loads, server, bound)) })),
    ),
  )
  const idle = drivers.map((server) => ({ server, findings: [judgeIdle(memory, server)] }))
  return [...outcomes, outcome('idle connection', idle)]
}

/**
 * @param {string} load
 * @param {{ server: string, findings: Finding[] }[]} found
 * @returns {Outcome}
 */
function outcome(load, found) {
  const drivers = found.map(({ server, findings }) => ({ server, findings, verdict: worst(findings) }))
  const better = ORDER.find((verdict) => drivers.some((driver) => driver.verdict === verdict)) ?? 'not measured'
  return { load, verdict: better, drivers }
}

// From the best to the worst for a driver that is chosen; one that was not measured is none. Under a driver for which the
// spread leaves a goal open, it is not out of reach.
/** @type {Verdict[]} */
const ORDER = ['met', 'not decided', 'out of reach', 'missed', 'not measured']

/**
 * A goal is met when all of its bounds are. One that is missed although it can be reached weighs more than one that is
 * out of reach; and with that one the goal is not met, whatever is found out about the others.
 * @param {Finding[]} findings
 * @returns {Verdict}
 */
function worst(findings) {
  /** @type {Verdict[]} */
  const order = ['missed', 'out of reach', 'not measured', 'not decided', 'met']
  return order.find((verdict) => findings.some((finding) => finding.verdict === verdict)) ?? 'not measured'
}

/**
 * @param {Measured[]} loads
 * @param {string} server
 * @param {Bound} bound
 * @returns {Finding}
 */
function judgeBound(loads, server, bound) {
  const { metric = CPU, to, toLoad, most = 1, below } = bound
  const other = to ?? titleOf(scenarioNamed(toLoad ?? '') ?? { title: toLoad ?? '' })
  const what = metric === CPU ? '' : `${metric.replace(/Us$/, '')} `
  const text = below ? `${what}below ${other}` : `${what}at most ${most} x ${other}`
  const mine = compare(loads, server, bound)
  if (mine === undefined) return { text, measured: '', verdict: 'not measured' }
  const floors = asksForLess(bound) ? compare(loads, FLOOR, bound) : undefined
  if (floors === undefined) return { text, ...mine }
  const outOfReach = mine.verdict === 'missed' && floors.verdict === 'missed' && !isKept(loads, bound)
  return { text, ...mine, floor: floors.measured, ...(outOfReach && { verdict: 'out of reach' }) }
}

/**
 * Whether a bound asks for less CPU time than the other server takes. One that asks to be ahead of it cannot be out of
 * reach: the other shows that its own time is possible. Nor is the floor one for latencies.
 * @param {Bound} bound
 */
function asksForLess({ metric = CPU, to, most = 1 }) {
  return metric === CPU && to !== undefined && to !== FLOOR && most < 1
}

/** Whether any server of the run keeps it. @param {Measured[]} loads @param {Bound} bound */
function isKept(loads, bound) {
  const servers = loads.find((load) => load.scenario.name === bound.scenario)?.servers ?? []
  return servers.some(({ server }) => compare(loads, server.name, bound)?.verdict === 'met')
}

/**
 * @param {Measured[]} loads
 * @param {string} server
 * @param {Bound} bound
 * @returns {Pick<Finding, 'measured' | 'verdict'> | undefined} undefined: not measured
 */
function compare(loads, server, { scenario, metric = CPU, to, toLoad, most = 1, below }) {
  const find = (/** @type {string} */ name) => loads.find((load) => load.scenario.name === name)
  const mine = valuesOf(find(scenario), server, metric)
  const found = ratioOf(mine, valuesOf(find(toLoad ?? scenario), to ?? server, metric))
  if (found === undefined) return undefined
  const { value, low, high } = found
  return { measured: interval(value, low, high), verdict: within(low, high, most, below, mine?.length ?? 0) }
}

/**
 * @param {Results['memory']} memory
 * @param {string} name
 * @returns {Finding}
 */
function judgeIdle(memory, name) {
  const text = `at most ${IDLE_BYTES} bytes resident`
  const bytes = memory.find(({ server }) => server.name === name)?.bytes
  if (bytes === undefined) return { text, measured: '', verdict: 'not measured' }
  const { low, high } = medianInterval(bytes)
  const whole = [spread(bytes).median, low, high].map((value) => `${Math.round(value)}`)
  return {
    text,
    measured: `${whole[0]} (${whole[1]}..${whole[2]})`,
    verdict: within(low, high, IDLE_BYTES, false, bytes.length),
  }
}

/**
 * The whole interval has to lie on one side of the bound; of fewer rounds it has not the confidence that decides.
 * @param {number} low
 * @param {number} high
 * @param {number} most
 * @param {boolean | undefined} below
 * @param {number} rounds
 * @returns {Verdict}
 */
function within(low, high, most, below, rounds) {
  if (rounds < ROUNDS_LEAST) return 'not decided'
  if (below ? high < most : high <= most) return 'met'
  return (below ? low >= most : low > most) ? 'missed' : 'not decided'
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
function interval(value, low, high) {
  return `${value.toFixed(2)} (${low.toFixed(2)}..${high.toFixed(2)})`
}
