// The resolver: what is known of names, who asks anew and who waits. The contract is Resolver in names.ts.
//
// A name has one slot per question (A and AAAA; one for both with `lookup`). A slot has its last answer, since when it
// could not be asked, and the query under way: whoever needs the answer waits for that one. There are no timers: whether
// an answer has expired is seen when it is wanted.

import type { InspectOptionsStylized } from 'node:util'
import { LRUCache } from 'lru-cache'
import { type Bag, checkInteger, checkKeys, checkSignal, integer, TimeoutMsMax } from './addr.js'
import { type AddressSource, DnsSource, LookupSource, type QuestionFamily } from './dns_query.js'
import { invalidArgument } from './errors.js'
import { graverCode, isNegative, nameAddress, readHost, resolutionError } from './host_name.js'
import { HostsFile } from './hosts_file.js'
import { inspection, shown } from './inspection.js'
import type {
  FoundAddress,
  LookupFn,
  NameAddress,
  ResolvedName,
  ResolveOptions,
  Resolver,
  ResolverOptions,
  ResolverStats,
} from './names.js'

/** RFC 9520, 3.2: that a query failed is remembered for a second at least, so that a broken server is not hammered. */
const FailureMs = 1_000
/** For a look-up that does not say how long its addresses hold. */
const TtlSecondsDefault = 30
/** c-ares counts a try's time in milliseconds, and doubles it. */
const QueryTimeoutMsMax = 60_000
const MaxNamesMax = 1_000_000

/** Instants are monotonic milliseconds; only what callers see is of the wall clock. */
export interface ResolverClock {
  monotonicMs(): number
  epochMs(): number
}

const systemClock: ResolverClock = { monotonicMs: () => performance.now(), epochMs: () => Date.now() }

interface Answer {
  /** Empty: `code` says why. */
  addresses: readonly NameAddress[]
  code: string
  cause: unknown
  /** Monotonic; of a failure: when it may be asked again. */
  expiresMs: number
}

/** One question about one name. */
interface Slot {
  readonly family: QuestionFamily
  /** The last answer that said what there is, or that there is nothing. */
  answer: Answer | undefined
  /** The last query failed, and the answer before it (if any) still stands. */
  failure: Answer | undefined
  query: Promise<Answer> | undefined
}

type Name = readonly Slot[]

interface Settings {
  ttlMinMs: number
  ttlMaxMs: number
  negativeTtlMs: number
  staleMs: number
  maxNames: number
  timeoutMs: number
  tries: number
  servers: string[] | undefined
  hostsFile: string | false
  lookup: LookupFn | undefined
}

const keys: readonly string[] = [
  'servers',
  'ttlMinMs',
  'ttlMaxMs',
  'negativeTtlMs',
  'staleMs',
  'maxNames',
  'timeoutMs',
  'tries',
  'hostsFile',
  'lookup',
] satisfies readonly (keyof ResolverOptions)[]

/** A resolver of its own. Throws ERR_INVALID_ARG (`op: 'resolve'`). It keeps nothing alive but queries under way. */
export function createResolver(options: ResolverOptions = {}): Resolver {
  return new CachingResolver(options)
}

let shared: Resolver | undefined

/** This thread's resolver, made at the first use. */
export function defaultResolver(): Resolver {
  shared ??= createResolver()
  return shared
}

/** For one dial(): nothing outlives it. */
export function resolverOfLookup(lookup: LookupFn): Resolver {
  return createResolver({ lookup, hostsFile: false, maxNames: 1 })
}

