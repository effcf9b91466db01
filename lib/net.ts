// The API: every interface with its contract. The classes behind them are in conn.ts and listener.ts.

import type { NetError } from './errors.js'
import type { LookupFn, Resolver } from './names.js'

/** Bytes or text that a connection can send. Text is sent as UTF-8. */
export type Writable = string | Uint8Array | ArrayBuffer | DataView

/**
 * `dialing`: not connected yet, writes queue up. `open`: both directions. `read-closed`: the peer has sent its FIN, so
 * reads give what came before it and then null; writing goes on. `write-closed`: closeWrite() was called, reading goes
 * on. `closing`: close() was called, or both sides have sent their FIN. `closed`: over.
 */
export type ConnState = 'dialing' | 'open' | 'read-closed' | 'write-closed' | 'closing' | 'closed'

/** A point in time: a Date or epoch milliseconds as Date.now() gives them. null: none. */
export type Deadline = Date | number | null

/** What happens to a write that would raise `bufferedAmount` above `maxBufferedBytes`. */
export type Overflow =
  /** The connection is aborted with ERR_BUFFER_OVERFLOW, which its `close` handler and pending calls get; write() returns
   *  false until then. The default. */
  | 'abort'
  /** write() throws ERR_BUFFER_OVERFLOW; nothing of that write is sent. */
  | 'throw'
  /** write() returns false; nothing of that write is sent, and `overflowDrops` in the stats goes up. `drain` follows only
   *  if more than lowWaterMark bytes are queued. */
  | 'drop'

/** Settings of a connection, given to listen() for all of its connections or to dial(). */
export interface ConnOptions {
  /** Send small writes at once (TCP_NODELAY). Default true. */
  noDelay?: boolean
  /** write() returns false above this many queued bytes. Default 65,536. */
  highWaterMark?: number
  /** `drain` comes when the queue has fallen to this many bytes. Default: half of highWaterMark; at most that. */
  lowWaterMark?: number
  /** The most bytes that may be queued for a slow reader. Default 16,777,216, or highWaterMark when that is more. */
  maxBufferedBytes?: number
  /** What happens beyond maxBufferedBytes. Default 'abort'. */
  overflow?: Overflow
  /** Close a connection on which no byte moved for so long, milliseconds; 0: never. Default 0. */
  idleTimeoutMs?: number
  /** close() gives the peer this long to take what was written, milliseconds; then RST. Default 10,000. */
  lingerMs?: number
}

/** See ListenOptions.leakDetection. */
export interface LeakDetection {
  /** A connection on which no byte moves for so long is reported, once, milliseconds. At least 10. */
  openMs: number
}

export interface ListenOptions extends ConnOptions {
  /** An IP address, or a name for dns.lookup. Default '::' (which takes IPv4 too), or '0.0.0.0' without IPv6. */
  host?: string
  /** 0 to 65,535; 0: any free port, see Listener.port. */
  port?: number
  /** A Unix socket instead of host and port. A leading '\0' names an abstract socket (Linux). */
  path?: string
  /** A listening (or bound) stream socket that this process inherited, instead of host, port and path. Taken over. */
  fd?: number
  /** Connections that may wait to be accepted. Default 32,767, which the kernel cuts down to net.core.somaxconn. */
  backlog?: number
  /** With an IPv6 address: do not take IPv4 clients. Default false. */
  ipv6Only?: boolean
  /** Let several processes or threads listen on one port, SO_REUSEPORT. Default false. */
  reusePort?: boolean
  /** Closes the listener when it aborts; before that, listen() rejects with its reason. */
  signal?: AbortSignal
  /**
   * Reports connections that stay open and silent: a process warning with code EDGEWIRE_LEAK, whose detail is the stack of
   * the listen() call, or of the `for await` that took the connection (of one in 16; of all with EDGEWIRE_DEBUG=1), and
   * ListenerStats.leakSuspects. Nothing is closed: that is what deadlines and idleTimeoutMs are for. Default: off.
   */
  leakDetection?: LeakDetection
  /**
   * Gets what a handler or task threw, with its connection, which is aborted. Default: an uncaught exception. What the
   * network did (a NetError such as ECONNRESET or ERR_DEADLINE_EXCEEDED that a handler let through) is not reported here:
   * it arrives in `close` and Conn.closed.
   */
  onError?: (error: unknown, conn: Conn) => void
}

