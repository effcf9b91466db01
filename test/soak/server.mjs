// @ts-check
// The server process: edgewire in all of its styles, over TCP and Unix sockets, with a small pool and little patience.
import net from 'node:net'
import { join } from 'node:path'
import { configure, listen, NetError, stats } from 'edgewire'
import { Command, LINGER_MS, ON_PURPOSE, PATIENCE_MS, QUEUE_MAX_BYTES, SERVER_BUDGET_BYTES } from './protocol.mjs'
import { handlersFor } from './server_events.mjs'
import { converse } from './server_task.mjs'
import { beginning, rest, serve, violation } from './worker.mjs'

/** @import { Conn, Listener } from 'edgewire' */
/** @import { Place, Wish } from './protocol.mjs' */

const folder = process.argv[2]

/**
 * What the server has seen.
 * @typedef {object} Book
 * @property {number} messages chunks and reads with bytes in them
 * @property {number} thrown   exceptions that handlers and tasks threw on purpose
 * @property {number} caught   those that arrived in onError
 * @property {Record<string, number>} ends connections by the error code of their end
 */

/** @type {Book} */
const book = { messages: 0, thrown: 0, caught: 0, ends: {} }

// How the connection of a client that is not well-behaved may end; all else is a violation.
const OF_ANYBODY = [
  'ECONNRESET',
  'EPIPE',
  'ERR_IDLE_TIMEOUT',
  'ERR_DEADLINE_EXCEEDED',
  'ERR_CONN_ABORTED',
  'ETIMEDOUT', // lingerMs
]
const OF_HOGS = ['ENOBUFS', 'ERR_BUFFER_OVERFLOW']

/**
 * @param {string} listener
 * @param {Wish | undefined} wish of the connection, once it is known
 * @param {NetError | undefined} error
 */
function ended(listener, wish, error) {
  const code = error?.code ?? ''
  book.ends[code] = (book.ends[code] ?? 0) + 1
  if (error === undefined) return
  if (!wish?.polite && OF_ANYBODY.includes(code)) return
  if (wish?.command === Command.Hog && OF_HOGS.includes(code)) return
  violation(`${listener}: a connection that wished ${JSON.stringify(wish)} ended with ${error.stack}`)
}

/** @param {unknown} error */
function onError(error) {
  if (error instanceof Error && error.message === ON_PURPOSE) book.caught++
  else violation(`onError: ${error instanceof Error ? error.stack : error}`)
}

const limits = { lingerMs: LINGER_MS, maxBufferedBytes: QUEUE_MAX_BYTES, onError }
const idle = { idleTimeoutMs: PATIENCE_MS }
const tcp = { host: '127.0.0.1', port: 0 }
/** @param {string} name */
const unix = (name) => ({ path: join(folder, name) })

/**
 * @param {string} name
 * @param {boolean} deadlines
 */
function task(name, deadlines) {
  return async (/** @type {Conn} */ conn) => {
    /** @type {{ wish?: Wish }} */
    const progress = {}
    void conn.closed.then((error) => ended(name, progress.wish, error))
    await converse(conn, { style: 'read', deadlines, book, progress })
  }
}

/**
 * Serves `for await (const conn of listener)`.
 * @param {string} name
 * @param {Listener} listener
 */
async function acceptFrom(name, listener) {
  for await (const conn of listener) {
    /** @type {{ wish?: Wish }} */
    const progress = {}
    void conn.closed.then((error) => ended(name, progress.wish, error))
    converse(conn, { style: 'iterate', deadlines: false, book, progress }).then(
      () => conn.close(),
      (error) => {
        // Without a task there is no onError: what was thrown on purpose is caught here.
        if (error.message === ON_PURPOSE) book.thrown--
        else if (!(error instanceof NetError)) violation(`${name}: ${error.stack}`)
        conn.abort()
      },
    )
  }
}

/** One listener comes and goes, so that what the loop and Node open once is open before descriptors are counted. */
async function warmUp() {
  const listener = await listen(tcp, { data() {} })
  const socket = net.connect(listener.port, '127.0.0.1')
  await new Promise((resolve) => socket.once('connect', resolve))
  socket.end('x').resume()
  await new Promise((resolve) => socket.once('close', resolve))
  await listener.shutdown()
}

/** @returns {Promise<{ name: string, listener: Listener }[]>} */
async function listenEverywhere() {
  const events = (/** @type {string} */ name, /** @type {boolean} */ deadlines) =>
    handlersFor({ deadlines, book, ended: (wish, error) => ended(name, wish, error) })
  const names = ['tcp handlers', 'unix handlers', 'tcp task', 'unix task', 'tcp iterate']
  const listeners = [
    await listen({ ...tcp, ...limits, ...idle }, events(names[0], false)),
    await listen({ ...unix('h'), ...limits }, events(names[1], true)),
    await listen({ ...tcp, ...limits }, task(names[2], true)),
    await listen({ ...unix('t'), ...limits, ...idle }, task(names[3], false)),
    await listen({ ...tcp, ...limits, ...idle }),
  ]
  acceptFrom(names[4], listeners[4]).catch((error) => violation(`accepting: ${error.stack}`))
  return listeners.map((listener, i) => ({ name: names[i], listener }))
}

configure({ slabBudgetBytes: SERVER_BUDGET_BYTES })
await warmUp()
const atStart = await beginning()
const listeners = await listenEverywhere()
const listenerStats = () => listeners.map(({ name, listener }) => ({ name, ...listener.stats() }))

serve(
  {
    start: () => ({
      ...atStart,
      places: listeners.map(({ name, listener }) => ({
        name,
        place: /** @type {Place} */ (
          listener.family === 'unix' ? { path: listener.address } : { host: '127.0.0.1', port: listener.port }
        ),
      })),
    }),
    rest: async () => ({ ...(await rest()), listeners: listenerStats(), book }),
    async end() {
      await Promise.all(listeners.map(({ listener }) => listener.shutdown()))
      return { ...(await rest()), listeners: listenerStats(), book }
    },
  },
  () => ({ messages: book.messages, open: stats().open }),
)
