// @ts-check
// The server's side of a connection, as event handlers.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Checker, PIECE_MAX, pattern } from './pattern.mjs'
import { ANSWER_BYTES, Command, HEADER_BYTES, ON_PURPOSE, PATIENCE_MS, parseHeader } from './protocol.mjs'
import { Random } from './random.mjs'
import { violation } from './worker.mjs'

/** @import { Conn, Handlers, NetError } from 'edgewire' */
/** @import { Wish } from './protocol.mjs' */
/** @import { Book } from './server.mjs' */

const LATE_MS = 4
export const HOG_WRITE_BYTES = 2000 // is copied into the pool when the kernel does not take it

/**
 * @typedef {object} Setting
 * @property {boolean} deadlines read and write deadlines, set anew for every message; otherwise there is an idle timeout
 * @property {Book} book
 * @property {(wish: Wish | undefined, error: NetError | undefined) => void} ended
 */

/**
 * @param {Setting} setting
 * @returns {Handlers}
 */
export function handlersFor(setting) {
  return {
    open(conn) {
      if (conn.data !== undefined) violation('a connection was opened twice')
      conn.data = new Dialogue(conn, setting)
    },
    data(conn, chunk) {
      setting.book.messages++
      return conn.data.take(chunk)
    },
    end(conn) {
      conn.data.finish()
    },
    drain(conn) {
      conn.data.drain()
    },
    timeout(conn, which) {
      if (!setting.deadlines) violation(`a ${which} deadline passed that nobody set`)
      conn.abort()
    },
    close(conn, error) {
      conn.data.close()
      setting.ended(conn.data.wish, error)
    },
  }
}

class Dialogue {
  /** @type {Wish | undefined} */
  wish
  #conn
  #setting
  #head = Buffer.alloc(0)
  #sent = 0
  #random = new Random(1)
  /** Echoes that are not written yet. */
  #pending = 0
  /** @type {Buffer[]} retained */
  #late = []
  #ended = false
  #closed = false
  /** @type {Checker | undefined} */
  #checker

  /**
   * @param {Conn} conn
   * @param {Setting} setting
   */
  constructor(conn, setting) {
    this.#conn = conn
    this.#setting = setting
    this.#waitForInput()
  }

  #waitForInput() {
    if (!this.#setting.deadlines) return
    this.#conn.setReadDeadline(Date.now() + PATIENCE_MS)
    this.#conn.setWriteDeadline(null)
  }

  #waitForOutput() {
    if (!this.#setting.deadlines) return
    this.#conn.setReadDeadline(null)
    this.#conn.setWriteDeadline(Date.now() + PATIENCE_MS)
  }

  /** @param {Buffer} chunk */
  take(chunk) {
    if (this.#closed) violation('data after close')
    if (this.wish !== undefined) return this.#serve(this.wish.command, chunk)
    const rest = HEADER_BYTES - this.#head.length
    this.#head = Buffer.concat([this.#head, chunk.subarray(0, rest)])
    if (this.#head.length < HEADER_BYTES) return undefined
    this.wish = parseHeader(this.#head)
    this.#random = new Random(this.wish.offset, this.wish.length)
    this.#begin(this.wish)
    return chunk.length > rest ? this.#serve(this.wish.command, chunk.subarray(rest)) : undefined
  }

  /** @param {Wish} wish */
  #begin(wish) {
    switch (wish.command) {
      case Command.Source:
        this.#pump(wish)
        break
      case Command.Hog:
        this.#hog(wish)
        break
      case Command.Throw:
        this.#setting.book.thrown++
        throw new Error(ON_PURPOSE)
      case Command.Sink:
        this.#checker = new Checker(wish.offset, wish.length)
        break
    }
  }

  /**
   * @param {string} command
   * @param {Buffer} chunk
   * @returns {Promise<void> | undefined}
   */
  #serve(command, chunk) {
    const conn = this.#conn
    if (command !== Command.Source) this.#waitForInput()
    switch (command) {
      case Command.Echo:
        if (conn.write(chunk)) return undefined
        conn.pause()
        this.#waitForOutput()
        return undefined
      case Command.AsyncEcho:
        return this.#echoLater(chunk)
      case Command.LateEcho:
        this.#late.push(conn.retain(chunk))
        if (this.#pending++ === 0) setTimeout(() => this.#sendLate(), LATE_MS)
        return undefined
      case Command.Sink:
        this.#check(chunk)
        return undefined
      case Command.Source:
      case Command.Hog:
        return undefined // says more than it should: dropped
      default:
        // Garbage.
        if (this.#random.chance(0.5)) conn.abort()
        else conn.close()
        return undefined
    }
  }

  /** @param {Buffer} chunk lent until the promise settles */
  async #echoLater(chunk) {
    this.#pending++
    await nextTurn()
    this.#pending--
    if (!isWritable(this.#conn)) return
    this.#conn.write(chunk)
    if (this.#ended && this.#pending === 0) this.#conn.closeWrite()
  }

  #sendLate() {
    for (const chunk of this.#late.splice(0)) {
      if (isWritable(this.#conn)) this.#conn.write(chunk)
      this.#conn.release(chunk)
    }
    this.#pending = 0
    if (this.#ended && isWritable(this.#conn)) this.#conn.closeWrite()
  }

  /** @param {Buffer} chunk */
  #check(chunk) {
    try {
      this.#checker?.take(chunk)
    } catch (error) {
      violation(`sink, handlers: ${/** @type {Error} */ (error).message}`)
      this.#conn.abort()
    }
  }

  /** @param {Wish} wish */
  #pump({ offset, length }) {
    while (this.#sent < length) {
      const bytes = Math.min(this.#random.size(1000, PIECE_MAX), length - this.#sent)
      const piece = pattern(offset + this.#sent, bytes)
      this.#sent += bytes
      if (this.#conn.write(piece) || this.#sent === length) continue
      this.#waitForOutput()
      return
    }
    this.#conn.closeWrite()
    this.#waitForInput()
  }

  /** @param {Wish} wish */
  #hog({ length }) {
    this.#waitForOutput()
    for (let left = length; left > 0 && isWritable(this.#conn); left -= HOG_WRITE_BYTES) {
      this.#conn.write(pattern(left, Math.min(left, HOG_WRITE_BYTES)))
    }
  }

  drain() {
    if (this.#closed) violation('drain after close')
    if (this.wish?.command === Command.Source) {
      if (this.#sent < this.wish.length) this.#pump(this.wish)
    } else {
      this.#waitForInput()
      this.#conn.resume()
    }
  }

  finish() {
    if (this.#ended) violation('a second end')
    this.#ended = true
    if (this.#checker?.complete) {
      const answer = Buffer.alloc(ANSWER_BYTES)
      answer.writeUInt32BE(this.#checker.position)
      this.#conn.write(answer)
    }
    // A source goes on for a client that sends its FIN first.
    if (this.wish?.command === Command.Source && this.#sent < this.wish.length) return
    if (this.#pending === 0) this.#conn.closeWrite()
  }

  close() {
    if (this.#closed) violation('a second close')
    this.#closed = true
  }
}

/** @param {Conn} conn */
export function isWritable({ state }) {
  return state === 'open' || state === 'read-closed'
}
