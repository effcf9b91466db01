// @ts-check
// Clients on edgewire's own dial(): well-behaved ones, checked as strictly as those of polite.mjs, and rude ones.
import { setTimeout as sleep } from 'node:timers/promises'
import { dial, NetError } from 'edgewire'
import { Checker, PIECE_MAX, pattern } from './pattern.mjs'
import { expectAnswer, offsetOf } from './polite.mjs'
import { ANSWER_BYTES, Command, HEADER_BYTES, header } from './protocol.mjs'

/** @import { Conn } from 'edgewire' */
/** @import { Session } from './session.mjs' */

const SMALL_BYTES = 256 * 1024
const BIG_BYTES = 12 << 20
const READ_SIZES = [1, 100, 4096, 20_000, 65_536]
const OPTIONS = { lingerMs: 5000, timeoutMs: 20_000 }

/**
 * @param {Session} session
 * @param {Conn} conn
 * @param {{ offset: number, length: number }} stream
 */
async function send({ random }, conn, { offset, length }) {
  for (let sent = 0; sent < length; ) {
    const bytes = Math.min(random.size(1, PIECE_MAX), length - sent)
    const more = conn.write(pattern(offset + sent, bytes))
    sent += bytes
    if (!more) await conn.drained()
    else if (random.chance(0.1)) await sleep(random.int(0, 5))
  }
  if (random.chance(0.3)) await conn.flushed()
  conn.closeWrite()
}

/**
 * @param {Session} session
 * @param {Checker} checker
 * @param {Uint8Array} chunk
 */
function take(session, checker, chunk) {
  checker.take(chunk)
  session.verifiedBytes += chunk.length
  session.step = `has received ${checker.position} of ${checker.length} bytes`
}

/**
 * Both FINs are through: it must be over by itself, in order, and have counted right.
 * @param {Conn} conn
 * @param {{ sent: number, received: number }} wanted
 */
async function expectEnd(conn, { sent, received }) {
  const error = await conn.closed
  if (error !== undefined) throw error
  if (conn.bytesWritten === sent && conn.bytesRead === received && conn.bufferedAmount === 0) return
  const { bytesRead, bytesWritten, bufferedAmount } = conn
  throw new Error(
    `bytesRead ${bytesRead}, bytesWritten ${bytesWritten}, bufferedAmount ${bufferedAmount}: ` +
      `wanted ${received}, ${sent}, 0`,
  )
}

/**
 * @param {Session} session
 * @param {number} most bytes
 * @param {(conn: Conn, checker: Checker) => Promise<void>} receive
 */
async function echoBy(session, most, receive) {
  const conn = session.owns(await dial({ ...session.place, ...OPTIONS }))
  const offset = offsetOf(session)
  const length = session.random.size(1, most)
  const checker = new Checker(offset, length)
  conn.write(header(Command.Echo, offset, length, true))
  await Promise.all([send(session, conn, { offset, length }), receive(conn, checker)])
  checker.finish()
  await expectEnd(conn, { sent: HEADER_BYTES + length, received: length })
}

/** @param {Session} session */
export function dialedEcho(session) {
  return echoBy(session, SMALL_BYTES, iterate.bind(undefined, session))
}

/** @param {Session} session */
export function dialedBigEcho(session) {
  return echoBy(session, BIG_BYTES, iterate.bind(undefined, session))
}

/**
 * @param {Session} session
 * @param {Conn} conn
 * @param {Checker} checker
 */
async function iterate(session, conn, checker) {
  for await (const chunk of conn) take(session, checker, chunk)
}

/** With read() into buffers of one byte and more. @param {Session} session */
export function dialedReader(session) {
  const size = session.random.pick(READ_SIZES)
  const into = Buffer.alloc(size)
  return echoBy(session, Math.min(size * 2000, SMALL_BYTES), async (conn, checker) => {
    for (let count = await conn.read(into); count !== null; count = await conn.read(into)) {
      take(session, checker, into.subarray(0, count))
    }
  })
}

