// @ts-check
// The loads. A scenario is a name for the command line, a title for the table, and arguments for edgewire-load.

/**
 * @typedef {object} Scenario
 * @property {string} name
 * @property {string} title
 * @property {string[]} load  arguments of edgewire-load
 * @property {boolean} demo   part of `npm run demo`, too
 */

/** @type {Scenario[]} */
export const scenarios = [
  { name: '64b-64', title: '64 B x 64 conns', load: echo(64, 64), demo: true },
  { name: '64b-64-d16', title: '64 B x 64 conns,\n16 in flight', load: echo(64, 64, 16), demo: true },
  { name: '1k-1000', title: '1 KiB x 1000 conns', load: echo(1024, 1000), demo: true },
  { name: '4k-64-d4', title: '4 KiB x 64 conns,\n4 in flight', load: echo(4096, 64, 4), demo: false },
  { name: '64k-64', title: '64 KiB x 64 conns', load: echo(64 * 1024, 64), demo: true },
  { name: '1m-8', title: '1 MiB x 8 conns', load: echo(1024 * 1024, 8), demo: false },
  { name: '64b-1', title: '64 B x 1 conn', load: echo(64, 1), demo: false },
  { name: 'churn', title: 'connect, echo,\nclose', load: loops('churn', 32), demo: true },
  { name: 'open-close', title: 'connect, close', load: loops('open-close', 32), demo: false },
]

// Not a load but a measurement of memory (harness/memory.mjs); on the command line it is a scenario like the others.
export const IDLE = 'idle'

/** A scenario's title on one line. @param {Scenario} scenario */
export function titleOf(scenario) {
  return scenario.title.replace('\n', ' ')
}

/**
 * @param {number} size bytes of a message
 * @param {number} connections
 * @param {number} [depth] messages in flight on each connection
 */
function echo(size, connections, depth = 1) {
  return ['--mode', 'echo', '--size', `${size}`, '--connections', `${connections}`, '--depth', `${depth}`]
}

/**
 * @param {string} mode
 * @param {number} count loops that connect at the same time
 */
function loops(mode, count) {
  return ['--mode', mode, '--connections', `${count}`]
}
