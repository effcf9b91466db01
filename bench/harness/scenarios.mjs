// @ts-check
// The loads. Everything that the rest has to know about one is in its row here; a new load is a new row.

/**
 * @typedef {object} Scenario
 * @property {string} name    for the command line and the results
 * @property {string} title   for the tables; at most two lines
 * @property {Group} group    the chart and the part of the report it belongs to
 * @property {string} app     what the servers have to be started as (--app)
 * @property {string[]} load  arguments of edgewire-load
 * @property {string} unit    what the CPU time is divided by
 * @property {boolean} [demo]     part of `npm run demo`, too
 * @property {boolean} [quick]    part of `npm run bench -- --quick`
 * @property {boolean} [rare]     only when it is named: a full run takes half an hour without it
 * @property {string} [beside]    measured in the same rounds as that load, and compared with it
 * @property {string[]} [also]    servers that take part here although they do not everywhere (servers.mjs)
 * @property {Record<string, string>} [without]  servers that cannot take part, and why
 * @property {boolean} [syscalls] in the pass that counts system calls
 * @property {number} [minSeconds]  the window is at least as long: a second holds too few of what is counted here
 * @property {number} [extraSeconds] a trial takes that much longer than others: its connections have to be opened
 * @property {{ of: string, share: number }} [atPeak]  an open loop, at this share of that server's closed-loop peak
 */

/** @typedef {'echo' | 'latency' | 'connections' | 'patterns' | 'protocols'} Group */

const STYLES = ['edgewire-task', 'edgewire-waiter']
const NO_TASKS = { 'edgewire-task': 'the task style is compared where a task waits for what a peer sends' }
const BUN_BACKLOG =
  'its backlog is always 512; a burst of 5000 overflows it, the kernel falls back to SYN cookies, and resets some connections'
const ACTIVE = ['--size', '64', '--connections', '100', '--depth', '1']

/** @type {Scenario[]} */
export const scenarios = [
  row('64b-1', '64 B x 1 conn', 'echo', echo(64, 1), { syscalls: true, also: ['deno'] }),
  row('64b-64', '64 B x 64 conns', 'echo', echo(64, 64), {
    demo: true,
    quick: true,
    syscalls: true,
    also: ['deno', ...STYLES],
  }),
  row('deadline', '64 B x 64 conns,\ndeadline re-set', 'patterns', echo(64, 64), { app: 'deadline', beside: '64b-64' }),
  row('64b-64-d16', '64 B x 64 conns,\n16 in flight', 'echo', echo(64, 64, 16), {
    demo: true,
    quick: true,
    syscalls: true,
    also: ['deno', ...STYLES],
  }),
  row('1k-1000', '1 KiB x 1000 conns', 'echo', echo(1024, 1000), { demo: true, quick: true, also: ['deno'] }),
  row('4k-64-d4', '4 KiB x 64 conns,\n4 in flight', 'echo', echo(4096, 64, 4), { syscalls: true }),
  row('16k-64', '16 KiB x 64 conns', 'echo', echo(16 * 1024, 64)),
  row('64k-64', '64 KiB x 64 conns', 'echo', echo(64 * 1024, 64), {
    demo: true,
    quick: true,
    syscalls: true,
    also: ['deno', ...STYLES],
  }),
  row('256k-16', '256 KiB x 16 conns', 'echo', echo(256 * 1024, 16)),
  row('1m-8', '1 MiB x 8 conns', 'echo', echo(1024 * 1024, 8), { rare: true }),
  row('64b-10000', '64 B x 10,000 conns', 'echo', echo(64, 10_000), { extraSeconds: 1 }),

  row('rate', '64 B x 64 conns,\nhalf of net.Server’s peak', 'latency', echo(64, 64), {
    quick: true,
    also: ['deno', ...STYLES],
    atPeak: { of: 'net', share: 0.5 },
    minSeconds: 2, // in a shorter one a single pause of the machine is the hundredth that p99 leaves out
  }),

  row('churn', 'connect, echo,\nclose', 'connections', loops('churn', 32), {
    demo: true,
    quick: true,
    syscalls: true,
    unit: 'connection',
    also: ['deno'],
  }),
  row('open-close', 'connect, close', 'connections', loops('open-close', 32), { unit: 'connection', rare: true }),
  row('burst-5000', '5000 connects\nat once', 'connections', loops('burst', 5000), {
    unit: 'connection',
    without: { bun: BUN_BACKLOG },
    minSeconds: 3,
    extraSeconds: 1, // the window ends with a burst
  }),
  row('ping-100', '100 active conns', 'connections', ['--mode', 'echo', ...ACTIVE]),
  row(
    'ping-idle',
    '100 active among\n10,000 idle conns',
    'connections',
    ['--mode', 'echo', ...ACTIVE, '--idle', '9900'],
    {
      beside: 'ping-100',
      extraSeconds: 1,
    },
  ),
  row(
    'stalled-1000',
    '100 active among\n1000 that do not read',
    'connections',
    ['--mode', 'echo', ...ACTIVE, '--stalled', '1000'],
    { beside: 'ping-100', extraSeconds: 2 },
  ),

  row('sink', '64 MiB to the server', 'patterns', transfer('sink'), {
    app: 'sink',
    unit: '64 KiB',
    without: NO_TASKS,
  }),
  row('source', '64 MiB from the server', 'patterns', transfer('source'), {
    app: 'source',
    unit: '64 KiB',
    without: NO_TASKS,
  }),
  row('fanout-1000', '256 B to\n1000 conns', 'patterns', fanout(256, 1000), {
    app: 'fanout',
    quick: true,
    unit: 'publish',
    without: NO_TASKS,
    extraSeconds: 0.3,
  }),

  row('lines', 'lines of 64 B\nx 64 conns', 'protocols', protocol('lines', 64), { app: 'lines', quick: true }),
  row('lines-d16', 'lines of 64 B x 64\nconns, 16 in flight', 'protocols', protocol('lines', 64, 16), {
    app: 'lines',
    rare: true,
  }),
  row('frames', 'frames of 256 B\nx 64 conns', 'protocols', protocol('frames', 256), { app: 'frames' }),
  row('frames-d16', 'frames of 256 B x 64\nconns, 16 in flight', 'protocols', protocol('frames', 256, 16), {
    app: 'frames',
    rare: true,
  }),
]

