// @ts-check
// The client process: a crowd of sessions, each of a random kind at a random listener.
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { configure, dial, listen } from 'edgewire'
import * as dialed from './dialed.mjs'
import * as polite from './polite.mjs'
import { openPool, pooledEcho, pooledRude } from './pooled.mjs'
import { CLIENT_BUDGET_BYTES, PATIENCE_MS, STALL_MS } from './protocol.mjs'
import * as rude from './rude.mjs'
import { Session } from './session.mjs'
import { beginning, rest, serve, violation } from './worker.mjs'

/** @import { Place } from './protocol.mjs' */

/**
 * @typedef {object} Kind
 * @property {string} name
 * @property {number} weight
 * @property {(session: Session) => Promise<unknown>} behave
 * @property {boolean} [polite] every byte is owed
 * @property {number} [most] at the same time, where one of them occupies much or waits long
 * @property {number} [lastsMs] is not begun when the load ends sooner
 */

/** @type {Kind[]} */
const kinds = [
  { name: 'echo', weight: 12, behave: polite.echo, polite: true },
  { name: 'big echo', weight: 1, behave: polite.bigEcho, polite: true, most: 2 },
  { name: 'question and answer', weight: 8, behave: polite.pingPong, polite: true },
  { name: 'source', weight: 4, behave: polite.source, polite: true },
  { name: 'sink', weight: 4, behave: polite.sink, polite: true },
  { name: 'slow reader', weight: 6, behave: polite.slowReader, polite: true },
  { name: 'one-byte writer', weight: 6, behave: polite.dribbler, polite: true },
  { name: 'FIN with data', weight: 6, behave: polite.finWithData, polite: true },
  { name: 'burst of connects', weight: 1, behave: polite.burst, polite: true, most: 3 },
  { name: 'dial, iteration', weight: 6, behave: dialed.dialedEcho, polite: true },
  { name: 'dial, big echo', weight: 1, behave: dialed.dialedBigEcho, polite: true, most: 2 },
  { name: 'dial, read()', weight: 6, behave: dialed.dialedReader, polite: true },
  { name: 'dial, deadlines', weight: 4, behave: dialed.dialedDeadlines, polite: true },
  { name: 'dial, handlers', weight: 6, behave: dialed.dialedEvents, polite: true },
  { name: 'dial, sink', weight: 3, behave: dialed.dialedSink, polite: true },
  { name: 'dial, rude', weight: 6, behave: dialed.dialedRude },
  { name: 'pool', weight: 12, behave: pooledEcho, polite: true },
  { name: 'pool, rude', weight: 8, behave: pooledRude },
  { name: 'RST in the middle', weight: 6, behave: rude.resetter },
  { name: 'gone at once', weight: 4, behave: rude.hasty },
  { name: 'vanishes unread', weight: 4, behave: rude.vanisher },
  { name: 'FIN and away', weight: 4, behave: rude.runaway },
  { name: 'garbage', weight: 4, behave: rude.garbler },
  { name: 'one byte, RST', weight: 4, behave: rude.stutterer },
  { name: 'makes it throw', weight: 2, behave: rude.thrower },
  { name: 'says nothing', weight: 2, behave: rude.mute, most: 10, lastsMs: PATIENCE_MS },
  { name: 'stalls', weight: 2, behave: rude.staller, most: 4, lastsMs: STALL_MS },
  { name: 'hogs', weight: 1, behave: rude.hogs, most: 1 },
]

const CROWD = 64
const BREATH_MS = 60 // between two sessions of one member of the crowd, at most
const STACK_LINES = 6

/** @typedef {{ name: string, polite: boolean, begun: number, done: number, failed: number, active: number, bytes: number }} Tally */

/** @type {Map<string, Tally>} */
const tallies = new Map(
  kinds.map(({ name, polite = false }) => [name, { name, polite, begun: 0, done: 0, failed: 0, active: 0, bytes: 0 }]),
)
let sessions = 0
let running = false
/** @type {Promise<void>[]} */
let crowd = []
/** @type {import('./pooled.mjs').Pooled[]} one for each load */
const pools = []

/** @param {{ seed: number, places: { name: string, place: Place }[], lastsMs: number }} order */
function start({ seed, places, lastsMs }) {
  running = true
  const end = Date.now() + lastsMs
  pools.push(openPool(places))
  const member = async () => {
    while (running) {
      const session = new Session(sessions++, seed, places)
      const kind = session.random.weighted(kinds)
      const tally = /** @type {Tally} */ (tallies.get(kind.name))
      const isDue = tally.active < (kind.most ?? CROWD) && Date.now() + (kind.lastsMs ?? 0) < end
      if (isDue) await runOne(session, kind, tally)
      await sleep(session.random.int(0, BREATH_MS))
    }
  }
  crowd = Array.from({ length: CROWD }, member)
}

/**
 * @param {Session} session
 * @param {Kind} kind
 * @param {Tally} tally
 */
async function runOne(session, kind, tally) {
  tally.begun++
  tally.active++
  try {
    await session.run(kind.behave)
    tally.done++
  } catch (error) {
    tally.failed++
    const stack = /** @type {Error} */ (error).stack?.split('\n', STACK_LINES).join('\n')
    violation(`session ${session.number}, ${kind.name} at ${session.at}: ${stack}`)
  } finally {
    tally.active--
    tally.bytes += session.verifiedBytes
  }
}

/** What edgewire and Node open once is opened now. */
async function warmUp() {
  const listener = await listen({ host: '127.0.0.1', port: 0 }, { data() {} })
  const conn = await dial({ host: '127.0.0.1', port: listener.port })
  conn.close()
  await conn.closed
  const socket = net.connect(listener.port, '127.0.0.1')
  await new Promise((resolve) => socket.once('connect', resolve))
  socket.end().resume()
  await new Promise((resolve) => socket.once('close', resolve))
  await listener.shutdown()
}

configure({ slabBudgetBytes: CLIENT_BUDGET_BYTES })
await warmUp()
const atStart = await beginning()
const result = async () => ({
  ...(await rest()),
  tallies: [...tallies.values()],
  pools: pools.map(({ calls, leases, stats }) => ({ calls, leases, stats })),
})

serve(
  {
    start: () => atStart,
    load: start,
    /** Begins nothing more, and waits for what has begun: every session ends by itself, or is ended when it hangs. */
    async stop() {
      running = false
      await Promise.all(crowd)
      await pools.at(-1)?.end()
    },
    rest: result,
    end: result,
  },
  () => ({
    sessions: [...tallies.values()].reduce((sum, { active }) => sum + active, 0),
    done: [...tallies.values()].reduce((sum, { done }) => sum + done, 0),
    bytes: [...tallies.values()].reduce((sum, { bytes }) => sum + bytes, 0),
  }),
)
