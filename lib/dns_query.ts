// One question and its answer: DNS by way of c-ares, or a look-up of the caller's. Nothing is remembered here.

import { promises as dns } from 'node:dns'
import { invalidArgument } from './errors.js'
import { literalFamily } from './host_name.js'
import type { FoundAddress, LookupFn } from './names.js'

/** What a source can be asked for: the addresses of one family, or (0) all at once. */
export type QuestionFamily = 0 | 4 | 6

export interface AddressSource {
  /** The questions that together give every address of a name. */
  readonly families: readonly QuestionFamily[]
  /** Rejects with an error that has a `code`. */
  ask(name: string, family: QuestionFamily): Promise<readonly FoundAddress[]>
  /** Gives up every question under way. */
  cancel(): void
}

export interface DnsSettings {
  servers: string[] | undefined
  timeoutMs: number
  tries: number
}

/**
 * c-ares sends its queries from the event loop: no thread waits. It follows CNAMEs, asks again over TCP when an answer
 * was truncated, and takes its servers from resolv.conf(5); search lists do not apply to these calls.
 */
export class DnsSource implements AddressSource {
  readonly families = [6, 4] as const
  private readonly resolver: dns.Resolver

  constructor({ servers, timeoutMs, tries }: DnsSettings) {
    this.resolver = new dns.Resolver({ timeout: timeoutMs, tries })
    if (servers === undefined) return
    try {
      this.resolver.setServers(servers)
    } catch (cause) {
      throw invalidArgument('resolve', `servers must be IP addresses (${(cause as Error).message})`, servers)
    }
  }

  async ask(name: string, family: QuestionFamily): Promise<readonly FoundAddress[]> {
    const { resolver } = this
    const found = await (family === 6 ? resolver.resolve6(name, { ttl: true }) : resolver.resolve4(name, { ttl: true }))
    // Deno leaves the TTLs out, and gives plain strings.
    return (found as (string | { address: string; ttl: number })[]).map((record) =>
      typeof record === 'string'
        ? { address: record, family: family === 6 ? 6 : 4 }
        : { address: record.address, family: family === 6 ? 6 : 4, ttl: record.ttl },
    )
  }

  cancel(): void {
    this.resolver.cancel()
  }
}

/** A look-up of the caller's, which gives both families at once. */
export class LookupSource implements AddressSource {
  readonly families = [0] as const
  private readonly controller = new AbortController()

  constructor(private readonly lookup: LookupFn) {}

  async ask(name: string): Promise<readonly FoundAddress[]> {
    const { signal } = this.controller
    return checkFound(await this.lookup(name, { signal }))
  }

  cancel(): void {
    this.controller.abort()
  }
}

/** What a look-up of the caller's has given, which may be anything. */
export function checkFound(found: unknown): readonly FoundAddress[] {
  if (!Array.isArray(found)) throw invalidArgument('resolve', 'lookup must give an array of addresses', found)
  for (const each of found as unknown[]) {
    const { address, family, ttl } = Object(each) as Record<string, unknown>
    const valid = typeof address === 'string' && literalFamily(address) === family
    if (valid && (ttl === undefined || (typeof ttl === 'number' && ttl >= 0))) continue
    throw invalidArgument('resolve', 'lookup must give IP addresses with their family, and a ttl in seconds', address)
  }
  return found as FoundAddress[]
}
