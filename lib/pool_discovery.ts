// Which addresses an upstream has: what is given as an address, and what its name stands for at the moment.

import { joinHostPort, printablePath } from './addr.js'
import { checkFound } from './dns_query.js'
import { NetError } from './errors.js'
import { literalsOf } from './host_name.js'
import type { LookupFn, Resolver } from './names.js'
import { Breaker, type BreakerSettings } from './pool_breaker.js'
import type { Clock } from './pool_clock.js'
import type { DialPlace } from './pool_member.js'
import type { PlannedUpstream } from './pool_plan.js'

/** An answer that expires at once, or has expired, is used for so long all the same. */
const AnswerMsMin = 100
/** For what does not say how long its answer holds. */
const AnswerMsDefault = 30_000
/** A question that has no answer by then is given up: it would never be asked again. Longer than resolvers take. */
const QuestionMsMax = 30_000

export interface Answer {
  addresses: readonly string[]
  /** It holds for so long. */
  ttlMs: number
}

/** `signal` aborts when the answer is not waited for any more. */
export type Ask = (host: string, signal: AbortSignal) => Promise<Answer>

export function askResolver(resolver: Resolver): Ask {
  return async (host, signal) => {
    // These addresses are kept: an answer of before is of no use, and who waits is served from the old ones meanwhile.
    const { addresses, expiresAt } = await resolver.resolve(host, { allowStale: false, signal })
    const ttlMs = expiresAt - Date.now()
    return { addresses: literalsOf(addresses), ttlMs: Number.isNaN(ttlMs) ? AnswerMsDefault : ttlMs }
  }
}

export function askFunction(lookup: LookupFn): Ask {
  return async (host, signal) => {
    const found = checkFound(await lookup(host, { signal }))
    const seconds = found.map(({ ttl }) => ttl ?? AnswerMsDefault / 1000)
    return { addresses: found.map(({ address }) => address), ttlMs: Math.min(...seconds) * 1000 }
  }
}

/** A name, its last answer, and when to ask again. */
class Name {
  addresses: readonly string[] = []
  /** When the last answer expires: then the name is asked for again. */
  dueAt = Number.NEGATIVE_INFINITY
  /** While it is asked for: gives that up. */
  asking: AbortController | undefined

  constructor(
    readonly host: string,
    readonly port: number,
    /** Pauses after failures. */
    readonly breaker: Breaker,
  ) {}
}

export class Discovery {
  lookups = 0
  failures = 0
  private readonly names: Name[] = []
  private isClosed = false
  private readonly fixed = new Map<string, DialPlace>()

  constructor(
    upstreams: readonly PlannedUpstream[],
    private readonly settings: BreakerSettings & { dnsTtlMs: number },
    private readonly ask: Ask,
    private readonly clock: Clock,
    /** There is an answer, or there is none. */
    private readonly onAnswer: () => void,
  ) {
    for (const upstream of upstreams) {
      if (upstream.kind === 'path') this.fixed.set(printablePath(upstream.path), { path: upstream.path })
      else if (upstream.kind === 'address') this.addPlace(this.fixed, upstream.host, upstream.port)
      else this.names.push(new Name(upstream.host, upstream.port, new Breaker(settings, clock)))
    }
  }

  get hasNames(): boolean {
    return this.names.length > 0
  }

  /** Every address of every upstream, by what it is called. */
  places(): Map<string, DialPlace> {
    const places = new Map(this.fixed)
    for (const { addresses, port } of this.names) {
      for (const address of addresses) this.addPlace(places, address, port)
    }
    return places
  }

  private addPlace(places: Map<string, DialPlace>, host: string, port: number): void {
    places.set(joinHostPort(host, port), { host, port })
  }

  /**
   * No address may be dialed before an answer has come: nothing is known yet, or what is known is older than two of its
   * lives, because the pool has not been used since.
   */
  get isBlocked(): boolean {
    if (this.fixed.size > 0 || this.names.length === 0) return false
    const tooOld = this.clock.now() - this.settings.dnsTtlMs
    return this.names.every((name) => name.asking !== undefined && (name.addresses.length === 0 || name.dueAt < tooOld))
  }

  get lastError(): Error | undefined {
    return this.names.find(({ breaker }) => breaker.lastError !== undefined)?.breaker.lastError
  }

  /** Asks for the names whose answers have expired. */
  refresh(): void {
    const now = this.clock.now()
    for (const name of this.names) {
      if (name.asking === undefined && now >= name.dueAt && name.breaker.pauseMs === 0) void this.askFor(name)
    }
  }

  private async askFor(name: Name): Promise<void> {
    const gaveUp = new AbortController()
    name.asking = gaveUp
    const late = this.clock.after(QuestionMsMax, true, () => gaveUp.abort(lateError(name)))
    this.lookups++
    const era = name.breaker.begin()
    try {
      const { addresses, ttlMs } = await unlessAborted(this.ask(name.host, gaveUp.signal), gaveUp.signal)
      if (addresses.length === 0) throw new NetError('ENODATA', placeOf(name), 'the name has no address')
      name.addresses = addresses
      name.dueAt = this.clock.now() + Math.min(this.settings.dnsTtlMs, Math.max(ttlMs, AnswerMsMin))
      name.breaker.served(era)
    } catch (error) {
      // What was known before is used on: a name server that is down does not take the upstream with it.
      if (!this.isClosed) this.failures++
      name.breaker.failed(era, error instanceof Error ? error : new Error(String(error)))
    }
    late.cancel()
    name.asking = undefined
    this.onAnswer()
  }

  /** Nobody wants to know any more. */
  close(): void {
    this.isClosed = true
    for (const { asking } of this.names) asking?.abort()
  }
}

function placeOf(name: Name): { op: 'resolve'; remote: string } {
  return { op: 'resolve', remote: name.host }
}

function lateError(name: Name): NetError {
  return new NetError('ETIMEOUT', placeOf(name), `no answer within ${QuestionMsMax} ms`, { timeout: true })
}

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    promise.then(resolve, reject)
  })
}