export interface DialOptions extends ConnOptions {
  /** An IP address, or a name for the resolver. Default 'localhost'. */
  host?: string
  /** 1 to 65,535. */
  port?: number
  /** A Unix socket instead of host and port. A leading '\0' names an abstract socket (Linux). */
  path?: string
  /** The local IP address and port to use. Only addresses of its family are tried. */
  localAddress?: string
  localPort?: number
  /** 4 or 6: only addresses of that family. Default 0: both. */
  family?: 0 | 4 | 6
  /** Gives up after so long, milliseconds, with ERR_DEADLINE_EXCEEDED; 0: when the system does. Default 0. */
  timeoutMs?: number
  /** Gives up on one address after so long, milliseconds; 0: when the system does. Default 0. */
  attemptTimeoutMs?: number
  /** The next address is tried after so long when the one before has not answered, milliseconds. 10 to 60,000;
   *  default 250. When it has failed, the next one is tried at once. */
  attemptDelayMs?: number
  /**
   * TCP Fast Open: the first bytes travel with the SYN to a server that has given this machine a cookie before. Such a
   * connection counts as open before anything has been sent; the first write() sends the SYN, so the client must be the
   * one who speaks first, and a server that does not answer shows itself only then. The network may deliver those first
   * bytes twice. Linux only; elsewhere, and without the kernel's consent, nothing happens. Default false.
   */
  fastOpen?: boolean
  /** Finds the addresses of names. Default: the thread's own, which all calls without this option share. */
  resolver?: Resolver
  /** Looks up the name of this call instead of a resolver; nothing is remembered. Not together with `resolver`. */
  lookup?: LookupFn
  /** Gives up with its reason when it aborts while dialing. */
  signal?: AbortSignal
}

/**
 * The fast way to serve: one object of functions for all connections. At least one of them must be there.
 *
 * A handler that throws, or returns a promise that rejects, loses its own connection (RST); the others are served on.
 */
export interface Handlers {
  /** A connection is there. */
  open?(conn: Conn): unknown
  /**
   * Bytes have come. **`chunk` is valid until the handler returns, or, if it returns a promise, until that settles**:
   * afterwards its memory holds other bytes. conn.retain(chunk) keeps it longer; Buffer.from(chunk) copies it.
   * `chunk.buffer` is memory that many connections share: never transfer() it.
   * Without this handler incoming bytes are read and dropped.
   */
  data?(conn: Conn, chunk: Buffer): unknown
  /** The peer has sent its FIN; all data before it has been delivered. Without this handler: conn.close(). */
  end?(conn: Conn): unknown
  /** `bufferedAmount` has fallen to the low watermark after write() returned false. Once per crossing. */
  drain?(conn: Conn): unknown
  /** A deadline has passed. Without this handler the connection is aborted with ERR_DEADLINE_EXCEEDED. */
  timeout?(conn: Conn, which: 'read' | 'write'): unknown
  /** Over: exactly once, and nothing after it. `error` is undefined after an orderly close. */
  close?(conn: Conn, error: NetError | undefined): unknown
}

/** A task per connection, in blocking style: when it returns, the connection is closed; when it throws, aborted. */
export type Task = (conn: Conn) => Promise<unknown>

/** One connection. Every method is safe to call at any time; what a closed connection cannot do throws a NetError. */
export interface Conn extends AsyncDisposable, AsyncIterable<Buffer> {
  /** Yours. Undefined at first. */
  // biome-ignore lint/suspicious/noExplicitAny: the user's own value, of the user's own type
  data: any

  /**
   * Reads 1 to into.length bytes into the start of `into` and resolves with their number, or with null at the peer's
   * FIN. Concurrent reads are served in order. After a failed read `into` is never touched.
   * Rejects with ERR_DEADLINE_EXCEEDED (the connection is unharmed), or with what ended the connection.
   */
  read(into: Uint8Array): Promise<number | null>
  /** Chunks that the caller owns, until the peer's FIN. Leaving the loop early closes the connection. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Buffer>

  /**
   * Takes all of `data`, or throws (but see `overflow`). Returns false from the moment that more than highWaterMark
   * bytes wait until the low watermark is reached: well-behaved callers then wait for drained() or the `drain` handler.
   * Writes of one turn of the event loop go out together, when its handlers, ticks and microtasks have run.
   *
   * Data is copied, with two exceptions that are sent from where they lie, so do not change them until flushed(): lent
   * chunks from 1 KiB on, and buffers from 32 KiB on. A buffer that was given to read() is safe as soon as the next
   * read() into it: what the kernel has not taken by then has been copied.
   */
  write(data: Writable): boolean
  /** Resolves when `bufferedAmount` is at or below the low watermark. Rejects as read() does. */
  drained(): Promise<void>
  /** Resolves when everything written so far is with the kernel. Rejects as read() does. */
  flushed(): Promise<void>

  /** Sends FIN after what is queued; reading goes on. */
  closeWrite(): void
  /** Sends what is queued, then FIN; pending reads fail, incoming bytes are dropped. Over when the peer has everything
   *  and has sent its FIN, for which it gets a second; bounded by `lingerMs`. */
  close(): void
  /** Ends at once with RST; what is queued is dropped. Pending operations fail with `reason`, later ones with a NetError
   *  (ERR_CONN_ABORTED, `reason` as its cause; or `reason` itself when it is one). */
  abort(reason?: Error): void
  /** Resolves when the connection is over, with what ended it or undefined. Never rejects. */
  readonly closed: Promise<NetError | undefined>

