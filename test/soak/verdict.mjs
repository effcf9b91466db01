// @ts-check
// What must hold when everything is over.
import { SERVER_BUDGET_BYTES } from './protocol.mjs'

/** @import { Outcome, PoolEnd } from './campaign.mjs' */
/** @import { Beginning, Rest } from './worker.mjs' */

/**
 * How much more a process at rest may have at the end than at the rest after the warm-up, bytes: what V8 and malloc have
 * kept for themselves, however long the run was. A leak grows with the run and passes any constant.
 */
const GROWTH_MAX = { rss: 16 << 20, heapUsed: 3 << 20 }
/** The same at both rests beyond the very start, outside of V8's heap. Slabs are there: the pool keeps one. */
const EXTERNAL_GROWTH_MAX = 2 << 20

/** A run with less has not tested much. */
const POLITE_MIN = 20

/**
 * @typedef {object} Check
 * @property {string} what
 * @property {string} value
 * @property {string} wanted
 * @property {boolean} holds
 */

/** @param {number} bytes */
export const mib = (bytes) => `${(bytes / (1 << 20)).toFixed(1)} MiB`

/**
 * @param {Outcome} outcome
 * @returns {Check[]}
 */
export function checksOf({ start, warm, end }) {
  const { server, client } = end
  const { listeners, book } = server
  const sum = (/** @type {'open' | 'accepted' | 'closed' | 'handlerErrors'} */ key) =>
    listeners.reduce((all, listener) => all + listener[key], 0)
  const polite = client.tallies.filter((tally) => tally.polite)
  const failed = client.tallies.reduce((all, tally) => all + tally.failed, 0)
  const ends = Object.values(book.ends).reduce((all, count) => all + count, 0)
  const done = polite.reduce((all, tally) => all + tally.done, 0)
  return [
    {
      what: 'well-behaved sessions, complete byte for byte',
      value: `${done}`,
      wanted: `${POLITE_MIN} or more`,
      holds: done >= POLITE_MIN,
    },
    equal('failed sessions', failed, 0),
    equal('open connections, listeners', sum('open'), 0),
    equal('connections that ended, listeners', sum('closed'), sum('accepted')),
    equal('ends that handlers and tasks were told', ends, sum('accepted')),
    equal('exceptions in onError', book.caught, book.thrown),
    equal('handlerErrors, listeners', sum('handlerErrors'), book.thrown),
    {
      what: 'server: pool, at most in use',
      value: mib(server.stats.slabPeakBytes),
      wanted: `up to ${mib(SERVER_BUDGET_BYTES)}`,
      holds: server.stats.slabPeakBytes <= SERVER_BUDGET_BYTES,
    },
    ...ofPools(client.pools),
    ...ofProcess('server', start.server, warm.server, server),
    ...ofProcess('client', start.client, warm.client, client),
  ]
}

/**
 * The pools of the warm-up and of the load together.
 * @param {PoolEnd[]} pools
 * @returns {Check[]}
 */
function ofPools(pools) {
  const sum = (/** @type {(pool: PoolEnd) => number} */ of) => pools.reduce((all, pool) => all + of(pool), 0)
  const outcomes = sum(({ stats }) => stats.acquired + stats.timeouts + stats.aborts + stats.refusals)
  return [
    equal(
      'pooled: connections left after drain()',
      sum(({ stats }) => stats.total),
      0,
    ),
    equal(
      'pooled: leases that arrived, by those lent',
      sum(({ leases }) => leases),
      sum(({ stats }) => stats.acquired),
    ),
    equal(
      'pooled: leases given back',
      sum(({ stats }) => stats.released),
      sum(({ leases }) => leases),
    ),
    equal(
      'pooled: calls of acquire(), by their outcomes',
      outcomes + sum(({ stats }) => stats.upstreamFailures),
      sum(({ calls }) => calls),
    ),
  ]
}

/**
 * @param {string} name
 * @param {Beginning} start
 * @param {Rest} warm
 * @param {Rest} end
 * @returns {Check[]}
 */
function ofProcess(name, start, warm, end) {
  const external = Math.max(warm.memory.external, end.memory.external)
  return [
    equal(`${name}: open connections, stats()`, end.stats.open, 0),
    equal(`${name}: pool in use, bytes`, end.stats.slabInUseBytes, 0),
    equal(`${name}: descriptors`, end.fds, start.fds),
    growth(`${name}: resident`, warm.memory.rss, end.memory.rss, GROWTH_MAX.rss),
    growth(`${name}: JavaScript heap`, warm.memory.heapUsed, end.memory.heapUsed, GROWTH_MAX.heapUsed),
    growth(`${name}: outside of the heap`, start.external, external, EXTERNAL_GROWTH_MAX),
  ]
}

/**
 * @param {string} what
 * @param {number} from
 * @param {number} to
 * @param {number} most
 * @returns {Check}
 */
function growth(what, from, to, most) {
  return {
    what: `${what}, growth`,
    value: `${mib(to - from)}, to ${mib(to)}`,
    wanted: `up to ${mib(most)}`,
    holds: to - from <= most,
  }
}

/**
 * @param {string} what
 * @param {number} value
 * @param {number} wanted
 * @returns {Check}
 */
function equal(what, value, wanted) {
  return { what, value: `${value}`, wanted: `${wanted}`, holds: value === wanted }
}
