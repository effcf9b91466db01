// @ts-check
// The protocols that the JavaScript servers speak. All of them parse with this code, so what differs between them is how
// bytes come in and go out.
//
// Parsers keep the rest of a chunk, and keep it by copy: in edgewire a chunk is only lent until the handler returns.
// A chunk that ends with a request leaves no rest, and then nothing is copied.
import { Buffer } from 'node:buffer'

const MiB = 1024 * 1024

// ---- lines: `ECHO <payload>\n` is answered with `+<payload>\n` ------------------------------------------------------

const COMMAND = 'ECHO '
const LINE_MAX = COMMAND.length + 64 * 1024

/** Of one connection. The payload is ASCII, so that a chunk may be cut anywhere before it is decoded. */
export class LineParser {
  /** A request was wrong: answer what feed() returned, and close. */
  broken = false
  #rest = ''

  /**
   * @param {string} text what came, decoded as latin1 (the cheapest way to a string) or UTF-8
   * @returns {string} the replies to all requests that are complete now; '' when none is
   */
  feed(text) {
    let end = text.indexOf('\n')
    if (end < 0) return this.#keep(text)
    if (this.#rest !== '') {
      end += this.#rest.length
      text = this.#rest + text
      this.#rest = ''
    }
    let replies = ''
    let start = 0
    do {
      if (end - start > LINE_MAX || !text.startsWith(COMMAND, start)) return this.#refuse(replies)
      replies += `+${text.slice(start + COMMAND.length, end)}\n`
      start = end + 1
      end = text.indexOf('\n', start)
    } while (end >= 0)
    if (start < text.length) this.#rest = text.slice(start)
    return replies
  }

  /** Only new text is searched, so that a line that comes in many pieces costs no more than its length. */
  #keep(text) {
    this.#rest += text
    return this.#rest.length > LINE_MAX ? this.#refuse('') : ''
  }

  #refuse(replies) {
    if (this.broken) return ''
    this.broken = true
    this.#rest = ''
    return `${replies}-ERR\n`
  }
}

// ---- frames: uint32 big-endian length, payload; answered with the same frame ----------------------------------------

export const HEADER_BYTES = 4
const PAYLOAD_MAX = MiB

/** Of one connection. */
export class FrameParser {
  /** A length was out of range: answer what feed() returned, and close. */
  broken = false
  /** The frame that has begun in an earlier chunk; its payload is allocated once its length is known. */
  #header = Buffer.alloc(0)
  #headerFilled = 0
  /** @type {Buffer | undefined} */
  #payload
  #payloadFilled = 0

  /**
   * @param {Buffer} chunk
   * @returns {Buffer[]} the payloads of all frames that are complete now. Those that lie in `chunk` are parts of it.
   */
  feed(chunk) {
    /** @type {Buffer[]} */
    const payloads = []
    let at = this.#headerFilled > 0 ? this.#resume(chunk, payloads) : 0
    while (chunk.length - at >= HEADER_BYTES && !this.broken) {
      const length = chunk.readUInt32BE(at)
      const end = at + HEADER_BYTES + length
      if (length === 0 || length > PAYLOAD_MAX) {
        this.broken = true
      } else if (end <= chunk.length) {
        payloads.push(chunk.subarray(at + HEADER_BYTES, end))
        at = end
      } else {
        break
      }
    }
    if (at < chunk.length && !this.broken) this.#begin(chunk, at)
    return payloads
  }

  #begin(chunk, at) {
    if (this.#header.length === 0) this.#header = Buffer.alloc(HEADER_BYTES)
    this.#fill(chunk, at)
  }

  /** Returns where the next frame begins. */
  #resume(chunk, payloads) {
    const at = this.#fill(chunk, 0)
    if (this.#payload !== undefined && this.#payloadFilled === this.#payload.length) {
      payloads.push(this.#payload)
      this.#payload = undefined
      this.#headerFilled = 0
    }
    return at
  }

  /** Copies what belongs to the frame that has begun; returns the position behind it. */
  #fill(chunk, at) {
    const inHeader = chunk.copy(this.#header, this.#headerFilled, at)
    this.#headerFilled += inHeader
    at += inHeader
    if (this.#headerFilled < HEADER_BYTES) return at
    if (this.#payload === undefined) {
      const length = this.#header.readUInt32BE(0)
      if (length === 0 || length > PAYLOAD_MAX) {
        this.broken = true
        return at
      }
      this.#payload = Buffer.allocUnsafe(length)
      this.#payloadFilled = 0
    }
    const inPayload = chunk.copy(this.#payload, this.#payloadFilled, at)
    this.#payloadFilled += inPayload
    return at + inPayload
  }
}

/**
 * The frames of these payloads in one piece, for runtimes in which every write is a system call.
 * @param {Buffer[]} payloads
 */
export function encodeFrames(payloads) {
  let length = 0
  for (const payload of payloads) length += HEADER_BYTES + payload.length
  const frames = Buffer.allocUnsafe(length)
  let at = 0
  for (const payload of payloads) {
    at = frames.writeUInt32BE(payload.length, at)
    at += payload.copy(frames, at)
  }
  return frames
}

// ---- sink and source: 8 bytes big-endian, a count of bytes -----------------------------------------------------------

const COUNT_BYTES = 8

/** @param {number} count */
export function encodeCount(count) {
  const bytes = Buffer.alloc(COUNT_BYTES)
  bytes.writeBigUInt64BE(BigInt(count))
  return bytes
}

/** Of one connection. */
export class CountParser {
  #bytes = Buffer.alloc(COUNT_BYTES)
  #filled = 0

  /**
   * @param {Buffer} chunk
   * @returns {number | undefined} undefined while the count is incomplete
   */
  feed(chunk) {
    this.#filled += chunk.copy(this.#bytes, this.#filled)
    return this.#filled < COUNT_BYTES ? undefined : Number(this.#bytes.readBigUInt64BE())
  }
}

const PERIOD = 251

/** What `source` sends, again and again: byte i of the stream is i % 251, and the length is a multiple of that. */
export const PATTERN = Buffer.from(Uint8Array.from({ length: PERIOD * 1024 }, (_, at) => at % PERIOD))

/**
 * The next piece of a stream of which `left` bytes are missing.
 * @param {number} left
 */
export function nextPiece(left) {
  return left < PATTERN.length ? PATTERN.subarray(0, left) : PATTERN
}
