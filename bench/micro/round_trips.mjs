// @ts-check
// What goes through sockets: both ends are connections of edgewire in this process, over loopback. A round trip of 64
// bytes is therefore two messages: two sends, two receives, two turns with a dispatch each, and what the kernel does for
// them. The difference of two rows is what one style costs more than the other; a row alone is mostly the kernel.
import { setImmediate } from 'node:timers/promises'
import { dial, listen } from '../../dist/index.js'

/** @import { Conn, Handlers, Task } from '../../dist/index.js' */
/** @import { Measurement } from './run.mjs' */

const MESSAGE = Buffer.alloc(64, 'x')
const HOST = '127.0.0.1'
const READ_BYTES = 16 * 1024

/** @type {Handlers} */
const echoHandlers = {
  data(conn, chunk) {
    conn.write(chunk)
  },
}

/** @type {Handlers} */
const echoWithDeadline = {
  data(conn, chunk) {
    conn.setReadDeadline(Date.now() + 30_000)
    conn.write(chunk)
  },
}

/** @param {Conn} conn */
async function echoTask(conn) {
  const buffer = new Uint8Array(READ_BYTES)
  for (;;) {
    const count = await conn.read(buffer)
    if (count === null) return
    conn.write(buffer.subarray(0, count))
  }
}

/** @param {Conn} conn */
async function echoIterating(conn) {
  for await (const chunk of conn) conn.write(chunk)
}

/** @type {Handlers} */
const sink = { data() {} }

/** @returns {Promise<{ measurements: Measurement[], end: () => Promise<void> }>} */
export async function roundTrips() {
  /** @type {(() => Promise<void>)[]} */
  const ends = []
  const buffer = new Uint8Array(READ_BYTES)

  /** @param {string} name @param {string} what @param {Handlers | Task} service @returns {Promise<Measurement>} */
  async function echo(name, what, service) {
    const listener = await listen({ host: HOST, port: 0 }, /** @type {Handlers} */ (service))
    const client = await dial({ host: HOST, port: listener.port })
    ends.push(async () => {
      client.close()
      await listener.shutdown()
    })
    return {
      name,
      what,
      async run() {
        client.write(MESSAGE)
        for (let got = 0; got < MESSAGE.length; ) got += /** @type {number} */ (await client.read(buffer))
      },
    }
  }

  const listener = await listen({ host: HOST, port: 0 }, echoHandlers)
  ends.push(() => listener.shutdown())
  const silent = await listen({ host: HOST, port: 0 }, sink)
  const speaker = await dial({ host: HOST, port: silent.port })
  ends.push(async () => {
    speaker.close()
    await silent.shutdown()
  })
  const measurements = [
    {
      name: 'event loop alone',
      what: 'one iteration, by setImmediate: contained in the next row',
      run: () => setImmediate(),
    },
    {
      name: 'one message, one way',
      what: 'write, a turn that sends, receives and dispatches to an empty handler',
      run() {
        speaker.write(MESSAGE)
        return setImmediate()
      },
    },
    await echo('round trip, handlers', 'the client reads in task style in all these rows', echoHandlers),
    await echo('round trip, deadline', 'the same, and every message sets its deadline anew', echoWithDeadline),
    await echo('round trip, read()', 'the server reads in task style: a promise, and a command to read', echoTask),
    await echo('round trip, for await', 'the server iterates: a Buffer of its own for each chunk', echoIterating),
    {
      name: 'connect, accept, close',
      what: 'dial() to closed, and the same on the side that accepts; no message',
      async run() {
        const conn = await dial({ host: HOST, port: listener.port })
        conn.close()
        await conn.closed
      },
    },
  ]
  return {
    measurements,
    async end() {
      for (const end of ends) await end()
    },
  }
}