// Not a load but a measurement of memory (harness/memory.mjs); on the command line it is a scenario like the others.
export const IDLE = 'idle'

/** A scenario's title on one line. @param {Pick<Scenario, 'title'>} scenario */
export function titleOf(scenario) {
  return scenario.title.replace('\n', ' ')
}

/**
 * The length of its window.
 * @param {Pick<Scenario, 'minSeconds'>} scenario
 * @param {number} seconds that are asked for
 */
export function windowSeconds({ minSeconds = 0 }, seconds) {
  return Math.max(minSeconds, seconds)
}

/** @param {string} name */
export function scenarioNamed(name) {
  return scenarios.find((scenario) => scenario.name === name)
}

/**
 * @param {string} name
 * @param {string} title
 * @param {Group} group
 * @param {string[]} load
 * @param {Partial<Scenario>} [more]
 * @returns {Scenario}
 */
function row(name, title, group, load, more = {}) {
  return { name, title, group, load, app: 'echo', unit: 'message', ...more }
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
 * @param {'lines' | 'frames'} mode
 * @param {number} size bytes of a payload
 * @param {number} [depth]
 */
function protocol(mode, size, depth = 1) {
  return ['--mode', mode, '--size', `${size}`, '--connections', '64', '--depth', `${depth}`]
}

/**
 * @param {string} mode
 * @param {number} count loops that connect at the same time; for `burst`, connections of one burst
 */
function loops(mode, count) {
  return ['--mode', mode, '--connections', `${count}`]
}

/** @param {'sink' | 'source'} mode */
function transfer(mode) {
  return ['--mode', mode, '--connections', '1', '--size', `${64 * 1024 * 1024}`]
}

/**
 * @param {number} size
 * @param {number} subscribers
 */
function fanout(size, subscribers) {
  return ['--mode', 'fanout', '--size', `${size}`, '--connections', `${subscribers}`]
}
