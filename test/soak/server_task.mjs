// @ts-check
// The server's side of a connection, in blocking style: by read() or by iteration.
import { setTimeout as sleep } from 'node:timers/promises'
import { Checker, PIECE_MAX, pattern } from './pattern.mjs'
import { ANSWER_BYTES, Command, HEADER_BYTES, ON_PURPOSE, PATIENCE_MS, parseHeader } from './protocol.mjs'
import { Random } from './random.mjs'
import { HOG_WRITE_BYTES, isWritable } from './server_events.mjs'
import { violation } from './worker.mjs'

/** @import { Conn } from 'edgewire' */
/** @import { Wish } from './protocol.mjs' */
/** @import { Book } from './server.mjs' */

const HEAD_READ_BYTES = 5 // the header comes in pieces on purpose
const READ_SIZES = [700, 4096, 16_384, 40_000, 65_536]

/**
 * @typedef {object} Manner
 * @property {'read' | 'iterate'} style
 * @property {boolean} deadlines
 * @property {Book} book
 * @property {{ wish?: Wish }} progress what the connection wants, once that is known
 */

/**
 * Throws what the network did; returns when the connection may be closed.
 * @param {Conn} conn
 * @param {Manner} manner
 */
export async function converse(conn, { style, deadlines, book, progress }) {
  const input = new Input(conn, style, deadlines, book)
  const output = new Output(conn, deadlines)
  const head = await input.head()
  if (head === undefined) return
  const wish = parseHeader(head)
  const { command, offset, length } = wish
  progress.wish = wish
  const random = new Random(offset, length)
  input.readBytes = random.pick(READ_SIZES)
  switch (command) {
    case Command.Echo:
    case Command.AsyncEcho:
    case Command.LateEcho:
      for (let chunk = await input.next(); chunk !== null; chunk = await input.next()) {
        if (command === Command.LateEcho) await sleep(1)
        await output.send(chunk)
      }
      return
    case Command.Source:
      for (let sent = 0; sent < length; ) {
        const bytes = Math.min(random.size(1000, PIECE_MAX), length - sent)
        await output.send(pattern(offset + sent, bytes))
        sent += bytes
      }
      if (random.chance(0.5)) await output.flushed()
      return
    case Command.Sink:
      return sink(input, output, new Checker(offset, length))
    case Command.Hog:
      for (let left = length; left > 0 && isWritable(conn); left -= HOG_WRITE_BYTES) {
        conn.write(pattern(left, Math.min(left, HOG_WRITE_BYTES)))
      }
      await output.flushed()
      return
    case Command.Throw:
      book.thrown++
      throw new Error(ON_PURPOSE)
  }
}

/**
 * @param {Input} input
 * @param {Output} output
 * @param {Checker} checker
 */
async function sink(input, output, checker) {
  for (let chunk = await input.next(); chunk !== null; chunk = await input.next()) {
    try {
      checker.take(chunk)
    } catch (error) {
      violation(`sink, ${input.style}: ${/** @type {Error} */ (error).message}`)
      return
    }
  }
  if (!checker.complete) return
  const answer = Buffer.alloc(ANSWER_BYTES)
  answer.writeUInt32BE(checker.position)
  await output.send(answer)
}

/** Chunks, whichever way they are read. A chunk is valid until the next one is asked for. */
class Input {
  readBytes = HEAD_READ_BYTES
  #into = Buffer.alloc(0)
  #chunks
  #conn
  #deadlines
  #book
  /** @type {Buffer | undefined} what came with the header */
  #rest

  /**
   * @param {Conn} conn
   * @param {'read' | 'iterate'} style
   * @param {boolean} deadlines
   * @param {Book} book
   */
  constructor(conn, style, deadlines, book) {
    this.#conn = conn
    this.style = style
    this.#deadlines = deadlines
    this.#book = book
    this.#chunks = style === 'iterate' ? conn[Symbol.asyncIterator]() : undefined
  }

  /** @returns {Promise<Buffer | null>} null: FIN */
  async next() {
    const rest = this.#rest
    this.#rest = undefined
    if (rest !== undefined && rest.length > 0) return rest
    if (this.#deadlines) this.#conn.setReadDeadline(Date.now() + PATIENCE_MS)
    const chunk = await this.#read()
    if (chunk !== null) this.#book.messages++
    return chunk
  }

  async #read() {
    if (this.#chunks !== undefined) {
      const { done, value } = await this.#chunks.next()
      return done ? null : value
    }
    if (this.#into.length !== this.readBytes) this.#into = Buffer.allocUnsafeSlow(this.readBytes)
    const count = await this.#conn.read(this.#into)
    return count === null ? null : this.#into.subarray(0, count)
  }

  /** @returns {Promise<Buffer | undefined>} undefined: FIN came before it was complete */
  async head() {
    let head = Buffer.alloc(0)
    while (head.length < HEADER_BYTES) {
      const chunk = await this.next()
      if (chunk === null) return undefined
      head = Buffer.concat([head, chunk])
    }
    this.#rest = head.subarray(HEADER_BYTES)
    return head.subarray(0, HEADER_BYTES)
  }
}

class Output {
  #conn
  #deadlines

  /**
   * @param {Conn} conn
   * @param {boolean} deadlines
   */
  constructor(conn, deadlines) {
    this.#conn = conn
    this.#deadlines = deadlines
  }

  /** @param {Uint8Array} bytes */
  async send(bytes) {
    this.#setDeadline()
    if (!this.#conn.write(bytes)) await this.#conn.drained()
  }

  async flushed() {
    this.#setDeadline()
    await this.#conn.flushed()
  }

  #setDeadline() {
    if (this.#deadlines) this.#conn.setWriteDeadline(Date.now() + PATIENCE_MS)
  }
}
