// @ts-check
// Child processes that never outlive us. Three nets, one below the other: every child is killed by whoever started it;
// all that are left are killed when this process exits or is told to; and where util-linux's setpriv exists, the kernel
// kills them when this process is killed itself.
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** @typedef {{ code: number | null, signal: NodeJS.Signals | null }} Exit */

const STDERR_KEPT = 4096 // characters: enough for a message, little enough for a server that floods

/** @type {Set<Child>} */
const alive = new Set()

process.on('exit', killAll)
for (const [signal, number] of /** @type {const} */ ([
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
])) {
  process.on(signal, () => process.exit(128 + number)) // and so to 'exit'
}

function killAll() {
  for (const child of alive) child.kill()
}

/** @param {string[]} command */
function works(command) {
  return spawnSync(command[0], command.slice(1), { stdio: 'ignore' }).status === 0
}

const dieWithParent = works(['setpriv', '--pdeathsig', 'KILL', 'true']) ? ['setpriv', '--pdeathsig', 'KILL'] : []
const [serverCore, loadCore] = pinnableCores()

/** The prefixes that keep the server and the load generator from sharing a core. */
export const onServerCore = pin(serverCore)
export const onLoadCore = pin(loadCore)
export const isPinned = onServerCore.length > 0

/** @param {number | undefined} core */
function pin(core) {
  return core === undefined ? [] : ['taskset', '-c', `${core}`]
}

/**
 * Two cores that this process may run on (a container's need not be 0 and 1); none if there is only one: then the
 * scheduler does better without us.
 * @returns {number[]}
 */
function pinnableCores() {
  if (process.platform !== 'linux') return []
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? ''
  const cores = coresIn(list)
  if (cores.length < 2 || !works(['taskset', '-c', `${cores[0]}`, 'true'])) return []
  return twoCores(cores, (core) => {
    try {
      return coresIn(readFileSync(`/sys/devices/system/cpu/cpu${core}/topology/thread_siblings_list`, 'utf8').trim())
    } catch {
      return [core] // not told in every container
    }
  })
}

/** @param {string} list as in "0-3,8" */
function coresIn(list) {
  return list.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, i) => first + i)
  })
}

/**
 * The second is not the other thread of the first one's core, if it can be helped: the load generator would take half of
 * what the server's CPU time buys, and the more, the less the server leaves idle.
 * @param {number[]} cores at least two
 * @param {(core: number) => number[]} threadsOf  of one physical core
 */
export function twoCores(cores, threadsOf) {
  const [first, next] = cores
  const apart = cores.find((core) => !threadsOf(first).includes(core) && core !== first)
  return [first, apart ?? next]
}

// What a shell may have set for other purposes, and what makes one runtime faster or slower than it is for others: nothing
// of it would be seen in the results.
const TUNING =
  /^(EDGEWIRE_|NODE_(OPTIONS|DEBUG|V8_COVERAGE)|UV_|BUN_|DENO_(?!DIR$)|GO(GC|MEMLIMIT|DEBUG|MAXPROCS)$|MALLOC_|GLIBC_TUNABLES$|LD_PRELOAD$)/

/**
 * The names that no child gets.
 * @param {NodeJS.ProcessEnv} [env]
 */
export function withheld(env = process.env) {
  return Object.keys(env).filter((name) => TUNING.test(name))
}

/** @param {NodeJS.ProcessEnv} env */
function untuned(env) {
  const left = { ...env }
  for (const name of withheld(env)) delete left[name]
  return left
}

/**
 * The time limit of a race; does not keep the process alive.
 * @param {number} ms
 */
function patience(ms) {
  return sleep(ms, undefined, { ref: false })
}

/** A running program: its first line, its output, its end. */
export class Child {
  #output = ''
  #stderr = ''
  /** @type {Promise<string>} */
  #firstLine

  /**
   * @param {string} name for messages
   * @param {string[]} command
   * @param {string[]} [prefix] onServerCore or onLoadCore
   */
  constructor(name, command, prefix = []) {
    this.name = name
    // setpriv and taskset replace themselves with what they run: the child's pid is the server's.
    const [file, ...args] = [...dieWithParent, ...prefix, ...command]
    this.process = spawn(file, args, { stdio: 'pipe', env: untuned(process.env) })
    alive.add(this)
    this.process.stdin.on('error', () => {}) // it may be gone already
    this.#firstLine = new Promise((resolve) => {
      this.process.stdout.setEncoding('utf8').on('data', (text) => {
        this.#output += text
        const end = this.#output.indexOf('\n')
        if (end >= 0) resolve(this.#output.slice(0, end))
      })
    })
    this.process.stderr.setEncoding('utf8').on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT)
    })
    /** Settles when the program has ended and its output is complete. @type {Promise<Exit>} */
    this.ended = new Promise((resolve, reject) => {
      this.process.once('error', reject)
      this.process.once('close', (code, signal) => resolve({ code, signal }))
    })
    this.ended.catch(() => {}).finally(() => alive.delete(this))
  }

  get pid() {
    if (this.process.pid === undefined) throw new Error(`${this.name} could not be started`)
    return this.process.pid
  }

  get output() {
    return this.#output
  }

  kill() {
    this.process.kill('SIGKILL')
  }

  /**
   * @param {number} timeoutMs
   * @returns {Promise<string>} what the program says first
   */
  async firstLine(timeoutMs) {
    const first = await Promise.race([this.#firstLine, this.ended, patience(timeoutMs)])
    if (typeof first === 'string') return first
    if (first === undefined) throw new Error(`${this.name} said nothing for ${timeoutMs / 1000} s`)
    throw new Error(`${this.describe(first)} before it was ready`)
  }

  /**
   * Waits for the end, which has to be an orderly one.
   * @param {number} timeoutMs
   */
  async success(timeoutMs) {
    const exit = await Promise.race([this.ended, patience(timeoutMs)])
    if (exit === undefined) {
      this.kill()
      throw new Error(`${this.name} did not end within ${timeoutMs / 1000} s`)
    }
    if (exit.code !== 0) throw new Error(this.describe(exit))
  }

  /** @param {Exit} exit */
  describe(exit) {
    const how = exit.signal === null ? `ended with status ${exit.code}` : `was killed by ${exit.signal}`
    const said = this.#stderr.trim()
    return `${this.name} ${how}${said === '' ? '' : ` and said: ${said}`}`
  }
}
