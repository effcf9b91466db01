// @ts-check
// The servers that are compared, and where their programs lie.
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { bun, deno, goServer } from './runtimes.mjs'

/**
 * @typedef {object} Server
 * @property {string} name   for the command line and the results
 * @property {string} label  for the tables
 * @property {boolean} [some] takes part only in the loads that name it, unless the command line asks for it
 * @property {() => string | undefined} [missing] why it cannot take part here, in one line
 * @property {(bin: string, app: string) => string[]} command  listens on a free port of 127.0.0.1; `bin`: see defaultBin
 */

/** What the tables and the results have to know of a server. @typedef {Pick<Server, 'name' | 'label'>} ServerName */

export const root = fileURLToPath(new URL('../..', import.meta.url))
export const peers = path.join(root, 'bench/peers')
const address = ['--host', '127.0.0.1', '--port', '0']

/** Where edgewire-floor and edgewire-load are unless the command line says something else. */
export const defaultBin = path.join(root, 'build/Release')

/** What everything is compared with. */
export const FLOOR = 'floor'
export const NET = 'net'
export const EDGEWIRE = 'edgewire'
export const PREPARE = 'edgewire-prepare'
export const WAITER = 'edgewire-waiter'

/** @type {Server[]} */
export const servers = [
  { name: FLOOR, label: 'C floor', command: (bin, app) => [path.join(bin, 'edgewire-floor'), ...serving(app)] },
  {
    name: NET,
    label: 'net.Server',
    command: (_, app) => [process.execPath, path.join(peers, 'net_server.mjs'), ...serving(app)],
  },
  { name: EDGEWIRE, label: 'edgewire', command: (_, app) => edgewire(root, app) },
  { name: PREPARE, label: 'edgewire (prepare)', command: (_, app) => withDriver('prepare', app) },
  {
    name: 'edgewire-task',
    label: 'edgewire (tasks)',
    some: true,
    command: (_, app) => [...edgewire(root, app), '--style', 'task'],
  },
  {
    name: WAITER,
    label: 'edgewire (waiter)',
    some: true,
    command: (_, app) => withDriver('waiter', app),
  },
  {
    name: 'bun',
    label: 'Bun.listen',
    missing: bun.missing,
    command: (_, app) => [bun.program(), path.join(peers, 'bun_server.mjs'), ...serving(app)],
  },
  {
    name: 'deno',
    label: 'Deno.listen',
    some: true,
    missing: deno.missing,
    command: (_, app) => [
      deno.program(),
      ...['run', '--quiet', '--allow-net', '--allow-env', '--allow-read'],
      path.join(peers, 'deno_server.mjs'),
      ...serving(app),
    ],
  },
  {
    name: 'go',
    label: 'Go net',
    missing: goServer.missing,
    command: (_, app) => [goServer.program(), ...serving(app)],
  },
]

/**
 * edgewire of a clone: this one's, or that of the revision that `--compare` names.
 * @param {string} clone
 * @param {string} app
 */
export function edgewire(clone, app) {
  return [process.execPath, path.join(clone, 'bench/peers/edgewire_server.mjs'), ...serving(app)]
}

/**
 * env(1) becomes the server, so that its process id is the one whose CPU time is read.
 * @param {string} driver
 * @param {string} app
 */
function withDriver(driver, app) {
  return ['/usr/bin/env', `EDGEWIRE_DRIVER=${driver}`, ...edgewire(root, app)]
}

/** An echo is what every server is if it is not told otherwise. @param {string} app */
function serving(app) {
  return app === 'echo' ? address : [...address, '--app', app]
}

/** @param {string} bin */
export function loadProgram(bin) {
  return path.join(bin, 'edgewire-load')
}
