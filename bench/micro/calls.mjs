// @ts-check
// What a program's own calls cost: JavaScript and shared memory, no system call. Each leaves commands for the reactor;
// `takeBack` removes them again, so that nothing is sent, nothing fills up, and only the call is measured. The row
// "taking back alone" is what that adds to each of the others.
import { setImmediate } from 'node:timers/promises'
import * as abi from '../../dist/abi.js'
import { dial, listen } from '../../dist/index.js'
import { openLoop } from '../../dist/loop.js'

/** @import { Measurement } from './run.mjs' */

const MESSAGE_BYTES = 64
const CHUNK_BYTES = 16 * 1024
const RECORDS = 64

/** A connection with handlers that was lent `CHUNK_BYTES`, and holds them. */
async function connected() {
  /** @type {(value: any) => void} */
  let arrived = () => {}
  const lent = new Promise((resolve) => {
    arrived = resolve
  })
  const listener = await listen(
    { host: '127.0.0.1', port: 0 },
    {
      data(conn, chunk) {
        if (chunk.length > 1) arrived({ conn, chunk: conn.retain(chunk) })
      },
    },
  )
  const client = await dial({ host: '127.0.0.1', port: listener.port })
  client.write(Buffer.alloc(CHUNK_BYTES, 'a'))
  return { listener, client, ...(await lent) }
}

/**
 * What the library keeps to itself is measured as well: hence `any`.
 * @param {any} loop
 * @param {any} conn
 */
function insides(loop, conn) {
  const { control } = loop
  return {
    takeBack() {
      control[abi.ControlCommandTail] = control[abi.ControlCommandHead]
      control[abi.ControlArenaUsed] = 0
      conn.acceptedBytes = 0
    },
    /**
     * Plays the reactor: leaves records of received data in the ring, and lets the library serve them.
     * @param {number} records
     * @param {number} address
     */
    dispatch(records, address) {
      let tail = control[abi.ControlCompletionTail]
      for (let i = 0; i < records; i++) {
        const at = (tail & (abi.CompletionCapacity - 1)) << 2
        loop.completions[at] = abi.CompletionData
        loop.completions[at + 1] = conn.index
        loop.completions[at + 2] = address
        loop.completions[at + 3] = 1 // the handler above ignores one byte
        tail = (tail + 1) | 0
      }
      control[abi.ControlCompletionTail] = tail
      loop.dispatch()
    },
  }
}

/** @returns {Promise<{ measurements: Measurement[], end: () => Promise<void> }>} */
export async function calls() {
  const { listener, client, conn, chunk } = await connected()
  // We were woken from within a turn: its commands (the retain, for one) are carried out when it is over.
  await setImmediate()
  const loop = /** @type {any} */ (openLoop())
  const measurements = [...outputCalls(loop, conn, chunk), ...deadlineCalls(conn), ...inputCalls(loop, conn, chunk)]
  return {
    measurements,
    async end() {
      conn.release(chunk)
      client.close()
      await listener.shutdown()
    },
  }
}

/** @param {any} loop @param {any} conn @param {Buffer} chunk  @returns {Measurement[]} */
function outputCalls(loop, conn, chunk) {
  const { takeBack } = insides(loop, conn)
  const text = 'x'.repeat(MESSAGE_BYTES)
  const buffer = Buffer.alloc(MESSAGE_BYTES, 'x')
  const part = chunk.subarray(0, MESSAGE_BYTES) // may be retained because the whole is
  return [
    { name: 'taking back alone', what: 'contained in the rows down to retain', run: takeBack },
    {
      name: `write(string of ${MESSAGE_BYTES})`,
      what: 'checks, UTF-8 into the arena, one command',
      run() {
        conn.write(text)
        takeBack()
      },
    },
    {
      name: `write(Buffer of ${MESSAGE_BYTES})`,
      what: 'checks, a copy into the arena, one command',
      run() {
        conn.write(buffer)
        takeBack()
      },
    },
    {
      name: 'write(lent chunk, 16 KiB)',
      what: 'finds its place in the slab; no copy, one command',
      run() {
        conn.write(chunk)
        takeBack()
      },
    },
    {
      name: 'retain(), release()',
      what: 'both; a lease with its finalizer, two commands; one in 64 takes its stack',
      run() {
        conn.retain(part)
        conn.release(part)
        takeBack()
      },
    },
  ]
}

/** @param {any} conn  @returns {Measurement[]} */
function deadlineCalls(conn) {
  const later = Date.now() + 3_600_000
  conn.setReadDeadline(later) // the first asks the reactor to look; moving it further away does not
  return [
    {
      name: 'setReadDeadline(number)',
      what: 'a store into the row',
      run: () => conn.setReadDeadline(later),
    },
    {
      name: 'setReadDeadline(Date.now() + n)',
      what: 'as a program calls it for every message',
      run: () => conn.setReadDeadline(Date.now() + 7_200_000),
    },
  ]
}

/** @param {any} loop @param {any} conn @param {Buffer} chunk  @returns {Measurement[]} */
function inputCalls(loop, conn, chunk) {
  const { dispatch } = insides(loop, conn)
  const address = loop.slabs.addressOf(chunk)
  return [
    {
      name: 'lending a chunk',
      what: 'the Buffer that a data handler gets',
      run: () => loop.slabs.view(address, MESSAGE_BYTES),
    },
    {
      name: 'dispatch, 1 record',
      what: "JavaScript's half: one async scope, one Buffer, an empty handler",
      run: () => dispatch(1, address),
    },
    {
      name: `dispatch, ${RECORDS} records`,
      what: `the same for ${RECORDS} records, in all`,
      run: () => dispatch(RECORDS, address),
    },
    {
      name: 'flush() of nothing',
      what: 'from JavaScript into the addon and back; two clocks, the upkeep of the reactor',
      run: () => loop.flush(),
    },
  ]
}
