// @ts-check
// The child processes' side of the conversation with main.mjs: answering its questions, reporting what goes wrong, and
// measuring this process.
import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { stats } from 'edgewire'

/** @import { Stats } from 'edgewire' */

const SAMPLE_MS = 1000
const REPORTED_MAX = 100 // a broken run must not drown itself in messages

const ALL_CLOSED_MS = 20_000
const POOL_RETURN_MS = 15_000 // the pool gives idle slabs back after about ten seconds
const QUIET_POLL_MS = 150
const QUIET_POLLS = 4
const QUIET_POLLS_MAX = 40
const QUIET_TOLERANCE = 0.002
const SLAB_BYTES = 1 << 20

/** @typedef {{ rss: number, heapUsed: number, external: number }} Memory bytes */

/**
 * @typedef {object} Rest a process with nothing to do, after garbage collection
 * @property {Memory} memory
 * @property {Stats} stats
 * @property {number} fds
 */

let reported = 0

/**
 * Something that must not happen. The run goes on, to see what else there is.
 * @param {string} text
 */
export function violation(text) {
  if (reported++ < REPORTED_MAX) process.send?.({ violation: text })
}

/**
 * Serves main.mjs until it says `end`, and samples once a second.
 * @param {Record<string, (argument: any) => unknown>} answers by question
 * @param {() => object} sample what to report besides memory and stats()
 */
export function serve(answers, sample) {
  process.on('uncaughtException', (error) => violation(`uncaught: ${error?.stack ?? error}`))
  process.on('unhandledRejection', (error) => violation(`unhandled: ${/** @type {any} */ (error)?.stack ?? error}`))
  process.on('warning', (warning) => violation(`warning: ${warning.stack}`))
  const onDisconnect = () => process.exit(1)
  process.once('disconnect', onDisconnect) // main.mjs is gone
  const timer = setInterval(
    () => process.send?.({ sample: { ...sample(), memory: memory(), stats: stats() } }),
    SAMPLE_MS,
  )
  process.on('message', async (/** @type {{ id: number, ask: string, argument: unknown }} */ { id, ask, argument }) => {
    try {
      process.send?.({ id, answer: await answers[ask](argument) })
    } catch (error) {
      process.send?.({ id, failure: error instanceof Error ? error.stack : `${error}` })
    }
    if (ask !== 'end') return
    // From here on nothing of ours keeps the process alive: it must end by itself.
    clearInterval(timer)
    process.off('disconnect', onDisconnect)
    process.disconnect?.()
  })
}

/** @returns {Memory} */
export function memory() {
  const { rss, heapUsed, external } = process.memoryUsage()
  return { rss, heapUsed, external }
}

/** Open descriptors; the one that reads the folder is not counted. */
export function descriptors() {
  return readdirSync('/proc/self/fd').length - 1
}

/**
 * @typedef {object} Beginning
 * @property {number} fds
 * @property {number} external bytes
 */

/** @returns {Promise<Beginning>} this process before anything has happened */
export async function beginning() {
  await collect()
  return { fds: descriptors(), external: memory().external }
}

/** What one collection finds, array buffers for instance, may be counted by the next one only. */
async function collect() {
  for (let i = 0; i < 2; i++) {
    globalThis.gc?.()
    await sleep(QUIET_POLL_MS)
  }
}

/**
 * Waits until nothing is open, memory has been given back, and what is resident has come to rest.
 * @returns {Promise<Rest>}
 */
export async function rest() {
  await until(() => stats().open === 0, ALL_CLOSED_MS)
  await until(() => stats().slabMappedBytes <= SLAB_BYTES, POOL_RETURN_MS)
  let last = 0
  for (let polls = 0, quiet = 0; polls < QUIET_POLLS_MAX && quiet < QUIET_POLLS; polls++) {
    await collect()
    const { rss } = process.memoryUsage()
    quiet = Math.abs(rss - last) <= last * QUIET_TOLERANCE ? quiet + 1 : 0
    last = rss
  }
  return { memory: memory(), stats: stats(), fds: descriptors() }
}

/**
 * @param {() => boolean} holds
 * @param {number} timeoutMs after which whoever asked sees that it does not hold
 */
async function until(holds, timeoutMs) {
  const end = Date.now() + timeoutMs
  while (!holds() && Date.now() < end) await sleep(50)
}
