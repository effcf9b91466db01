// @ts-check
// System calls per message, counted by strace.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Child } from './child.mjs'
import { RunningServer } from './trial.mjs'

/** @import { Server } from './servers.mjs' */
/** @import { Scenario } from './scenarios.mjs' */

/** @typedef {{ all: number, byName: Record<string, number> }} Calls  system calls per message */

const SECONDS = 0.8
const ATTACH_MS = 10_000
const END_MS = 10_000
const LOAD_MS = 40_000
const POLL_MS = 10
const LEAST = 0.005 // calls per message: what is rarer is start and end, not the way of a message

/** @returns {string | undefined} why there is no such pass, in one line */
export function noStrace() {
  const found = spawnSync('strace', ['-V'], { stdio: 'ignore' }).status === 0
  return found ? undefined : 'system calls: strace is not installed'
}

/**
 * There is no warm-up: what is counted and what is divided by are the same messages, but for the few in flight at the
 * end; opening the connections is counted, too, and is little among so many.
 * @param {Server} server
 * @param {Pick<Scenario, 'app' | 'load'>} scenario
 * @param {string} bin
 * @returns {Promise<Calls>}
 */
export async function callsPerMessage(server, { app, load: loadArgs }, bin) {
  const folder = mkdtempSync(path.join(tmpdir(), 'edgewire-strace-'))
  const file = path.join(folder, 'calls')
  const running = await RunningServer.start(server, bin, app)
  const strace = new Child('strace', [
    'strace',
    '-c',
    '-f',
    '-U',
    'calls,name',
    '-o',
    file,
    '-p',
    `${running.child.pid}`,
  ])
  try {
    await attached(running.child.pid)
    const load = running.startLoad(bin, [...loadArgs, '--seconds', `${SECONDS}`, '--warmup', '0'])
    try {
      await load.success(LOAD_MS)
    } finally {
      load.kill()
    }
    strace.process.kill('SIGINT')
    await Promise.race([strace.ended, sleep(END_MS, undefined, { ref: false })])
    return perMessage(readFileSync(file, 'utf8'), JSON.parse(load.output).messages)
  } finally {
    strace.kill()
    running.child.kill()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Until every thread of the process is traced. @param {number} pid */
async function attached(pid) {
  const end = Date.now() + ATTACH_MS
  while (/^TracerPid:\t0$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) {
    if (Date.now() > end) throw new Error('strace could not attach to the server')
    await sleep(POLL_MS)
  }
}

/**
 * @param {string} table what `strace -c -U calls,name` writes
 * @param {number} messages
 * @returns {Calls}
 */
export function perMessage(table, messages) {
  /** @type {Record<string, number>} */
  const byName = {}
  let all = 0
  for (const [, count, name] of table.matchAll(/^\s*(\d+)\s+(\w+)\s*$/gm)) {
    if (name === 'total') continue
    const each = Number(count) / messages
    all += each
    if (each >= LEAST) byName[name] = each
  }
  if (all === 0) throw new Error('strace has counted nothing')
  return { all, byName }
}
