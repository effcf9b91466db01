// @ts-check
// Clients as nobody wants them. What they get does not matter; that the server is rid of them in time does.
import { setTimeout as sleep } from 'node:timers/promises'
import { PIECE_MAX, pattern } from './pattern.mjs'
import {
  Command,
  HEADER_BYTES,
  header,
  LINGER_MS,
  PATIENCE_MS,
  QUEUE_MAX_BYTES,
  SLACK_MS,
  STALL_MS,
} from './protocol.mjs'
import { gone, until } from './session.mjs'

/** @import net from 'node:net' */
/** @import { Place } from './protocol.mjs' */
/** @import { Session } from './session.mjs' */

// More than the kernel's buffers of both sides hold together, so that a reader that stalls stalls the server, too.
const ENDLESS_BYTES = 64 << 20
const HOGS = 24 // together more than the server's pool holds

/**
 * @param {Session} session
 * @param {Place} [place]
 * @returns {Promise<net.Socket | undefined>} undefined: the server has ended it already, which is its right
 */
async function connect(session, place) {
  const socket = session.socket(place)
  try {
    await until(socket, 'connect')
    // Where there is no RST, an abort looks like an orderly end, too.
    socket.on('end', () => socket.end())
    return socket
  } catch {
    return undefined
  }
}

/**
 * With RST where there is one.
 * @param {Session} session
 * @param {net.Socket} socket
 */
async function reset({ isUnix }, socket) {
  if (socket.destroyed) return
  if (isUnix) socket.destroy()
  else socket.resetAndDestroy()
  await gone(socket)
}

/** RST in the middle of an echo. @param {Session} session */
export async function resetter(session) {
  const { random } = session
  const socket = await connect(session)
  if (socket === undefined) return
  if (random.chance(0.5)) socket.resume()
  socket.write(header(random.pick([Command.Echo, Command.AsyncEcho, Command.LateEcho, Command.Sink]), 0, 2 ** 31))
  let sent = 0
  for (let pieces = random.int(0, 20); pieces > 0 && !socket.destroyed; pieces--) {
    const bytes = random.size(1, PIECE_MAX)
    socket.write(pattern(sent, bytes))
    sent += bytes
    if (random.chance(0.3)) await sleep(random.int(0, 5))
  }
  await reset(session, socket)
}

/** Gone before anything was said, or before the connection was there. @param {Session} session */
export async function hasty(session) {
  const { random } = session
  const socket = session.socket()
  if (random.chance(0.5)) await until(socket, 'connect').catch(() => {})
  else await sleep(random.int(0, 1))
  if (random.chance(0.5) && !socket.connecting) await reset(session, socket)
  socket.destroy()
  await gone(socket)
}

/** Orders much, reads nothing, vanishes with it unread. @param {Session} session */
export async function vanisher(session) {
  const socket = await connect(session)
  if (socket === undefined) return
  socket.write(header(Command.Source, 0, ENDLESS_BYTES))
  await sleep(session.random.int(0, 500))
  socket.destroy()
  await gone(socket)
}

/** Sends FIN with its data and does not wait for the answer. @param {Session} session */
export async function runaway(session) {
  const { random } = session
  const socket = await connect(session)
  if (socket === undefined) return
  socket.write(header(random.pick([Command.Echo, Command.LateEcho, Command.Source]), 0, 100_000))
  socket.end(pattern(0, random.size(1, PIECE_MAX)))
  await sleep(random.int(0, 10))
  socket.destroy()
  await gone(socket)
}

/** @param {Session} session */
export async function garbler(session) {
  const { random } = session
  const socket = await connect(session)
  if (socket === undefined) return
  socket.resume()
  const bytes = Buffer.alloc(random.size(1, PIECE_MAX))
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.int(0, 255)
  bytes[0] |= 0x80 // is no command
  if (bytes.length >= HEADER_BYTES) bytes[HEADER_BYTES - 1] = 0 // and not well-behaved
  socket.write(bytes)
  if (random.chance(0.5)) socket.end()
  else await sleep(random.int(0, 20))
  socket.end()
  await gone(socket)
}

/** One byte at a time, up to anywhere in the header or behind it; then RST. @param {Session} session */
export async function stutterer(session) {
  const { random } = session
  const socket = await connect(session)
  if (socket === undefined) return
  const bytes = Buffer.concat([header(Command.Echo, 0, 100), pattern(0, 20)])
  for (let at = 0; at < random.int(1, bytes.length) && !socket.destroyed; at++) {
    socket.write(bytes.subarray(at, at + 1))
    await sleep(random.int(0, 4))
  }
  await reset(session, socket)
}

/** Makes the handler or the task throw: its connection is lost. @param {Session} session */
export async function thrower(session) {
  const socket = await connect(session)
  if (socket === undefined) return
  socket.resume()
  socket.write(header(Command.Throw))
  await gone(socket)
}

/** Connects, and that was all: the server must not wait for ever. @param {Session} session */
export async function mute(session) {
  const socket = await connect(session)
  if (socket === undefined) return
  const begun = Date.now()
  socket.resume()
  if (session.random.chance(0.5)) socket.write('E')
  session.step = 'waits for the server to give a silent client up'
  await gone(socket)
  const waited = Date.now() - begun
  if (waited > PATIENCE_MS + LINGER_MS + SLACK_MS) throw new Error(`a silent client was given up after ${waited} ms`)
  if (waited < PATIENCE_MS / 2) throw new Error(`a silent client was given up after ${waited} ms already`)
}

/** Orders much, and stops reading: the server must give it up. @param {Session} session */
export async function staller(session) {
  const socket = await connect(session)
  if (socket === undefined) return
  let received = 0
  socket.on('data', (chunk) => {
    received += chunk.length
  })
  socket.pause()
  socket.write(header(Command.Source, 0, ENDLESS_BYTES))
  // A socket that does not read does not notice its end. By now there is nothing at the other side any more.
  await sleep(STALL_MS)
  session.step = 'has stalled for long enough and reads what is left'
  socket.resume()
  await gone(socket)
  if (received >= ENDLESS_BYTES) throw new Error('a reader that had stalled got everything')
}

/**
 * Many at once whose output fills the server's pool: it must give up these, and nobody else. Over Unix sockets, whose
 * kernel buffers are small: those of TCP would swallow all of it.
 * @param {Session} session
 */
export async function hogs(session) {
  const { random } = session
  const { place } = random.pick(session.places.filter(({ place }) => 'path' in place))
  await Promise.all(
    Array.from({ length: HOGS }, async () => {
      const socket = await connect(session, place)
      if (socket === undefined) return
      socket.write(header(Command.Hog, 0, random.int(QUEUE_MAX_BYTES * 0.7, QUEUE_MAX_BYTES * 1.2)))
      await sleep(random.int(500, 2000))
      if (random.chance(0.5)) socket.resume()
      await sleep(random.int(0, 500))
      socket.destroy()
      await gone(socket)
    }),
  )
}
