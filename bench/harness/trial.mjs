// @ts-check
// One trial: a fresh server process, one load, one result.
import { setTimeout as sleep } from 'node:timers/promises'
import { stripVTControlCharacters } from 'node:util'
import { Child, onLoadCore, onServerCore } from './child.mjs'
import { windowSeconds } from './scenarios.mjs'
import { loadProgram } from './servers.mjs'

/** @import { Server } from './servers.mjs' */
/** @import { Scenario } from './scenarios.mjs' */

/**
 * What edgewire-load prints.
 * @typedef {object} LoadResult
 * @property {number} messages
 * @property {number} seconds
 * @property {number} messagesPerSecond
 * @property {number} bytes
 * @property {number} p50Us
 * @property {number} p99Us
 * @property {number} p999Us
 * @property {number} serverCpuNs
 * @property {number} cpuUsPerMessage
 * @property {number} connections
 * @property {number} errors
 * @property {number} [contextSwitches] of all threads of the server in the window, voluntary or not
 * @property {number} [serverRssBytes]  at the window's end
 * @property {number} [rate]    messages a second that were asked for
 * @property {number} [missed]  of those, not answered by the end
 * @property {number} [deliveries]
 */

/**
 * @typedef {object} Settings
 * @property {string} bin      where edgewire-floor and edgewire-load are
 * @property {number} seconds  length of the measured window
 * @property {number} warmup   seconds before it
 */

const START_MS = 10_000
const STOP_MS = 5_000
const LOAD_EXTRA_MS = 30_000 // opening and draining, on a slow machine; the load itself gives up on a stalled server

/** A server that listens. */
export class RunningServer {
  /**
   * @param {Child} child
   * @param {string} port
   */
  constructor(child, port) {
    this.child = child
    this.port = port
  }

  /**
   * @param {Server} server
   * @param {string} bin
   * @param {string} app
   */
  static async start(server, bin, app) {
    const child = new Child(server.label, server.command(bin, app), onServerCore)
    try {
      const line = await child.firstLine(START_MS)
      const port = /^listening on .*:(\d+)$/.exec(line)?.[1]
      if (port === undefined) throw new Error(`${server.label} began with "${line}", not with its address`)
      return new RunningServer(child, port)
    } catch (error) {
      child.kill()
      throw error
    }
  }

  /**
   * @param {string} bin
   * @param {string[]} args
   */
  startLoad(bin, args) {
    const where = ['--host', '127.0.0.1', '--port', this.port]
    return new Child('edgewire-load', [loadProgram(bin), ...where, ...args], onLoadCore)
  }

  /** SIGTERM, and the server has to end in order. */
  async stop() {
    this.child.process.kill('SIGTERM')
    await this.child.success(STOP_MS)
  }
}

/**
 * @param {Server} server
 * @param {Pick<Scenario, 'app' | 'load' | 'minSeconds'>} scenario
 * @param {Settings} settings
 * @returns {Promise<LoadResult>}
 */
export async function runTrial(server, scenario, { bin, seconds: wanted, warmup }) {
  const { app, load: loadArgs } = scenario
  const seconds = windowSeconds(scenario, wanted)
  const running = await RunningServer.start(server, bin, app)
  const window = ['--seconds', `${seconds}`, '--warmup', `${warmup}`, '--server-pid', `${running.child.pid}`]
  const load = running.startLoad(bin, [...loadArgs, ...window])
  try {
    await load.success((seconds + warmup) * 1000 + LOAD_EXTRA_MS)
    await running.stop()
    return JSON.parse(load.output)
  } catch (error) {
    throw await withServersEnd(error, running.child)
  } finally {
    load.kill()
    running.child.kill()
  }
}

/**
 * Starts a server, and no more.
 * @param {Server} server
 * @param {string} bin
 * @returns {Promise<string | undefined>} why it does not work here, in one line
 */
export async function tryOut(server, bin) {
  try {
    const running = await RunningServer.start(server, bin, 'echo')
    running.child.kill() // no SIGTERM: its handler may not be there yet
    return undefined
  } catch (error) {
    const message = error instanceof Error ? error.message : `${error}`
    const lines = stripVTControlCharacters(message)
      .split('\n')
      .map((line) => line.trim())
    // A JavaScript server's last words are a stack; the line that matters is the one that names the error.
    return lines.find((line) => /^\w*Error\b/.test(line)) ?? lines[0]
  }
}

/**
 * A server that has crashed is the reason for what the load generator saw: say so as well. The news of its end may be
 * a moment behind that of the load generator's.
 * @param {unknown} error
 * @param {Child} server
 */
async function withServersEnd(error, server) {
  const exit = await Promise.race([server.ended, sleep(100, undefined)])
  if (exit === undefined) return error
  const end = server.describe(exit)
  const message = error instanceof Error ? error.message : `${error}`
  return message === end ? error : new Error(`${message}; ${end}`)
}
