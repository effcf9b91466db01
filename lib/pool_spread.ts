// How the connections of a full pool are spread over its addresses. Whose turn it is decides nothing there: who waits
// takes what comes back, so an address that is new, or was away, would never get its first connection.

import type { Balance } from './pool_api.js'
import type { PoolAddress } from './pool_member.js'

/** A function of the caller's may want an uneven spread; but none at all is a mistake of the circumstances. */
function isUneven(from: PoolAddress, to: PoolAddress, balance: Balance): boolean {
  if (typeof balance === 'function') return to.memberCount === 0 && from.memberCount > 1
  return from.memberCount > to.memberCount + 1
}

/** The address for which one of `from` should make room, if there is one. */
export function inNeed(
  from: PoolAddress,
  active: readonly PoolAddress[],
  balance: Balance,
  maxPerAddress: number,
): PoolAddress | undefined {
  if (active.length < 2) return undefined
  return active.find((to) => {
    const { memberCount, breaker, slowDials } = to
    const isWell = breaker.failures === 0 && slowDials === 0 && memberCount < maxPerAddress
    return isWell && isUneven(from, to, balance)
  })
}

/** Of the addresses that may be dialed, those that come first. */
export function dialFirst(candidates: readonly PoolAddress[], balance: Balance): readonly PoolAddress[] {
  const fewest = Math.min(...candidates.map(({ memberCount }) => memberCount))
  if (typeof balance === 'function' && fewest > 0) return candidates
  return candidates.filter(({ memberCount }) => memberCount === fewest)
}
