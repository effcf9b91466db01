// One error class with stable codes, for everything that goes wrong on the network or in a call of this library.

import { getSystemErrorName } from 'node:util'

/** What was being done when it went wrong. */
export type Op =
  | 'listen'
  | 'accept'
  | 'dial'
  | 'resolve'
  | 'pool'
  | 'acquire'
  | 'release'
  | 'read'
  | 'write'
  | 'close'
  | 'option'
  | 'configure'

/** Codes of edgewire's own; a failure of the system carries the system's code ('ECONNRESET', 'EADDRINUSE', ...). */
export type OwnCode =
  /** An option, argument or address is of the wrong type or out of range. */
  | 'ERR_INVALID_ARG'
  /** A deadline passed; `timeout` is true and the connection is unharmed. */
  | 'ERR_DEADLINE_EXCEEDED'
  /** No byte moved for as long as the idle timeout says; `timeout` is true. */
  | 'ERR_IDLE_TIMEOUT'
  /** The call needs a connection that is not closed. */
  | 'ERR_CONN_CLOSED'
  /** The connection was aborted on this side. */
  | 'ERR_CONN_ABORTED'
  /** A write after closeWrite(). */
  | 'ERR_WRITE_CLOSED'
  /** Output would pass maxBufferedBytes. */
  | 'ERR_BUFFER_OVERFLOW'
  /** The call needs a listener that is not closed. */
  | 'ERR_LISTENER_CLOSED'
  /** The call needs a resolver that is not closed. */
  | 'ERR_RESOLVER_CLOSED'
  /** The pool is drained or draining. */
  | 'ERR_POOL_CLOSED'
  /** As many calls of acquire() wait as may wait. */
  | 'ERR_POOL_FULL'
  /** No address of the pool's upstreams can be reached. */
  | 'ERR_POOL_UPSTREAM'
  /** The lease was given back already. */
  | 'ERR_POOL_RELEASED'
  /** What was given back was not lent by this pool. */
  | 'ERR_POOL_FOREIGN'
  /** The call does not fit the connection's style (read() beside event handlers). */
  | 'ERR_WRONG_STYLE'
  /** Debug mode only: a chunk was written after the handler that it was lent to had returned. */
  | 'ERR_CHUNK_EXPIRED'
  /** release() of a chunk that is not retained. */
  | 'ERR_NOT_RETAINED'
  /** The addon could not be loaded on this platform, runtime or version. */
  | 'ERR_UNSUPPORTED_PLATFORM'

/** Where it happened; what is not known is left out. */
export interface ErrorPlace {
  op: Op
  /** 'tcp' or 'unix'. */
  network?: string | undefined
  /** '127.0.0.1:5000', '[::1]:5000' or a socket path. */
  local?: string | undefined
  remote?: string | undefined
}

export interface ErrorDetails {
  errno?: number | undefined
  value?: unknown
  timeout?: boolean
  cause?: unknown
  errors?: readonly NetError[]
}

/**
 * Every failure that edgewire reports. `code` is stable; `message` follows one grammar, as in Go's net.OpError:
 * `read tcp 127.0.0.1:5000->127.0.0.1:7000: connection reset by peer`.
 */
export class NetError extends Error {
  override readonly name = 'NetError'
  /** Stable: 'ECONNRESET', 'ERR_DEADLINE_EXCEEDED', ... See docs/errors.md. */
  readonly code: string
  /** What was being done. */
  readonly op: Op
  /** True when a deadline or a timeout is the reason: trying again later may work. */
  readonly timeout: boolean
  /** This side's address, `host:port` or a path, when it is known. */
  readonly localAddress: string | undefined
  /** The other side's address, `host:port` or a path, when it is known. */
  readonly remoteAddress: string | undefined
  /** The system's negative error number, when the system failed. */
  readonly errno: number | undefined
  /** The offending value, when an argument was wrong. */
  readonly value: unknown
  /** dial() with several addresses: what became of each that was tried, in the order of trying. Otherwise empty. */
  readonly errors: readonly NetError[]

  constructor(code: string, place: ErrorPlace, reason: string, details: ErrorDetails = {}) {
    super(`${describePlace(place)}: ${reason}`, 'cause' in details ? { cause: details.cause } : undefined)
    this.code = code
    this.op = place.op
    this.timeout = details.timeout ?? code === 'ETIMEDOUT'
    this.localAddress = place.local
    this.remoteAddress = place.remote
    this.errno = details.errno
    this.value = details.value
    this.errors = details.errors ?? []
  }
}

function describePlace(place: ErrorPlace): string {
  let text: string = place.op
  if (place.network !== undefined) text += ` ${place.network}`
  if (place.local && place.remote) return `${text} ${place.local}->${place.remote}`
  const one = place.local || place.remote
  return one ? `${text} ${one}` : text
}

// The words of strerror(3) for what sockets meet, so that a message reads the same on every system. Others say their
// code.
const reasons: Record<string, string> = {
  EACCES: 'permission denied',
  EADDRINUSE: 'address already in use',
  EADDRNOTAVAIL: 'cannot assign requested address',
  EAFNOSUPPORT: 'address family not supported',
  EAGAIN: 'resource temporarily unavailable',
  EBADF: 'bad file descriptor',
  ECONNABORTED: 'connection aborted',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset by peer',
  EFAULT: 'a buffer was detached or shrunk before it was sent',
  EHOSTUNREACH: 'no route to host',
  EINVAL: 'invalid argument',
  EISDIR: 'is a directory',
  EMFILE: 'too many open files in this process',
  ENAMETOOLONG: 'path too long for a Unix socket',
  ENETUNREACH: 'network is unreachable',
  ENFILE: 'too many open files in the system',
  ENOBUFS: 'the buffer pool is at its budget',
  ENOENT: 'no such file or directory',
  ENOMEM: 'out of memory',
  ENOTCONN: 'not connected',
  ENOTDIR: 'not a directory',
  ENOTSOCK: 'not a socket',
  EPERM: 'operation not permitted',
  EPIPE: 'broken pipe',
  EPROTOTYPE: 'not a stream socket',
  EROFS: 'read-only file system',
  ETIMEDOUT: 'timed out',
}

/** The words for a code of the system, or the code. */
export function describeCode(code: string): string {
  return reasons[code] ?? code
}

/** A failure of the system; `errno` positive or negative. */
export function systemError(errno: number, place: ErrorPlace): NetError {
  const number = -Math.abs(errno)
  const code = getSystemErrorName(number)
  return new NetError(code, place, describeCode(code), { errno: number })
}

/** A bad argument: thrown before anything has been opened or changed. */
export function invalidArgument(op: Op, reason: string, value: unknown): NetError {
  return new NetError('ERR_INVALID_ARG', { op }, `${reason}, got ${describeValue(value)}`, { value })
}

export function describeValue(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value)
  if (typeof value === 'function') return `function ${value.name || '(anonymous)'}`
  if (typeof value === 'object' && value !== null) {
    const name = value.constructor?.name
    return name === undefined || name === 'Object' ? 'an object' : `an instance of ${name}`
  }
  return typeof value === 'bigint' ? `${value}n` : String(value)
}
