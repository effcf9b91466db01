// @ts-check
// What an idle connection costs a server: resident bytes of its process (the kernel's socket is not part of that).
//
// The cost is a slope. A server that has just started also pays for its first connections with code pages, heap growth
// and tables; so a first group is opened before the first reading, and only the connections after it are divided by.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { RunningServer } from './trial.mjs'

/** @import { Server } from './servers.mjs' */

export const IDLE_CONNECTIONS = 10_000
const FIRST_GROUP = 500
const OPEN_MS = 60_000
const CLOSE_MS = 10_000

/**
 * @param {Server} server
 * @param {string} bin
 * @returns {Promise<number>} bytes per connection
 */
export async function bytesPerIdleConnection(server, bin) {
  const running = await RunningServer.start(server, bin, 'echo')
  /** @type {import('./child.mjs').Child[]} */
  const groups = []
  try {
    groups.push(await holdIdle(running, bin, FIRST_GROUP))
    const before = await settledMemory(running.child.pid)
    groups.push(await holdIdle(running, bin, IDLE_CONNECTIONS))
    const after = await settledMemory(running.child.pid)
    for (const group of groups) {
      group.process.stdin.end()
      await group.success(CLOSE_MS)
    }
    await running.stop()
    return (after - before) / IDLE_CONNECTIONS
  } finally {
    for (const group of groups) group.kill()
    running.child.kill()
  }
}

/**
 * @param {RunningServer} running
 * @param {string} bin
 * @param {number} connections each of which echoes one message and is silent from then on
 */
async function holdIdle(running, bin, connections) {
  const load = running.startLoad(bin, ['--mode', 'idle', '--connections', `${connections}`])
  try {
    const line = await load.firstLine(OPEN_MS)
    if (line !== 'ready') throw new Error(`edgewire-load said "${line}" instead of "ready"`)
    return load
  } catch (error) {
    load.kill()
    throw error
  }
}

/**
 * The process's anonymous resident memory once it has come to rest: a garbage collector gives memory back when it likes,
 * so this is a best effort; what is reported is the median of several processes.
 * @param {number} pid
 */
async function settledMemory(pid) {
  const intervalMs = 250
  const tolerance = 0.002
  const wantedQuiet = 16 // four seconds: V8 tidies up some time after the work is done
  let last = anonymousRss(pid)
  for (let polls = 0, quiet = 0; polls < 60 && quiet < wantedQuiet; polls++) {
    await sleep(intervalMs)
    const now = anonymousRss(pid)
    quiet = Math.abs(now - last) <= last * tolerance ? quiet + 1 : 0
    last = now
  }
  return last
}

/**
 * Without the pages of program files, which are resident because their code has run, not because a connection is open:
 * they would be a third of what a small connection costs.
 * @param {number} pid
 */
function anonymousRss(pid) {
  const kib = /^RssAnon:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  if (kib === undefined) throw new Error(`process ${pid} has no RssAnon`)
  return Number(kib) * 1024
}