  /**
   * Deadlines are absolute, as in Go's net.Conn: they apply to pending and to future operations, and a passed one makes
   * them fail until it is moved or cleared. Setting one costs a store, so set it anew for every message.
   * With event handlers a passed deadline calls `timeout` once. setDeadline sets both. After close() none passes any more,
   * nor does the idle timeout: `lingerMs` is the bound then.
   */
  setDeadline(deadline: Deadline): void
  setReadDeadline(deadline: Deadline): void
  /** For write(), and for drained() and flushed() that have something to wait for. */
  setWriteDeadline(deadline: Deadline): void
  /** Closes the connection with ERR_IDLE_TIMEOUT when no byte has moved for so long, milliseconds; 0: never. */
  setIdleTimeout(ms: number): void

  /** Event handlers only: no `data` and no `end` until resume(). The kernel's window then stops the sender. */
  pause(): void
  resume(): void

  /**
   * Keeps the memory of a chunk lent by `data` (or of a part of it) after the handler has returned, until release().
   * Returns the chunk. A chunk may be retained several times, and is then released as often. **The lease ends with the
   * object that is returned**: when that is garbage-collected unreleased, its memory goes back to the pool, with a process
   * warning (code EDGEWIRE_LEASE); so keep the object itself, not only a part of it.
   */
  retain<T extends Uint8Array>(chunk: T): T
  /** Takes the retained object, a part of it, or the chunk that it is a part of. */
  release(chunk: Uint8Array): void

  /** Bytes written that the kernel has not taken yet. */
  readonly bufferedAmount: number
  /** The most that bufferedAmount may reach; see `overflow`. */
  maxBufferedBytes: number
  readonly state: ConnState
  readonly localAddress: string | undefined
  readonly localPort: number | undefined
  readonly remoteAddress: string | undefined
  readonly remotePort: number | undefined
  /** 'IPv4', 'IPv6' or 'unix'. */
  readonly remoteFamily: string | undefined
  /** Bytes read from the kernel. */
  readonly bytesRead: number
  /** Bytes that the kernel has taken. bytesWritten + bufferedAmount is what write() has taken, until the connection is
   *  over: then what was dropped counts no more. */
  readonly bytesWritten: number
  /** The listener that accepted it; undefined when it was dialed. */
  readonly listener: Listener | undefined

  setNoDelay(on?: boolean): this
  /** TCP keep-alive; the first probe after so long, milliseconds (in whole seconds, on Linux at most 32,767 of them; 0:
   *  the system's default). */
  setKeepAlive(on?: boolean, initialDelayMs?: number): this
  /**
   * Asks for a kernel receive buffer of so many bytes: SO_RCVBUF (socket(7)). Linux doubles the number, holds it to
   * net.core.rmem_max, and stops sizing the buffer by itself. Go calls it SetReadBuffer.
   */
  setRecvBufferSize(bytes: number): this
  /** The same for the send buffer: SO_SNDBUF, net.core.wmem_max; Go's SetWriteBuffer. */
  setSendBufferSize(bytes: number): this
  /** Keeps the process alive while the connection is open: the default. */
  ref(): this
  unref(): this
  /** close(), then waits until it is over. */
  [Symbol.asyncDispose](): Promise<void>
}

/** Counters of one listener. They only grow, but for `open`. */
export interface ListenerStats {
  accepted: number
  open: number
  closed: number
  /** Bytes read from its connections, and written to them, in all. */
  bytesRead: number
  bytesWritten: number
  /** accept(2) failed: EMFILE and the like. Accepting pauses and resumes by itself. */
  acceptErrors: number
  /** Connections aborted because their peer read too slowly (overflow: 'abort'). */
  overflowAborts: number
  /** Writes dropped or refused for the same reason (overflow: 'drop' and 'throw'). */
  overflowDrops: number
  /** Handlers and tasks that threw. */
  handlerErrors: number
  /** Connections reported by leakDetection. */
  leakSuspects: number
}

/** A listening socket. `for await (const conn of listener)` accepts when listen() was given neither task nor handlers. */
export interface Listener extends AsyncDisposable, AsyncIterable<Conn> {
  /** The address it listens on; an IP address, or the path of a Unix socket. */
  readonly address: string
  /** 0 for a Unix socket. */
  readonly port: number
  readonly family: 'IPv4' | 'IPv6' | 'unix'
  readonly listening: boolean
  /** The open connections that it accepted. Walks the table anew each time: not for every message. */
  readonly connections: Iterable<Conn>
  /** Stops accepting and frees the address; connections stay. Resolves at once; safe to call again. */
  close(): Promise<void>
  /** Stops accepting, then closes every connection and waits until they are over. */
  shutdown(): Promise<void>
  /** Connections as they come. Leaving the loop early closes the listener, and the connections that nobody has taken. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Conn>
  /** Cheap enough to read every second: it adds up the open connections. */
  stats(): ListenerStats
  ref(): this
  unref(): this
  /** shutdown(). */
  [Symbol.asyncDispose](): Promise<void>
}
