// One end of a connection, as the properties see it. edgewire's Conn in task style satisfies it as it is; its event
// style and Node's net.Socket get there by way of a queue of what their `data` events bring.

import { type Conn, type ConnOptions, type Deadline, type Handlers, NetError } from 'edgewire'
import { KiB } from '../e2e/harness.ts'

/** Beyond this the queue asks its source to pause. */
const QueueBytesMax = 64 * KiB

/** What ended a connection, or made an operation fail. */
export type Failure = Error & { code?: string; timeout?: boolean }

export interface End {
  read(into: Uint8Array): Promise<number | null>
  write(data: string | Uint8Array): boolean
  drained(): Promise<void>
  flushed(): Promise<void>
  closeWrite(): void
  close(): void
  abort(): void
  setDeadline(deadline: Deadline): void
  setReadDeadline(deadline: Deadline): void
  setWriteDeadline(deadline: Deadline): void
  /** Over; never rejects. */
  readonly closed: Promise<Failure | undefined>
  readonly bufferedAmount: number
  readonly bytesWritten: number
  /** Events as they come, where the style has them. */
  readonly events?: Events
}

export interface Events {
  pause(): void
  resume(): void
  /** From now on chunks and the end go here instead of into the queue. The chunk is lent. */
  onData: ((chunk: Buffer) => void) | undefined
  readonly drains: number
  readonly ends: number
}

export interface Pipe {
  /** The dialing end. */
  a: End
  /** The accepted end. */
  b: End
}

export type Style = 'task' | 'events' | 'oracle'

/** Two connected ends; after the test they are ended and it is checked that nothing of them is left. */
export interface MakePipe {
  (options?: ConnOptions): Promise<Pipe>
  readonly style: Style
  readonly isTcp: boolean
}

export const failure = (code: string, reason: string, timeout = false): Failure =>
  Object.assign(new Error(reason), { code, timeout })

export const epochOf = (deadline: Deadline) =>
  deadline === null ? Number.POSITIVE_INFINITY : deadline instanceof Date ? deadline.getTime() : deadline

interface Reader {
  into: Uint8Array
  resolve(count: number | null): void
  reject(error: Failure): void
}

/** Chunks that have come, and readers that wait for them, served in order. */
export class ReadQueue {
  /** Epoch milliseconds: from then on readers are not served, until it is moved. */
  deadline = Number.POSITIVE_INFINITY
  private readonly readers: Reader[] = []
  private readonly chunks: Buffer[] = []
  private bytes = 0
  private ended = false
  private failed: Failure | undefined
  private paused = false

  constructor(private readonly source: { pause(): void; resume(): void }) {}

  /** Set, what has failed stays failed; what waits is not failed by this. */
  refuse: Failure | undefined

  read(into: Uint8Array): Promise<number | null> {
    return new Promise((resolve, reject) => {
      if (this.refuse !== undefined) return reject(this.refuse)
      this.readers.push({ into, resolve, reject })
      this.serve()
    })
  }

  /** A copy is made. */
  push(chunk: Buffer): void {
    this.chunks.push(Buffer.from(chunk))
    this.bytes += chunk.length
    this.serve()
    if (this.bytes > QueueBytesMax && !this.paused) {
      this.paused = true
      this.source.pause()
    }
  }

  end(): void {
    this.ended = true
    this.serve()
  }

  /** Over with an error: nothing is read any more. */
  fail(error: Failure): void {
    this.failed = error
    this.chunks.length = 0
    this.serve()
  }

  /** The readers that wait now fail. */
  expire(error: Failure): void {
    for (const reader of this.readers.splice(0)) reader.reject(error)
  }

  private serve(): void {
    while (this.readers.length > 0 && this.deadline > Date.now()) {
      const chunk = this.chunks[0]
      if (chunk === undefined) break
      const { into, resolve } = this.readers.shift() as Reader
      const count = chunk.copy(into)
      if (count === chunk.length) this.chunks.shift()
      else this.chunks[0] = chunk.subarray(count)
      this.bytes -= count
      resolve(count)
    }
    if (this.paused && this.bytes <= QueueBytesMax / 2) {
      this.paused = false
      this.source.resume()
    }
    if (this.chunks.length > 0) return
    if (this.failed !== undefined) this.expire(this.failed)
    else if (this.ended && this.deadline > Date.now()) {
      for (const reader of this.readers.splice(0)) reader.resolve(null)
    }
  }
}

