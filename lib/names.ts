// Names and their addresses: the interfaces of the resolver, with their contracts. The class behind them is in
// resolver.ts.

/** One IP address. */
export interface NameAddress {
  readonly address: string
  readonly family: 4 | 6
}

/** An address as a look-up found it. */
export interface FoundAddress extends NameAddress {
  /** Seconds for which it holds. Without it, 30 seconds are assumed. */
  readonly ttl?: number
}

/**
 * Looks a name up in place of DNS: service discovery, another protocol, a table in a test. Its answers are cached and
 * shared as those of DNS are. Rejecting, or an empty list, means that the name has no address; a `code` of ENOTFOUND or
 * ENODATA on the error is remembered for `negativeTtlMs`, any other for a second.
 * `signal` aborts when nobody wants the answer any more: the resolver was closed, the dial() that it was given to is
 * decided, or the pool drained. A pool does not wait for longer than 30 seconds.
 */
export type LookupFn = (host: string, options: { signal?: AbortSignal }) => Promise<readonly FoundAddress[]>

/** What a name stands for at the moment. */
export interface ResolvedName {
  /** As it was asked for. */
  readonly host: string
  /** At least one, IPv6 first; within a family in the order of the answer. No address is there twice. */
  readonly addresses: readonly NameAddress[]
  /**
   * Epoch milliseconds. From then on another answer is worth asking for: the first of these addresses expires, or a
   * family that could not be asked may be asked again. Of a stale answer: in a second, by when a fresh one should be
   * here. Infinity for literals and names that need no query.
   */
  readonly expiresAt: number
  /** It has expired, and was given because `staleMs` allows it; a fresh answer is being asked for. */
  readonly stale: boolean
}

export interface ResolveOptions {
  /** Stops this call's waiting, with its reason. The query goes on: others may wait for it, and its answer is kept. */
  signal?: AbortSignal
  /** 4 or 6: that family only, and only its query is made. 0: both, which is the default. */
  family?: 0 | 4 | 6
  /** false: never an expired answer, wait for the fresh one. Default true. */
  allowStale?: boolean
}

export interface ResolverOptions {
  /** DNS servers: IP addresses, with a port if it is not 53 ('127.0.0.1:5353', '[::1]:5353'). Default: the system's. */
  servers?: string[]
  /** An answer is kept for at least so long, whatever its TTL, milliseconds. Default 1,000. */
  ttlMinMs?: number
  /** And for at most so long. Default 300,000. */
  ttlMaxMs?: number
  /** So long it is remembered that a name does not exist, or has no address, milliseconds. Default 5,000. */
  negativeTtlMs?: number
  /** An expired answer may be given for so long while a fresh one is asked for, milliseconds. Default 30,000. 0: never. */
  staleMs?: number
  /** Names that are remembered; beyond that the one that was asked for least recently is forgotten. Default 1,000. */
  maxNames?: number
  /** A DNS server's time for an answer, milliseconds; at each further try it is longer. Default 2,000. */
  timeoutMs?: number
  /** How often each server is asked before a query fails with ETIMEOUT. Default 2. */
  tries?: number
  /** The names of this machine, in the format of hosts(5). Default '/etc/hosts'; false: none. */
  hostsFile?: string | false
  /** Used instead of DNS; `servers`, `timeoutMs` and `tries` then do not fit. */
  lookup?: LookupFn
}

/** Counters, which only grow, but for `names` and `pending`. */
export interface ResolverStats {
  /** Names that are remembered, and queries under way. */
  names: number
  pending: number
  /** Queries made: one per name and family, or one per name with `lookup`. */
  queries: number
  /** Queries that failed otherwise than by a name without address: timeouts, SERVFAIL and the like. */
  failures: number
  /** Calls of resolve() that were answered without waiting, stale answers among them. */
  hits: number
  /** Those answered with an expired answer. */
  staleHits: number
  /** Calls that waited for a query, and those of them that joined one already under way. */
  misses: number
  coalesced: number
  /** Names forgotten because there were more than `maxNames`. */
  evictions: number
}

/** Finds the addresses of names without blocking a thread, and remembers them. */
export interface Resolver {
  /**
   * The addresses of `host`. IP literals, `localhost` and names in the hosts file are answered without a query; so is a
   * name that is remembered. Otherwise A and AAAA are asked for at the same time, and it resolves when both are there;
   * one family is enough, unless both failed. Concurrent calls for one name share its queries.
   *
   * Rejects with a NetError (`op: 'resolve'`): ERR_INVALID_ARG for what cannot be a name, before anything is sent;
   * ENOTFOUND (there is no such name), ENODATA (it has no address of the family), ESERVFAIL, ETIMEOUT, ECONNREFUSED and
   * other codes of c-ares; ERR_RESOLVER_CLOSED; or with the signal's reason.
   */
  resolve(host: string, options?: ResolveOptions): Promise<ResolvedName>
  /**
   * What resolve() would answer at once, an expired answer that may still be given among it; undefined when it would
   * have to ask. Asks nothing, and does not count as use.
   */
  peek(host: string): ResolvedName | undefined
  stats(): ResolverStats
  /** Forgets a name, or all. Calls that wait get the answer of their query, which is then not kept. */
  clear(host?: string): void
  /** Forgets everything; calls that wait, and later ones, reject with ERR_RESOLVER_CLOSED. Safe to call again. */
  close(): void
}