function checkOptions(given: ResolverOptions): Settings {
  const options = checkKeys('resolve', given, keys)
  const { lookup, hostsFile = '/etc/hosts' } = options
  if (lookup !== undefined && typeof lookup !== 'function') {
    throw invalidArgument('resolve', 'lookup must be a function', lookup)
  }
  const unused = ['servers', 'timeoutMs', 'tries'].find((name) => options[name] !== undefined)
  if (lookup !== undefined && unused !== undefined) {
    throw invalidArgument('resolve', `${unused} is for DNS, which a lookup replaces`, options[unused])
  }
  if (hostsFile !== false && (typeof hostsFile !== 'string' || hostsFile === '')) {
    throw invalidArgument('resolve', 'hostsFile must be a path or false', hostsFile)
  }
  const ms = (name: string, fallback: number): number => integer('resolve', options, name, fallback, 0, TimeoutMsMax)
  const ttlMinMs = ms('ttlMinMs', 1_000)
  const ttlMaxMs = ms('ttlMaxMs', Math.max(300_000, ttlMinMs))
  checkInteger('resolve', 'ttlMaxMs', ttlMaxMs, ttlMinMs, TimeoutMsMax)
  return {
    ttlMinMs,
    ttlMaxMs,
    negativeTtlMs: ms('negativeTtlMs', 5_000),
    staleMs: ms('staleMs', 30_000),
    maxNames: integer('resolve', options, 'maxNames', 1_000, 1, MaxNamesMax),
    timeoutMs: integer('resolve', options, 'timeoutMs', 2_000, 1, QueryTimeoutMsMax),
    tries: integer('resolve', options, 'tries', 2, 1, 10),
    servers: checkServers(options),
    hostsFile,
    lookup: lookup as LookupFn | undefined,
  }
}

function checkServers({ servers }: Bag): string[] | undefined {
  if (servers === undefined) return undefined
  if (Array.isArray(servers) && servers.length > 0 && servers.every((server) => typeof server === 'string')) {
    return [...servers]
  }
  throw invalidArgument('resolve', 'servers must be an array of at least one address', servers)
}

export class CachingResolver implements Resolver {
  private readonly source: AddressSource
  private readonly hosts: HostsFile | undefined
  private readonly names: LRUCache<string, Name>
  private readonly counters = { queries: 0, failures: 0, hits: 0, staleHits: 0, misses: 0, coalesced: 0, evictions: 0 }
  private pending = 0
  private isClosed = false
  /** One per call that waits: makes it fail. Not a promise to race with, which would keep every call that ever waited. */
  private readonly waiting = new Set<(code: string) => void>()

  private readonly settings: Settings

  constructor(
    options: ResolverOptions,
    private readonly clock: ResolverClock = systemClock,
  ) {
    const settings = checkOptions(options)
    this.settings = settings
    this.source = settings.lookup === undefined ? new DnsSource(settings) : new LookupSource(settings.lookup)
    const { hostsFile, maxNames } = settings
    if (hostsFile !== false) this.hosts = new HostsFile(hostsFile, clock.monotonicMs)
    this.names = new LRUCache<string, Name>({
      max: maxNames,
      dispose: (_, __, reason) => {
        if (reason === 'evict') this.counters.evictions++
      },
    })
  }

  async resolve(host: string, options: ResolveOptions = {}): Promise<ResolvedName> {
    const { signal, family, allowStale } = checkResolve(options)
    const known = this.withoutQuery(host, family)
    signal?.throwIfAborted()
    if (this.isClosed) throw resolutionError('ERR_RESOLVER_CLOSED', host)
    if (typeof known !== 'string') return known
    const slots = this.slotsOf(known, family)
    const answers = slots.map((slot) => this.recall(slot, slots, allowStale))
    if (answers.includes(undefined)) {
      this.counters.misses++
      if (slots.some((slot, i) => answers[i] === undefined && slot.query !== undefined)) this.counters.coalesced++
      const waiting = slots.map((slot, i) => answers[i] ?? this.ask(known, slot))
      return this.compose(host, family, await this.wait(host, Promise.all(waiting), signal))
    }
    this.counters.hits++
    const result = this.compose(host, family, answers as Answer[])
    if (result.stale) this.counters.staleHits++
    this.refresh(known, slots)
    return result
  }

