// @ts-check
// The machine that the numbers belong to.
import os from 'node:os'
import { isPinned } from './child.mjs'

/**
 * @typedef {object} Machine
 * @property {string} cpu
 * @property {number} cores
 * @property {string} kernel
 * @property {string} node
 * @property {boolean} pinned the server and the load generator each had a core of their own
 */

/** @returns {Machine} */
export function machine() {
  return {
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown CPU',
    cores: os.availableParallelism(),
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