/** Deadlines that pass harm nothing. @param {Session} session */
export function dialedDeadlines(session) {
  const { random } = session
  return echoBy(session, 20_000, async (conn, checker) => {
    const into = Buffer.alloc(5000)
    for (;;) {
      conn.setReadDeadline(random.chance(0.1) ? 1 : Date.now() + random.int(0, 3))
      try {
        const count = await conn.read(into)
        if (count === null) return
        take(session, checker, into.subarray(0, count))
      } catch (error) {
        if (!(error instanceof NetError) || error.code !== 'ERR_DEADLINE_EXCEEDED') throw error
      }
    }
  })
}

/** With event handlers, which pause at random. @param {Session} session */
export async function dialedEvents(session) {
  const { random } = session
  const offset = offsetOf(session)
  const length = random.size(1, 1 << 20)
  const checker = new Checker(offset, length)
  let sent = 0
  let ended = false
  const pump = (/** @type {Conn} */ conn) => {
    while (sent < length) {
      const bytes = Math.min(random.size(1, PIECE_MAX), length - sent)
      const piece = pattern(offset + sent, bytes)
      sent += bytes
      if (!conn.write(piece)) return
    }
    conn.closeWrite()
  }
  const conn = await dial(
    { ...session.place, ...OPTIONS },
    {
      open(conn) {
        conn.write(header(Command.Echo, offset, length, true))
        pump(conn)
      },
      data(conn, chunk) {
        take(session, checker, chunk)
        if (!random.chance(0.05)) return
        conn.pause()
        setTimeout(() => conn.resume(), random.int(0, 5))
      },
      drain(conn) {
        if (conn.state === 'open') pump(conn)
      },
      end() {
        ended = true
      },
    },
  )
  session.owns(conn)
  await conn.closed
  checker.finish()
  if (!ended) throw new Error('no `end` came')
  await expectEnd(conn, { sent: HEADER_BYTES + length, received: length })
}

/** @param {Session} session */
export async function dialedSink(session) {
  const conn = session.owns(await dial({ ...session.place, ...OPTIONS }))
  const offset = offsetOf(session)
  const length = session.random.size(1, 4 << 20)
  conn.write(header(Command.Sink, offset, length, true))
  /** @type {Buffer[]} */
  const answer = []
  const receive = async () => {
    for await (const chunk of conn) answer.push(chunk)
  }
  await Promise.all([send(session, conn, { offset, length }), receive()])
  await expectEnd(conn, { sent: HEADER_BYTES + length, received: ANSWER_BYTES })
  expectAnswer(session, Buffer.concat(answer), length)
}

/** Ends in the middle, in any way there is. Whatever comes of it is right, as long as it is a NetError. @param {Session} session */
export async function dialedRude(session) {
  const { random } = session
  const controller = new AbortController()
  const hurried = random.chance(0.3)
  if (hurried) setImmediate(() => controller.abort())
  /** @type {Conn | undefined} */
  let conn
  try {
    conn = session.owns(await dial({ ...session.place, ...OPTIONS, lingerMs: 200, signal: controller.signal }))
    const length = random.size(1, 4 << 20)
    conn.write(header(random.pick([Command.Echo, Command.Source, Command.Sink]), 0, length))
    const most = random.int(0, length)
    for (let sent = 0; sent < most; sent += PIECE_MAX) conn.write(pattern(sent, Math.min(PIECE_MAX, most - sent)))
    if (random.chance(0.5)) await conn.read(Buffer.alloc(random.size(1, 10_000)))
    if (random.chance(0.3)) conn.closeWrite()
    await sleep(random.int(0, 30))
  } catch (error) {
    const expected = error instanceof NetError || (hurried && /** @type {Error} */ (error).name === 'AbortError')
    if (!expected) throw error
  }
  if (random.chance(0.5)) conn?.abort()
  else conn?.close()
  session.step = 'has ended its connection and waits for `closed`'
  await conn?.closed
}
