// What a caller gives as host: an IP literal, a name that needs no query, or a name in the form that DNS takes.

import { isIP } from 'node:net'
import { domainToASCII } from 'node:url'
import { invalidArgument, NetError, type Op } from './errors.js'
import type { NameAddress } from './names.js'

/** RFC 1035, 2.3.4, as text: without the root's dot and the length bytes. */
const NameCharactersMax = 253
const LabelCharactersMax = 63

/** RFC 6761, 6.3: always this machine, whatever a server or a file says. */
export const loopback: readonly NameAddress[] = [nameAddress('::1', 6), nameAddress('127.0.0.1', 4)]

/** Top-level names that must not be asked for: RFC 6761, 6.4 and RFC 7686, 2. */
const neverAsked = ['invalid', 'onion']

export type Host =
  | { kind: 'addresses'; addresses: readonly NameAddress[] }
  /** It is known without asking that there is none. */
  | { kind: 'nowhere' }
  /** In lower case, without a dot at the end, international names as `xn--`. */
  | { kind: 'name'; name: string }

/** Throws ERR_INVALID_ARG for what can be neither an address nor a name. */
export function readHost(host: unknown, op: Op = 'resolve'): Host {
  if (typeof host !== 'string' || host === '') {
    throw invalidArgument(op, 'host must be a non-empty string', host)
  }
  const family = literalFamily(host)
  if (family !== 0) return { kind: 'addresses', addresses: [nameAddress(host, family)] }
  const name = asciiName(host, op)
  const top = name.slice(name.lastIndexOf('.') + 1)
  if (top === 'localhost') return { kind: 'addresses', addresses: loopback }
  return neverAsked.includes(top) ? { kind: 'nowhere' } : { kind: 'name', name }
}

/** Everybody who asks is given the same object: one that could be changed would be changed for all. */
export function nameAddress(address: string, family: 4 | 6): NameAddress {
  return Object.freeze({ address, family })
}

/** What a resolver has given, which may be one of the caller's: anything. Throws, before it is used. */
export function literalsOf(addresses: Iterable<NameAddress>): string[] {
  return [...addresses].map((each) => {
    const address: unknown = Object(each).address
    if (typeof address === 'string' && literalFamily(address) !== 0) return address
    throw invalidArgument('resolve', 'resolver must give IP addresses', address)
  })
}

/** 4 or 6 for an IP literal, with a zone or without; 0 for everything else. */
export function literalFamily(host: string): 0 | 4 | 6 {
  const zone = host.indexOf('%')
  const family = isIP(zone < 0 ? host : host.slice(0, zone))
  // Only an IPv6 address has a zone, and not an empty one.
  if (zone >= 0 && (family !== 6 || zone === host.length - 1)) return 0
  return family as 0 | 4 | 6
}

function asciiName(host: string, op: Op): string {
  const bad = (why: string): NetError => invalidArgument(op, `host ${why}`, host)
  // domainToASCII() is the URL parser's: it would take '%41' for 'A', and '/' for an end.
  if (/[\0-\x2c/:-@[-^`{-\x7f]/.test(host)) throw bad('has a character that names do not have')
  const ascii = /^[\0-\x7f]*$/.test(host) ? host.toLowerCase() : domainToASCII(host)
  const name = ascii.endsWith('.') ? ascii.slice(0, -1) : ascii
  if (name === '' || name.length > NameCharactersMax) throw bad('is not a name that DNS takes')
  const labels = name.split('.')
  for (const label of labels) {
    if (label.length > LabelCharactersMax || !/^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$/.test(label)) {
      throw bad('is not a name that DNS takes')
    }
  }
  // '127.1' and '0x7f000001' are addresses to some programs and names to others.
  if (/^(\d+|0x[\da-f]*)$/.test(labels.at(-1) as string)) throw bad('is neither a whole IP address nor a name')
  return name
}

/** What the codes of a failed resolution mean; c-ares has the others. */
const reasons: Record<string, string> = {
  ENOTFOUND: 'there is no such name',
  ENODATA: 'the name has no address',
  ESERVFAIL: 'the DNS server failed',
  EREFUSED: 'the DNS server refused',
  ETIMEOUT: 'no DNS server answered in time',
  ECONNREFUSED: 'no DNS server could be asked',
  EBADRESP: 'the DNS server sent something that is not an answer',
  EFORMERR: 'the DNS server did not understand the query',
  ENOTIMP: 'the DNS server does not have that query',
  ERR_RESOLVER_CLOSED: 'the resolver is closed',
}

/** Codes that say that there is no address; the others say that nobody could tell. */
export const isNegative = (code: string): boolean => code === 'ENOTFOUND' || code === 'ENODATA'

export function describeResolution(code: string): string {
  return reasons[code] ?? `the name could not be resolved (${code})`
}

export function resolutionError(code: string, host: string, cause?: unknown): NetError {
  const details = { timeout: code === 'ETIMEOUT', ...(cause === undefined ? {} : { cause }) }
  return new NetError(code, { op: 'resolve', remote: host }, describeResolution(code), details)
}

/** Of the codes of two families, the one that says more: not knowing comes before there being no address. */
export function graverCode(codes: readonly string[]): string {
  return codes.find((code) => !isNegative(code)) ?? codes.find((code) => code === 'ENOTFOUND') ?? 'ENODATA'
}
