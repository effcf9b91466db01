// @ts-check
// Well-behaved clients on node:net, some of them slow. Every byte that they are owed must come, once and in order, and
// their connections must end in order.
import { setTimeout as sleep } from 'node:timers/promises'
import { Checker, PIECE_MAX, pattern } from './pattern.mjs'
import { ANSWER_BYTES, Command, header } from './protocol.mjs'
import { gone, until } from './session.mjs'

/** @import net from 'node:net' */
/** @import { Session } from './session.mjs' */

const SMALL_BYTES = 256 * 1024
const BIG_BYTES = 24 << 20
const ECHOES = [Command.Echo, Command.Echo, Command.AsyncEcho, Command.LateEcho]

/** @param {Session} session */
export function offsetOf({ random }) {
  return random.int(0, 2 ** 30)
}

/**
 * Reads to the end of the stream.
 * @param {Session} session
 * @param {net.Socket} socket
 * @param {Checker} checker
 * @param {() => number} [restMs] pause after each chunk
 */
async function receive(session, socket, checker, restMs) {
  socket.on('data', (chunk) => {
    const { position } = checker
    try {
      checker.take(chunk)
    } catch (error) {
      socket.destroy(/** @type {Error} */ (error))
    }
    session.verifiedBytes += checker.position - position
    session.step = `has received ${checker.position} of ${checker.length} bytes`
    if (restMs === undefined) return
    socket.pause()
    setTimeout(() => socket.resume(), restMs())
  })
  await until(socket, 'end')
  checker.finish()
}

/**
 * @param {Session} session
 * @param {net.Socket} socket
 * @param {{ offset: number, length: number, pieceMax?: number }} stream
 */
async function send({ random }, socket, { offset, length, pieceMax = PIECE_MAX }) {
  for (let sent = 0; sent < length; ) {
    const bytes = Math.min(random.size(1, pieceMax), length - sent)
    const more = socket.write(pattern(offset + sent, bytes))
    sent += bytes
    if (!more) await until(socket, 'drain')
    else if (random.chance(0.1)) await sleep(random.int(0, 5))
  }
}

/**
 * @param {Session} session
 * @param {{ command: string, length: number, pieceMax?: number, restMs?: () => number }} wish
 */
async function exchange(session, { command, length, pieceMax, restMs }) {
  const socket = session.socket()
  await until(socket, 'connect')
  const offset = offsetOf(session)
  const checker = new Checker(offset, length)
  const received = receive(session, socket, checker, restMs)
  const sent = (async () => {
    socket.write(header(command, offset, length, true))
    if (command !== Command.Source) await send(session, socket, { offset, length, pieceMax })
    else await received.catch(() => {}) // the FIN comes last
    socket.end()
  })()
  await Promise.all([received, sent])
  await until(socket, 'close')
}

/** @param {Session} session */
export function echo(session) {
  const { random } = session
  return exchange(session, { command: random.pick(ECHOES), length: random.size(1, SMALL_BYTES) })
}

/** @param {Session} session */
export function bigEcho(session) {
  return exchange(session, { command: Command.Echo, length: session.random.size(BIG_BYTES / 8, BIG_BYTES) })
}

/** @param {Session} session */
export function source(session) {
  return exchange(session, { command: Command.Source, length: session.random.size(1, 4 << 20) })
}

/** Takes what it is sent in pieces, with pauses: the server's queue fills, and its handlers pause. @param {Session} session */
export function slowReader(session) {
  const { random } = session
  const command = random.pick([Command.Echo, Command.Source])
  return exchange(session, { command, length: random.size(200_000, 3 << 20), restMs: () => random.int(20, 80) })
}

/** One byte at a time. @param {Session} session */
export async function dribbler(session) {
  const { random } = session
  const socket = session.socket()
  await until(socket, 'connect')
  const offset = offsetOf(session)
  const length = random.int(20, 150)
  const checker = new Checker(offset, length)
  const received = receive(session, socket, checker)
  const head = header(random.pick(ECHOES), offset, length, true)
  const bytes = Buffer.concat([head, pattern(offset, length)])
  const sent = (async () => {
    for (let at = 0; at < bytes.length; at++) {
      socket.write(bytes.subarray(at, at + 1))
      await sleep(random.int(0, 20))
    }
    socket.end()
  })()
  await Promise.all([received, sent])
  await until(socket, 'close')
}

/** Question and answer. @param {Session} session */
export async function pingPong(session) {
  const { random } = session
  const socket = session.socket()
  await until(socket, 'connect')
  const offset = offsetOf(session)
  const rounds = random.size(2, 300)
  const bytes = random.size(1, 16_000)
  const length = rounds * bytes
  const checker = new Checker(offset, length)
  /** @type {() => void} */
  let onAnswer = () => {}
  const received = receive(session, socket, checker)
  socket.on('data', () => onAnswer())
  socket.write(header(Command.Echo, offset, length, true))
  for (let round = 0; round < rounds; round++) {
    const answered = new Promise((resolve) => {
      onAnswer = () => checker.position >= (round + 1) * bytes && resolve(undefined)
    })
    socket.write(pattern(offset + round * bytes, bytes))
    await Promise.race([answered, received])
  }
  socket.end()
  await received
  await until(socket, 'close')
}

/** Everything and the FIN at once, before the connection is there. @param {Session} session */
export async function finWithData(session) {
  const { random } = session
  const offset = offsetOf(session)
  const length = random.size(1, PIECE_MAX)
  const socket = session.socket()
  socket.write(header(random.pick(ECHOES), offset, length, true))
  socket.end(pattern(offset, length))
  await receive(session, socket, new Checker(offset, length))
  await until(socket, 'close')
}

/** The server checks. @param {Session} session */
export async function sink(session) {
  const { random } = session
  const offset = offsetOf(session)
  const length = random.size(1, 4 << 20)
  const socket = session.socket()
  await until(socket, 'connect')
  /** @type {Buffer[]} */
  const answer = []
  socket.on('data', (chunk) => answer.push(chunk))
  const ended = until(socket, 'end')
  socket.write(header(Command.Sink, offset, length, true))
  await Promise.race([send(session, socket, { offset, length }), ended])
  socket.end()
  session.step = `has sent ${length} bytes and waits for the answer`
  await ended
  await until(socket, 'close')
  expectAnswer(session, Buffer.concat(answer), length)
}

/**
 * @param {Session} session
 * @param {Buffer} answer
 * @param {number} length
 */
export function expectAnswer(session, answer, length) {
  if (answer.length !== ANSWER_BYTES) throw new Error(`the sink answered with ${answer.length} bytes`)
  const count = answer.readUInt32BE()
  if (count !== length) throw new Error(`the sink got ${count} of ${length} bytes`)
  session.verifiedBytes += length
}

/** Many connections in one moment, each with a few bytes. @param {Session} session */
export async function burst(session) {
  const { random } = session
  const places = Array.from({ length: random.int(30, 150) }, offsetOf.bind(undefined, session))
  await Promise.all(
    places.map(async (offset) => {
      const length = 1 + (offset % 900)
      const socket = session.socket()
      socket.write(header(Command.Echo, offset, length, true))
      socket.end(pattern(offset, length))
      await receive(session, socket, new Checker(offset, length))
      await gone(socket)
    }),
  )
}
