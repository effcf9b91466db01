// @ts-check
// What borrowing costs: acquire and release of a connection that is there, beside generic-pool, and a request with its
// borrowing, beside undici.
//
//   node bench/micro/pool.mjs
//
// generic-pool keeps any objects; it is given plain ones, so its rows have no connection to watch and no socket. undici's
// Pool lends nothing: it takes a request and gives a response, so there is no acquire to measure. Its row is the nearest
// thing, a whole request over loopback, and the row of edgewire beside it sends and reads the same bytes over a borrowed
// connection. They are not the same job: undici parses the response, edgewire's row only counts its bytes. What it shows
// is how little of a request borrowing is.
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { createPool, listen } from '../../dist/index.js'

/** @typedef {{ name: string, what: string, run: () => unknown }} Measurement */

const HOST = '127.0.0.1'
const RESPONSE = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
/** Callers of the contended rows, for one connection. */
const CALLERS = 10

/** @returns {Promise<{ measurements: Measurement[], end: () => Promise<void> }>} */
export async function pools() {
  // By names that the type checker does not follow: it runs where the bench's packages are not installed.
  const genericPool = (await import(/** @type {string} */ ('generic-pool'))).default
  const { Pool } = await import(/** @type {string} */ ('undici'))

  const server = await listen(
    { host: HOST, port: 0 },
    {
      data(conn) {
        conn.write(RESPONSE)
      },
    },
  )
  const { port } = server
  const place = { host: HOST, port }
  const pool = createPool({ ...place, minIdle: 1, maxTotal: 1 })
  const watching = createPool({ ...place, minIdle: 1, maxTotal: 1, leakDetectionMs: 60_000 })
  const spread = createPool({
    upstreams: ['127.0.0.1', '127.0.0.2', '127.0.0.3'].map((host) => ({ host, port })),
    minIdle: 3,
    maxTotal: 3,
  })
  const others = await Promise.all(
    ['127.0.0.2', '127.0.0.3'].map((host) => listen({ host, port }, { data: (conn) => conn.write(RESPONSE) })),
  )
  const everyPool = [pool, watching, spread]
  await Promise.all(everyPool.map((each) => each.warmUp()))
  const generic = genericPool.createPool({ create: async () => ({}), destroy: async () => {} }, { min: 1, max: 1 })
  await generic.ready()
  const undici = new Pool(`http://${HOST}:${port}`, { connections: 1, pipelining: 1 })

  const request = Buffer.from(`GET / HTTP/1.1\r\nhost: ${HOST}:${port}\r\nconnection: keep-alive\r\n\r\n`)
  const bytes = new Uint8Array(4096)

  /** @param {() => Promise<void>} borrow */
  const contended = (borrow) => () => Promise.all(Array.from({ length: CALLERS }, borrow))

  /** @type {Measurement[]} */
  const measurements = [
    {
      name: 'tryAcquire(), release()',
      what: 'edgewire, in one go',
      run() {
        /** @type {import('../../dist/index.js').Lease} */
        pool.tryAcquire().release()
      },
    },
    {
      name: 'await acquire(), release()',
      what: 'edgewire: the same and a promise',
      async run() {
        ;(await pool.acquire()).release()
      },
    },
    {
      name: 'the same, three addresses',
      what: 'edgewire, least-connections',
      async run() {
        ;(await spread.acquire()).release()
      },
    },
    {
      name: 'the same, leakDetectionMs',
      what: 'edgewire: the stack is taken',
      async run() {
        ;(await watching.acquire()).release()
      },
    },
    {
      name: 'generic-pool',
      what: 'acquire(), release() of an object',
      async run() {
        await generic.release(await generic.acquire())
      },
    },
    {
      name: `${CALLERS} callers, one connection`,
      what: 'edgewire: all but one wait',
      run: contended(async () => {
        ;(await pool.acquire()).release()
      }),
    },
    {
      name: `${CALLERS} callers, generic-pool`,
      what: 'the same with an object',
      run: contended(async () => {
        await generic.release(await generic.acquire())
      }),
    },
    {
      name: 'use(), one round trip',
      what: 'edgewire: bytes of HTTP, not parsed',
      run: () =>
        pool.use(async (conn) => {
          conn.write(request)
          await conn.read(bytes)
        }),
    },
    {
      name: 'undici Pool.request()',
      what: 'the same bytes, parsed',
      async run() {
        const { body } = await undici.request({ path: '/', method: 'GET' })
        await body.text()
      },
    },
  ]
  return {
    measurements,
    async end() {
      await Promise.all(everyPool.map((each) => each.drain()))
      await undici.close()
      await generic.drain()
      await generic.clear()
      await Promise.all([server, ...others].map((listener) => listener.shutdown()))
    },
  }
}

async function main() {
  const { measure } = await import(/** @type {string} */ ('mitata'))
  const { measurements, end } = await pools()
  for (const { name, what, run } of measurements) {
    const { p25, p50, p75 } = await measure(run)
    const columns = [p50, p25, p75].map((ns) => `${ns.toFixed(0)} ns`.padStart(10))
    console.log(`${name.padEnd(30)} ${columns.join(' ')}  ${what}`)
  }
  await end()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main()
