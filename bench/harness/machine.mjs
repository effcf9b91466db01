// @ts-check
// The machine that the numbers belong to, and what ran on it.
import { spawnSync } from 'node:child_process'
import os from 'node:os'
import { isPinned } from './child.mjs'
import { bun, deno, goServer } from './runtimes.mjs'

/**
 * @typedef {object} Machine
 * @property {string} cpu
 * @property {number} cores
 * @property {number} memoryGiB
 * @property {string} kernel
 * @property {string} node
 * @property {boolean} pinned the server and the load generator each had a core of their own
 */

/** @typedef {{ revision: string, dirty: boolean }} Commit  dirty: the tree had changes that no commit has */

/** @returns {Machine} */
export function machine() {
  return {
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown CPU',
    cores: os.availableParallelism(),
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    kernel: `${os.type()} ${os.release()}`,
    node: process.version,
    pinned: isPinned,
  }
}

/** @param {Machine} m */
export function describeMachine(m) {
  const pinning = m.pinned
    ? 'server and load generator pinned to one core each'
    : 'server and load generator not pinned: they share cores, so read the CPU columns only'
  return `${m.cpu}, ${m.cores} core${m.cores === 1 ? '' : 's'}, ${m.kernel}, Node ${m.node}; ${pinning}.`
}

/** @param {string} root @returns {Commit} */
export function commitOf(root) {
  const git = (/** @type {string[]} */ ...args) => spawnSync('git', ['-C', root, ...args], { encoding: 'utf8' })
  const { status, stdout } = git('rev-parse', 'HEAD')
  if (status !== 0) return { revision: 'unknown', dirty: false }
  return { revision: stdout.trim(), dirty: git('status', '--porcelain').stdout.trim() !== '' }
}

/** @param {Commit} commit */
export function describeCommit({ revision, dirty }) {
  return `${revision.slice(0, 12)}${dirty ? ' with uncommitted changes' : ''}`
}

/** Of everything that is not edgewire itself. @returns {Record<string, string>} */
export function versions() {
  const found = {
    Node: process.versions.node,
    libuv: process.versions.uv,
    Bun: bun.version(),
    Deno: deno.version(),
    Go: goServer.version(),
    strace: /version (\S+)/.exec(spawnSync('strace', ['-V'], { encoding: 'utf8' }).stdout ?? '')?.[1],
    compiler: spawnSync('g++', ['-dumpfullversion'], { encoding: 'utf8' }).stdout?.trim(),
  }
  return /** @type {Record<string, string>} */ (
    Object.fromEntries(Object.entries(found).filter(([, version]) => version !== undefined && version !== ''))
  )
}
