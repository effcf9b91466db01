// Whose turn is it: one of several addresses, by the strategy that the pool was given. Health is not decided here: what
// is no candidate is not seen.

import type { Balance, BalanceCandidate, BalanceFn } from './pool_api.js'

export type Choose = <T extends BalanceCandidate>(candidates: readonly T[]) => T

/** `failed` is told what a function of the caller's threw, or chose wrongly; the first candidate is then taken. */
export function balancer(balance: Balance, random: () => number, failed: (error: unknown) => void): Choose {
  const choose = typeof balance === 'function' ? trusting(balance, failed) : strategies[balance](random)
  return (candidates) => (candidates.length === 1 ? (candidates[0] as (typeof candidates)[0]) : choose(candidates))
}

const strategies: Record<Exclude<Balance, BalanceFn>, (random: () => number) => Choose> = {
  'round-robin': roundRobin,
  'least-connections': leastConnections,
  p2c: powerOfTwoChoices,
}

export const balanceNames: readonly string[] = Object.keys(strategies)

/** What an address is asked to carry already. A dial under way will be carried too. */
const loadOf = (candidate: BalanceCandidate): number => candidate.busyCount + candidate.dialingCount

/**
 * The order is that of the names, not of the array: candidates come and go with their health, and a position in the
 * array would then skip some and favour others.
 */
function roundRobin(): Choose {
  let last = ''
  return (candidates) => {
    const after = lowest(candidates, (name) => name > last)
    const chosen = after ?? lowest(candidates, () => true)
    last = chosen?.name ?? ''
    return chosen as (typeof candidates)[0]
  }
}

function lowest<T extends BalanceCandidate>(
  candidates: readonly T[],
  counts: (name: string) => boolean,
): T | undefined {
  let found: T | undefined
  for (const candidate of candidates) {
    if (counts(candidate.name) && (found === undefined || candidate.name < found.name)) found = candidate
  }
  return found
}

function leastConnections(): Choose {
  const next = roundRobin()
  return (candidates) => {
    let least = Number.POSITIVE_INFINITY
    for (const candidate of candidates) least = Math.min(least, loadOf(candidate))
    return next(candidates.filter((candidate) => loadOf(candidate) === least))
  }
}

/** As good as the least loaded of all, nearly, and many clients that see the same loads do not all choose the same. */
function powerOfTwoChoices(random: () => number): Choose {
  return (candidates) => {
    const first = Math.floor(random() * candidates.length)
    const other = (first + 1 + Math.floor(random() * (candidates.length - 1))) % candidates.length
    const [one, two] = [candidates[first], candidates[other]] as [(typeof candidates)[0], (typeof candidates)[0]]
    return loadOf(two) < loadOf(one) ? two : one
  }
}

function trusting(balance: BalanceFn, failed: (error: unknown) => void): Choose {
  return (candidates) => {
    try {
      const answer = balance(candidates)
      const chosen = candidates.find((candidate) => candidate === answer)
      if (chosen !== undefined) return chosen
      failed(new TypeError('the balance function chose what was no candidate'))
    } catch (error) {
      failed(error)
    }
    return candidates[0] as (typeof candidates)[0]
  }
}
