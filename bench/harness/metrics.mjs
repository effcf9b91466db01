// @ts-check
// The figures of a trial, and which way of each is better.
import { ratio } from './stats.mjs'

/** @import { Measured } from './campaign.mjs' */
/** @import { Ratio } from './stats.mjs' */
/** @import { LoadResult } from './trial.mjs' */

/** @typedef {'cpuUsPerMessage' | 'messagesPerSecond' | 'p50Us' | 'p99Us' | 'p999Us' | 'switchesPerMessage'} Metric */

/** @type {Record<Metric, { title: string, moreIsBetter?: boolean, of: (trial: LoadResult) => number | undefined }>} */
export const metrics = {
  cpuUsPerMessage: { title: 'CPU per message', of: (trial) => trial.cpuUsPerMessage },
  messagesPerSecond: { title: 'messages a second', moreIsBetter: true, of: (trial) => trial.messagesPerSecond },
  p50Us: { title: 'p50', of: (trial) => trial.p50Us },
  p99Us: { title: 'p99', of: (trial) => trial.p99Us },
  p999Us: { title: 'p99.9', of: (trial) => trial.p999Us },
  switchesPerMessage: {
    title: 'context switches per message',
    of: ({ contextSwitches, messages }) => (contextSwitches === undefined ? undefined : contextSwitches / messages),
  },
}

/**
 * A metric of one server under one load, one value a round.
 * @param {Measured | undefined} load
 * @param {string} server
 * @param {Metric} metric
 * @returns {number[] | undefined} undefined: not measured
 */
export function valuesOf(load, server, metric) {
  const trials = load?.servers.find((each) => each.server.name === server)?.trials ?? []
  const values = trials.map(metrics[metric].of).filter((value) => value !== undefined)
  return values.length > 0 && values.length === trials.length ? values : undefined
}

/**
 * @param {number[] | undefined} mine
 * @param {number[] | undefined} theirs
 * @returns {Ratio | undefined} undefined: one of the two was not measured, or was zero
 */
export function ratioOf(mine, theirs) {
  if (mine === undefined || theirs === undefined || mine.length !== theirs.length) return undefined
  return theirs.some((value) => value === 0) ? undefined : ratio(mine, theirs)
}
