// Finds connections that stay open and silent: the sign of a handler that forgot about them, or of a peer that is gone.
// Asked for by listen({ leakDetection }); costs a walk over the listener's connections twice per openMs.

import type { Conn, LeakDetection } from './net.js'

/** Of the connections handed out by iteration one in so many remembers who took it; in debug mode all do. */
const StackEvery = 16
const ScanMsMin = 10

interface Seen {
  bytes: number
  sinceMs: number
  reported: boolean
}

export class LeakWatch {
  /** Connections reported so far. */
  suspects = 0
  private readonly seen = new WeakMap<Conn, Seen>()
  private readonly takers = new WeakMap<Conn, string>()
  private readonly openMs: number
  private readonly timer: NodeJS.Timeout
  private taken = 0

  /** `origin` is the stack of the listen() call, `style` how its connections are served. */
  constructor(
    settings: LeakDetection,
    private readonly conns: () => Iterable<Conn>,
    private readonly style: string,
    private readonly origin: string,
    private readonly debug: boolean,
  ) {
    this.openMs = settings.openMs
    this.timer = setInterval(() => this.scan(), Math.max(ScanMsMin, this.openMs / 2)).unref()
  }

  stop(): void {
    clearInterval(this.timer)
  }

  /** Somebody takes a connection by iteration: the caller's stack tells who. */
  wantsTaker(): boolean {
    return this.debug || this.taken++ % StackEvery === 0
  }

  tookFrom(conn: Conn, stack: string | undefined): void {
    if (stack !== undefined) this.takers.set(conn, stack)
  }

  private scan(): void {
    const nowMs = performance.now()
    for (const conn of this.conns()) {
      const bytes = conn.bytesRead + conn.bytesWritten
      const seen = this.seen.get(conn)
      if (seen === undefined || seen.bytes !== bytes) {
        this.seen.set(conn, { bytes, sinceMs: nowMs, reported: false })
      } else if (!seen.reported && nowMs - seen.sinceMs >= this.openMs) {
        seen.reported = true
        this.report(conn, nowMs - seen.sinceMs)
      }
    }
  }

  private report(conn: Conn, silentMs: number): void {
    this.suspects++
    const peer = conn.remotePort ? `${conn.remoteAddress} port ${conn.remotePort}` : 'a Unix socket'
    const taker = this.takers.get(conn)
    const detail = taker === undefined ? `its listener: ${this.origin}` : `taken here: ${taker}`
    process.emitWarning(
      `a connection from ${peer} has been open and silent for ${Math.round(silentMs)} ms (state '${conn.state}', ` +
        `${conn.bufferedAmount} bytes queued), served by ${this.style}. Close it, or bound it with a deadline or an idle timeout.`,
      { type: 'EdgewireWarning', code: 'EDGEWIRE_LEAK', detail },
    )
  }
}