  peek(host: string): ResolvedName | undefined {
    if (readHost(host).kind === 'nowhere') return undefined
    const known = this.withoutQuery(host, 0)
    if (typeof known !== 'string') return known
    const slots = this.names.peek(known)
    const answers = slots?.map((slot) => this.recall(slot, slots, true))
    if (answers === undefined || answers.includes(undefined)) return undefined
    return (answers as Answer[]).some(({ addresses }) => addresses.length > 0)
      ? this.compose(host, 0, answers as Answer[])
      : undefined
  }

  stats(): ResolverStats {
    return { names: this.names.size, pending: this.pending, ...this.counters }
  }

  [inspection](depth: number, options: InspectOptionsStylized): string {
    return shown('Resolver', this.stats(), depth, options)
  }

  clear(host?: string): void {
    const read = host === undefined ? undefined : readHost(host)
    if (read === undefined) this.names.clear()
    else if (read.kind === 'name') this.names.delete(read.name)
  }

  close(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.names.clear()
    for (const fail of this.waiting) fail('ERR_RESOLVER_CLOSED')
    this.waiting.clear()
    this.source.cancel()
  }

  // ---- without asking ----------------------------------------------------------------------------------------------

  /** The answer for a literal or a name of this machine; otherwise the name in the form in which it is asked for. */
  private withoutQuery(host: string, family: 0 | 4 | 6): ResolvedName | string {
    const read = readHost(host)
    if (read.kind === 'nowhere') throw resolutionError('ENOTFOUND', host)
    const addresses = read.kind === 'addresses' ? read.addresses : this.hosts?.addressesOf(read.name)
    if (addresses === undefined) return (read as { name: string }).name
    const wanted = addresses.filter((each) => family === 0 || each.family === family)
    if (wanted.length === 0) throw resolutionError('ENODATA', host)
    return { host, addresses: wanted, expiresAt: Number.POSITIVE_INFINITY, stale: false }
  }

  private slotsOf(name: string, family: 0 | 4 | 6): Name {
    let slots = this.names.get(name)
    if (slots === undefined) {
      slots = this.source.families.map((each) => ({
        family: each,
        answer: undefined,
        failure: undefined,
        query: undefined,
      }))
      this.names.set(name, slots)
    }
    return family === 0 ? slots : slots.filter((slot) => slot.family === 0 || slot.family === family)
  }

  /** What is known and may be given; undefined: it has to be asked for. */
  private recall(slot: Slot, slots: Name, allowStale: boolean): Answer | undefined {
    const now = this.clock.monotonicMs()
    const { answer, failure } = slot
    if (answer !== undefined && now < answer.expiresMs) return answer
    if (allowStale && answer !== undefined && now < answer.expiresMs + this.settings.staleMs) {
      if (answer.addresses.length > 0) return answer
      // That a name has no address of one family changes seldom. Of a name without any, that it has got one is the news.
      const others = slots.some((each) => each !== slot && (each.answer?.addresses.length ?? 0) > 0)
      if (others && answer.code === 'ENODATA') return answer
    }
    return failure !== undefined && now < failure.expiresMs ? failure : undefined
  }

  // ---- asking ------------------------------------------------------------------------------------------------------

  /** Asks anew for what has been given although it had expired. */
  private refresh(name: string, slots: Name): void {
    const now = this.clock.monotonicMs()
    for (const slot of slots) {
      const due = slot.answer === undefined || slot.answer.expiresMs <= now
      if (due && !(slot.failure !== undefined && now < slot.failure.expiresMs)) void this.ask(name, slot)
    }
  }

  /** Never rejects: a failure is an answer as well. */
  private ask(name: string, slot: Slot): Promise<Answer> {
    slot.query ??= this.query(name, slot)
    return slot.query
  }