/** An end whose bytes come as events: what the two have in common. */
export abstract class QueuedEnd {
  protected abstract readonly queue: ReadQueue
  abstract setReadDeadline(deadline: Deadline): void
  abstract setWriteDeadline(deadline: Deadline): void

  setDeadline(deadline: Deadline): void {
    this.setReadDeadline(deadline)
    this.setWriteDeadline(deadline)
  }

  protected stopReading(error: Failure): void {
    this.queue.refuse ??= error
    this.queue.expire(error)
  }
}

/** edgewire with event handlers. */
export class EventEnd extends QueuedEnd implements End, Events {
  onData: ((chunk: Buffer) => void) | undefined
  drains = 0
  ends = 0
  /** How often `close` was told. */
  closes = 0
  /** How often `timeout` was told of the read deadline. */
  timeouts = 0
  readonly closed: Promise<Failure | undefined>
  protected readonly queue: ReadQueue
  private expired: Failure | undefined
  private over!: (error: Failure | undefined) => void

  constructor(readonly conn: Conn) {
    super()
    this.queue = new ReadQueue({
      pause: () => conn.state !== 'closed' && conn.pause(),
      resume: () => conn.resume(),
    })
    this.closed = new Promise((resolve) => {
      this.over = resolve
    })
  }

  get events(): Events {
    return this
  }

  /** For listen() or dial(). */
  static handlers(opened: (end: EventEnd) => void): Handlers {
    const endOf = (conn: Conn) => conn.data as EventEnd
    return {
      open(conn) {
        conn.data = new EventEnd(conn)
        opened(conn.data)
      },
      data(conn, chunk) {
        const end = endOf(conn)
        if (end.onData === undefined) end.queue.push(chunk)
        else end.onData(chunk)
      },
      end(conn) {
        endOf(conn).ends++
        endOf(conn).queue.end()
      },
      drain(conn) {
        endOf(conn).drains++
      },
      timeout(conn, which) {
        if (which === 'read') endOf(conn).readDeadlinePassed()
      },
      close(conn, error) {
        endOf(conn).wasClosed(error)
      },
    }
  }

  /** Told once: it holds until the deadline is moved. */
  private readDeadlinePassed(): void {
    this.timeouts++
    this.expired = failure('ERR_DEADLINE_EXCEEDED', 'deadline exceeded', true)
    this.queue.expire(this.expired)
  }

  private wasClosed(error: NetError | undefined): void {
    this.closes++
    // An orderly end without `end` came by close(): read() says so already.
    if (error !== undefined) this.queue.fail(error)
    this.over(error)
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.expired === undefined ? this.queue.read(into) : Promise.reject(this.expired)
  }

  write(data: string | Uint8Array): boolean {
    return this.conn.write(data)
  }

  drained(): Promise<void> {
    return this.conn.drained()
  }

  flushed(): Promise<void> {
    return this.conn.flushed()
  }

  closeWrite(): void {
    this.conn.closeWrite()
  }

  close(): void {
    this.conn.close()
    this.stopReading(new NetError('ERR_CONN_CLOSED', { op: 'read' }, 'closed'))
  }

  abort(): void {
    this.conn.abort()
    this.stopReading(new NetError('ERR_CONN_ABORTED', { op: 'read' }, 'aborted'))
  }

  protected override stopReading(error: Failure): void {
    this.expired = undefined
    super.stopReading(error)
  }

  setReadDeadline(deadline: Deadline): void {
    this.conn.setReadDeadline(deadline)
    this.queue.deadline = epochOf(deadline)
    this.expired = undefined
  }

  setWriteDeadline(deadline: Deadline): void {
    this.conn.setWriteDeadline(deadline)
  }

  get bufferedAmount(): number {
    return this.conn.bufferedAmount
  }

  get bytesWritten(): number {
    return this.conn.bytesWritten
  }

  pause(): void {
    this.conn.pause()
  }

  resume(): void {
    this.conn.resume()
  }
}
