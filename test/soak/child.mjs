// @ts-check
// main.mjs's side of a child process: it asks, and waits for the answer for a limited time; it hears samples and
// violations. Children never outlive this process.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const STDERR_KEPT = 4096 // characters
const ENDS_MS = 10_000
// A young generation that cannot grow, MiB: V8 does not give it back, and it would hide what grows for other reasons.
const SEMI_SPACE_MIB = 4
// glibc's first value, held: as it comes it rises with every block that is freed, and blocks below it, our slabs for
// instance, then stay resident when they have been freed. That would hide what grows, too.
const MALLOC = { MALLOC_MMAP_THRESHOLD_: '131072' }

/** @type {Set<import('node:child_process').ChildProcess>} */
const alive = new Set()
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL')
})

export class Child {
  /** @type {any} the newest sample */
  sample
  sampledAt = Date.now()
  #stderr = ''
  #asked = 0
  /** @type {Map<number, { resolve(answer: any): void, reject(error: Error): void }>} */
  #waiting = new Map()
  #process
  /** @type {string | undefined} how it ended, if it has */
  end
  /** @type {Promise<string>} how it ended */
  #ended

  /**
   * @param {string} name also that of its program
   * @param {string[]} args
   * @param {(text: string) => void} onViolation
   */
  constructor(name, args, onViolation) {
    this.name = name
    const program = fileURLToPath(new URL(`./${name}.mjs`, import.meta.url))
    const execArgv = ['--expose-gc', `--max-semi-space-size=${SEMI_SPACE_MIB}`]
    const env = { ...process.env, ...MALLOC }
    const child = fork(program, args, { execArgv, env, stdio: ['ignore', 'inherit', 'pipe', 'ipc'] })
    this.#process = child
    alive.add(child)
    child.stderr?.setEncoding('utf8').on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(0, STDERR_KEPT)
    })
    child.on('message', (/** @type {any} */ message) => {
      if (message.violation !== undefined) onViolation(`${name}: ${message.violation}`)
      else if (message.sample !== undefined) this.#take(message.sample)
      else this.#settle(message)
    })
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(`could not be started: ${error.message}`))
      child.once('close', (code, signal) => resolve(signal === null ? `exit code ${code}` : signal))
    })
    void this.#ended.then((how) => {
      this.end = how
      alive.delete(child)
      for (const { reject } of this.#waiting.values()) reject(new Error(`the ${name} process ended with ${how}`))
      if (this.#stderr !== '') onViolation(`${name} wrote to stderr: ${this.#stderr.trim()}`)
    })
  }

  /** @param {any} sample */
  #take(sample) {
    this.sample = sample
    this.sampledAt = Date.now()
  }

  /** @param {{ id: number, answer?: any, failure?: string }} message */
  #settle({ id, answer, failure }) {
    if (failure === undefined) this.#waiting.get(id)?.resolve(answer)
    else this.#waiting.get(id)?.reject(new Error(`the ${this.name} process failed: ${failure}`))
  }

  /**
   * @param {string} question
   * @param {unknown} argument
   * @param {number} timeoutMs
   * @returns {Promise<any>}
   */
  ask(question, argument, timeoutMs) {
    const id = ++this.#asked
    /** @type {NodeJS.Timeout | undefined} */
    let timer
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      const late = () => reject(new Error(`the ${this.name} process did not '${question}' in ${timeoutMs / 1000} s`))
      timer = setTimeout(late, timeoutMs)
      this.#process.send({ id, ask: question, argument }, (error) => {
        if (error !== null) reject(error)
      })
    }).finally(() => {
      clearTimeout(timer)
      this.#waiting.delete(id)
    })
  }

  /**
   * After `end`: nothing may keep it alive.
   * @returns {Promise<string>} how it ended
   */
  async ended() {
    const timer = setTimeout(() => this.kill(), ENDS_MS)
    const how = await this.#ended
    clearTimeout(timer)
    return how === 'SIGKILL' ? `did not end by itself within ${ENDS_MS / 1000} s` : how
  }

  kill() {
    this.#process.kill('SIGKILL')
  }
}
