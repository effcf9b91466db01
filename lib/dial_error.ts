// One error for all that was tried.

import { describeCode, type ErrorPlace, NetError } from './errors.js'

/** Addresses that a message names; `errors` has them all. */
const AddressesNamedMax = 8

/** There is no way from here to that address: of several failures, what another one says is of more use. */
const noWayFromHere = ['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EHOSTUNREACH', 'EINVAL', 'ENETUNREACH']

/** Every attempt has failed. `failures`: at least one. */
export function dialError(place: ErrorPlace, failures: readonly NetError[]): NetError {
  const first = failures[0] as NetError
  if (failures.length === 1) return first
  const cause = failures.find(({ code }) => !noWayFromHere.includes(code)) ?? first
  return new NetError(cause.code, place, `no address could be reached (${listOf(failures)})`, {
    cause,
    errors: failures,
    errno: cause.errno,
    timeout: cause.timeout,
  })
}

/** So long was waited for a connection; undefined: as long as there was time. `tried`: with several addresses, each. */
export function timeoutError(place: ErrorPlace, ms: number | undefined, tried: readonly NetError[] = []): NetError {
  const several = tried.length > 1
  const span = ms === undefined ? 'in the time that was left' : `within ${ms} ms`
  const reason = several ? `no connection ${span} (${listOf(tried)})` : `no connection ${span}`
  return new NetError('ERR_DEADLINE_EXCEEDED', place, reason, { timeout: true, ...(several ? { errors: tried } : {}) })
}

function listOf(failures: readonly NetError[]): string {
  const named = failures.slice(0, AddressesNamedMax).map(({ remoteAddress, code }) => {
    return `${remoteAddress}: ${code === 'ERR_DEADLINE_EXCEEDED' ? 'no answer' : describeCode(code)}`
  })
  const more = failures.length - named.length
  return [...named, ...(more > 0 ? [`${more} more`] : [])].join('; ')
}
