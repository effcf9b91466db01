// @ts-check
// What borrowing costs: acquire and release of a connection that is there, beside generic-pool, and a request with its
// borrowing, beside undici.
//
// generic-pool keeps any objects; it is given plain ones, so its rows have no connection to watch and no socket. undici's
// Pool lends nothing: it takes a request and gives a response, so there is no acquire to measure. Its row is the nearest
// thing, a whole request over loopback, and the row of edgewire beside it sends and reads the same bytes over a borrowed
// connection. They are not the same job: undici parses the response, edgewire's row only counts its bytes. What it shows
// is how little of a request borrowing is.
import { createPool, listen } from '../../dist/index.js'

/** @import { Pool } from '../../dist/index.js' */
/** @typedef {{ name: string, what: string, run: () => unknown }} Measurement */
/** @typedef {{ measurements: Measurement[], end: () => Promise<unknown> }} Section */

const HOSTS = ['127.0.0.1', '127.0.0.2', '127.0.0.3']
const HOST = HOSTS[0]
const RESPONSE = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
/** Callers of the contended rows, for one connection. */
const CALLERS = 10

/** @param {() => Promise<void>} borrow */
const contended = (borrow) => () => Promise.all(Array.from({ length: CALLERS }, borrow))

/** @returns {Promise<Section>} */
export async function pools() {
  /** @param {string} host @param {number} port */
  const serve = (host, port) => listen({ host, port }, { data: (conn) => conn.write(RESPONSE) })
  const first = await serve(HOST, 0)
  const { port } = first
  const servers = [first, ...(await Promise.all(HOSTS.slice(1).map((host) => serve(host, port))))]
  const sections = [await ours(port), await borrowingThings(), await requesting(port)]
  return {
    measurements: sections.flatMap(({ measurements }) => measurements),
    async end() {
      await Promise.all(sections.map(({ end }) => end()))
      await Promise.all(servers.map((server) => server.shutdown()))
    },
  }
}

/** @param {number} port @returns {Promise<Section>} */
async function ours(port) {
  const one = createPool({ host: HOST, port, minIdle: 1, maxTotal: 1 })
  const watching = createPool({ host: HOST, port, minIdle: 1, maxTotal: 1, leakDetectionMs: 60_000 })
  const spread = createPool({ upstreams: HOSTS.map((host) => ({ host, port })), minIdle: 3, maxTotal: 3 })
  const all = [one, watching, spread]
  await Promise.all(all.map((pool) => pool.warmUp()))
  /** @param {Pool} pool */
  const borrowing = (pool) => async () => {
    ;(await pool.acquire()).release()
  }
  const request = Buffer.from(`GET / HTTP/1.1\r\nhost: ${HOST}:${port}\r\nconnection: keep-alive\r\n\r\n`)
  const bytes = new Uint8Array(4096)
  return {
    measurements: [
      { name: 'tryAcquire(), release()', what: 'edgewire, in one go', run: () => one.tryAcquire()?.release() },
      { name: 'await acquire(), release()', what: 'edgewire: the same and a promise', run: borrowing(one) },
      { name: 'the same, three addresses', what: 'edgewire, least-connections', run: borrowing(spread) },
      { name: 'the same, leakDetectionMs', what: 'edgewire: the stack is taken', run: borrowing(watching) },
      {
        name: `${CALLERS} callers, one connection`,
        what: 'edgewire: all but one wait',
        run: contended(borrowing(one)),
      },
      {
        name: 'use(), one round trip',
        what: 'edgewire: bytes of HTTP, not parsed',
        run: () =>
          one.use((conn) => {
            conn.write(request)
            return conn.read(bytes)
          }),
      },
    ],
    end: () => Promise.all(all.map((pool) => pool.drain())),
  }
}

/** @returns {Promise<Section>} */
async function borrowingThings() {
  // By a name that the type checker does not follow: it runs where the bench's packages are not installed.
  const { default: genericPool } = await import(/** @type {string} */ ('generic-pool'))
  const pool = genericPool.createPool({ create: async () => ({}), destroy: async () => {} }, { min: 1, max: 1 })
  await pool.ready()
  const borrow = async () => {
    await pool.release(await pool.acquire())
  }
  return {
    measurements: [
      { name: 'generic-pool', what: 'acquire(), release() of an object', run: borrow },
      { name: `${CALLERS} callers, generic-pool`, what: 'the same: all but one wait', run: contended(borrow) },
    ],
    async end() {
      await pool.drain()
      await pool.clear()
    },
  }
}

/** @param {number} port @returns {Promise<Section>} */
async function requesting(port) {
  const undici = await import(/** @type {string} */ ('undici'))
  const pool = new undici.Pool(`http://${HOST}:${port}`, { connections: 1, pipelining: 1 })
  const run = async () => {
    const { body } = await pool.request({ path: '/', method: 'GET' })
    await body.text()
  }
  return {
    measurements: [{ name: 'undici Pool.request()', what: 'the same bytes, parsed', run }],
    end: () => pool.close(),
  }
}
