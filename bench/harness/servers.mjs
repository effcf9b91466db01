// @ts-check
// The servers that are compared, and where their programs lie.
import { existsSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * @typedef {object} Server
 * @property {string} name   for the command line and the results
 * @property {string} label  for the table
 * @property {(bin: string) => string[]} command  listens on a free port of 127.0.0.1; `bin`: see defaultBin
 */

const root = fileURLToPath(new URL('../..', import.meta.url))
const cli = path.join(root, 'dist/cli/main.js')
const address = ['--host', '127.0.0.1', '--port', '0']

/** Where edgewire-floor and edgewire-load are unless the command line says something else. */
export const defaultBin = path.join(root, 'build/Release')

/** What everything is compared with. */
export const FLOOR = 'floor'
export const NET = 'net'
export const EDGEWIRE = 'edgewire'

/** @type {Server[]} */
export const servers = [
  { name: FLOOR, label: 'C floor', command: (bin) => [path.join(bin, 'edgewire-floor'), ...address] },
  {
    name: NET,
    label: 'net.Server',
    command: () => [process.execPath, path.join(root, 'bench/peers/net_server.mjs'), ...address],
  },
  { name: EDGEWIRE, label: 'edgewire', command: () => edgewire('handlers') },
  { name: 'edgewire-task', label: 'edgewire (tasks)', command: () => edgewire('task') },
  // env(1) becomes the server, so that its process id is the one whose CPU time is read.
  {
    name: 'edgewire-waiter',
    label: 'edgewire (waiter)',
    command: () => ['/usr/bin/env', 'EDGEWIRE_DRIVER=waiter', ...edgewire('handlers')],
  },
  {
    name: 'edgewire-prepare',
    label: 'edgewire (prepare)',
    command: () => ['/usr/bin/env', 'EDGEWIRE_DRIVER=prepare', ...edgewire('handlers')],
  },
]

/** @param {string} style */
function edgewire(style) {
  return [process.execPath, cli, 'echo', ...address, '--style', style]
}

/** @param {string} bin */
export function loadProgram(bin) {
  return path.join(bin, 'edgewire-load')
}

/**
 * What has not been built; empty if everything is there.
 * @param {Server[]} chosen
 * @param {string} bin
 * @returns {string[]}
 */
export function missingFiles(chosen, bin) {
  const files = chosen.flatMap((server) => server.command(bin).filter((part) => path.isAbsolute(part)))
  return [...new Set([...files, loadProgram(bin)])].filter((file) => !existsSync(file))
}
