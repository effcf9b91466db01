// Deadlines: from what a caller gives (a Date, epoch milliseconds, null) to the native clock's milliseconds in a
// connection's row. Setting one is a store; native looks at the row when its wheel entry fires, and moves the entry.

import { isDate } from 'node:util/types'
import * as abi from './abi.js'
import { invalidArgument } from './errors.js'
import type { Loop } from './loop.js'
import type { Deadline } from './net.js'

/** The first Date there is. -Infinity in a row means that a deadline has fired. */
const EarliestEpochMs = -8.64e15

/** The epoch milliseconds of a deadline; Infinity for null. Throws for what is neither. */
export function epochOf(deadline: Deadline): number {
  if (deadline === null) return Number.POSITIVE_INFINITY
  const epoch = typeof deadline === 'number' ? deadline : isDate(deadline) ? deadline.getTime() : Number.NaN
  if (Number.isNaN(epoch)) {
    throw invalidArgument('configure', 'a deadline must be a Date, epoch milliseconds or null', deadline)
  }
  return Math.max(epoch, EarliestEpochMs)
}

/** Stores a deadline in word `word` of the connection's row. */
export function storeDeadline(loop: Loop, index: number, word: number, epoch: number): void {
  const { doubles } = loop
  const row = index * abi.RowWords
  const at = epoch - loop.metrics[abi.MetricClockOffsetMs]
  doubles[row + word] = at
  if (at >= doubles[row + abi.RowArmedAt]) return
  // Stored at once, so that the next deadline before the command is carried out does not ask again.
  doubles[row + abi.RowArmedAt] = at
  loop.push(abi.CommandArm, index, 0, 0)
}

export function storeIdleTimeout(loop: Loop, index: number, ms: number): void {
  loop.doubles[index * abi.RowWords + abi.RowIdleMs] = ms
  if (ms > 0) loop.push(abi.CommandArm, index, 1, 0)
}

/** Has native told, or is about to tell, that the deadline passed, and it was not moved since? */
export function hasFired(loop: Loop, index: number, word: number): boolean {
  return loop.doubles[index * abi.RowWords + word] === Number.NEGATIVE_INFINITY
}

/** Native has nothing to tell of it any more. */
export function markFired(loop: Loop, index: number, word: number): void {
  loop.doubles[index * abi.RowWords + word] = Number.NEGATIVE_INFINITY
}

export function idleTimeoutMs(loop: Loop, index: number): number {
  return loop.doubles[index * abi.RowWords + abi.RowIdleMs] as number
}

/** Has the deadline in the row passed, whether native has told or not (the loop may have been busy)? */
export function isPast(loop: Loop, index: number, word: number): boolean {
  if (index < 0) return false
  const at = loop.doubles[index * abi.RowWords + word]
  return at !== Number.POSITIVE_INFINITY && at + loop.metrics[abi.MetricClockOffsetMs] <= Date.now()
}
