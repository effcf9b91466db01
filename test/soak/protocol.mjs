// @ts-check
// What client and server agree on. A connection begins with a header: command, offset of the pattern, length, and
// whether the client is well-behaved: then the server's side must end in order, too.

export const HEADER_BYTES = 10

/** What the client wants; one letter on the wire. */
export const Command = /** @type {const} */ ({
  /** Every byte back, in the plainest way. */
  Echo: 'E',
  /** The same, by a handler that returns a promise. */
  AsyncEcho: 'A',
  /** The same, some milliseconds later, from chunks that are retained. */
  LateEcho: 'L',
  /** `length` bytes of the pattern, at the reader's pace. */
  Source: 'S',
  /** Takes `length` bytes of the pattern until FIN and answers with their number, four bytes. */
  Sink: 'K',
  /** `length` bytes in small writes, whatever write() returns. */
  Hog: 'H',
  /** An exception in the handler or task. */
  Throw: 'X',
})

export const ANSWER_BYTES = 4

/**
 * @param {string} command
 * @param {number} [offset]
 * @param {number} [length]
 * @param {boolean} [polite]
 */
export function header(command, offset = 0, length = 0, polite = false) {
  const bytes = Buffer.alloc(HEADER_BYTES)
  bytes.write(command, 0, 'latin1')
  bytes.writeUInt32BE(offset, 1)
  bytes.writeUInt32BE(length, 5)
  bytes.writeUInt8(polite ? 1 : 0, 9)
  return bytes
}

/**
 * @typedef {object} Wish
 * @property {string} command
 * @property {number} offset
 * @property {number} length
 * @property {boolean} polite
 */

/**
 * @param {Buffer} bytes
 * @returns {Wish}
 */
export function parseHeader(bytes) {
  return {
    command: bytes.toString('latin1', 0, 1),
    offset: bytes.readUInt32BE(1),
    length: bytes.readUInt32BE(5),
    polite: bytes.readUInt8(9) === 1,
  }
}

/** How long the server waits for a peer that is silent or takes nothing, by idle timeout or by deadline. */
export const PATIENCE_MS = 8_000
/** lingerMs of the server: a slow reader has as long to take what its kernel and the server's hold. */
export const LINGER_MS = 10_000
/** On a busy machine the client may see the end of a connection so much later. */
export const SLACK_MS = 20_000
/** How long a client stalls: by then the server has given it up, wherever this process and the server were held up. */
export const STALL_MS = PATIENCE_MS + 8_000

export const SERVER_BUDGET_BYTES = 32 << 20
export const CLIENT_BUDGET_BYTES = 16 << 20
/** What the server queues for one peer. Sixteen hogs of this size fill the server's pool. */
export const QUEUE_MAX_BYTES = 2 << 20

export const ON_PURPOSE = 'thrown on purpose'

/**
 * @typedef {{ host: string, port: number } | { path: string }} Place where a listener listens
 */
