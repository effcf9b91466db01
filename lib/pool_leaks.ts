// Reports connections that are held for too long, with the stack that took them: the sign of a release() that is missing
// on some path. See leak_watch.ts for connections that a listener has accepted.

import type { Member, Taker } from './pool_member.js'

export class HolderWatch {
  /** Leases reported so far. */
  suspects = 0

  constructor(private readonly heldMs: number) {}

  /** Who takes a connection: the stack above `caller`. Undefined when leaks are not looked for. */
  takerAbove(caller: (...args: never[]) => unknown): Taker | undefined {
    if (this.heldMs === 0) return undefined
    const taker = {}
    // Formatting the stack is what costs most; it is put off until somebody reads it.
    Error.captureStackTrace(taker, caller)
    return taker
  }

  scan(members: Iterable<Member>, now: number): void {
    if (this.heldMs === 0) return
    for (const member of members) {
      if (member.state !== 'busy' || member.isReported || now - member.since < this.heldMs) continue
      member.isReported = true
      this.report(member, now - member.since)
    }
  }

  private report(member: Member, heldMs: number): void {
    this.suspects++
    process.emitWarning(
      `a pooled connection to ${member.address.name} has been held for ${Math.round(heldMs)} ms. Is a release() missing, ` +
        'after an exception for instance? use() and `await using` give it back on every path.',
      {
        type: 'EdgewireWarning',
        code: 'EDGEWIRE_POOL_LEAK',
        detail: `taken here: ${member.taker?.stack?.replace(/^Error: ?\n\s*/, '') ?? 'unknown'}`,
      },
    )
  }
}