  private async query(name: string, slot: Slot): Promise<Answer> {
    this.counters.queries++
    this.pending++
    const answer = await this.source.ask(name, slot.family).then(
      (found) => this.positive(found),
      (error: unknown) => this.negative(error),
    )
    this.pending--
    slot.query = undefined
    if (answer.addresses.length > 0 || isNegative(answer.code)) {
      slot.answer = answer
      slot.failure = undefined
    } else {
      this.counters.failures++
      slot.failure = answer
    }
    return answer
  }

  private positive(found: readonly FoundAddress[]): Answer {
    if (found.length === 0) return this.negative({ code: 'ENODATA' })
    const { ttlMinMs, ttlMaxMs } = this.settings
    const ttlMs = Math.min(...found.map(({ ttl }) => ttl ?? TtlSecondsDefault)) * 1_000
    return {
      addresses: withoutDoubles(found),
      code: '',
      cause: undefined,
      expiresMs: this.clock.monotonicMs() + Math.min(Math.max(ttlMs, ttlMinMs), ttlMaxMs),
    }
  }

  private negative(error: unknown): Answer {
    const given = (error as { code?: unknown } | undefined)?.code
    // A look-up that fails without a code: nothing is known of the name.
    const code = typeof given === 'string' && given !== '' ? given : 'ESERVFAIL'
    const ms = isNegative(code) ? this.settings.negativeTtlMs : FailureMs
    return { addresses: [], code, cause: error, expiresMs: this.clock.monotonicMs() + ms }
  }

  private wait<T>(host: string, result: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.waiting.delete(onClose)
        signal?.removeEventListener('abort', onAbort)
      }
      const onAbort = (): void => {
        leave()
        reject(signal?.reason)
      }
      const onClose = (code: string): void => {
        leave()
        reject(resolutionError(code, host))
      }
      this.waiting.add(onClose)
      signal?.addEventListener('abort', onAbort, { once: true })
      result.then((value) => {
        leave()
        resolve(value)
      }, reject)
    })
  }

  // ---- the result --------------------------------------------------------------------------------------------------

  private compose(host: string, family: 0 | 4 | 6, answers: readonly Answer[]): ResolvedName {
    const all = answers.flatMap(({ addresses }) => addresses)
    const addresses = all.filter((each) => family === 0 || each.family === family)
    if (addresses.length === 0) {
      // A look-up found addresses, but none of this family.
      const code = all.length > 0 ? 'ENODATA' : graverCode(answers.map((answer) => answer.code))
      throw resolutionError(code, host, answers.find((answer) => answer.code === code)?.cause)
    }
    const now = this.clock.monotonicMs()
    const given = answers.filter((answer) => answer.addresses.length > 0)
    // That a family has no address does not make the others expire.
    const expiresMs = Math.min(...answers.filter(({ code }) => !isNegative(code)).map((answer) => answer.expiresMs))
    const stale = given.some((answer) => answer.expiresMs < now)
    const forMs = stale ? FailureMs : expiresMs - now
    return { host, addresses, expiresAt: this.clock.epochMs() + forMs, stale }
  }
}

/** IPv6 first; otherwise in the order of the answer, with which many servers spread the load. */
function withoutDoubles(found: readonly FoundAddress[]): NameAddress[] {
  const seen = new Map(found.map(({ address, family }) => [address, nameAddress(address, family)]))
  return [...seen.values()].sort((one, other) => other.family - one.family)
}

function checkResolve(given: ResolveOptions): {
  signal: AbortSignal | undefined
  family: 0 | 4 | 6
  allowStale: boolean
} {
  const options = checkKeys('resolve', given, ['signal', 'family', 'allowStale'])
  const { family = 0, allowStale = true } = options
  if (family !== 0 && family !== 4 && family !== 6) throw invalidArgument('resolve', 'family must be 0, 4 or 6', family)
  if (typeof allowStale !== 'boolean') throw invalidArgument('resolve', 'allowStale must be true or false', allowStale)
  return { signal: checkSignal('resolve', options.signal), family, allowStale }
}
