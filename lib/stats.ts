// Counters of this thread, and the settings that are not a connection's.

import * as abi from './abi.js'
import { checkInteger } from './addr.js'
import type { Driver } from './driver.js'
import { invalidArgument } from './errors.js'
import { openLoop, SlabBudgetBytesMax, SlabBudgetBytesMin, setSlabBudget, slabBudget } from './loop.js'

/** Counters of this thread's reactor since it started. Cheap enough to read every second. */
export interface Stats {
  /** Who gives the reactor its turns: EDGEWIRE_DRIVER, or the default of the platform. undefined before it runs. */
  driver: Driver | undefined
  /** Connections accepted, dialed (successfully) and closed, and those open now. */
  accepted: number
  dialed: number
  closed: number
  open: number
  /** Bytes that came from the kernel and that it has taken. */
  bytesRead: number
  bytesWritten: number
  /** Turns in which something happened. */
  turns: number
  /** Calls from the addon into JavaScript: one per round of a turn, however many connections had something. */
  dispatches: number
  /** What those calls carried, and what JavaScript left to do. */
  completions: number
  commands: number
  completionsPerTurn: number
  /** System calls: send and its like, recv, epoll_wait. */
  flushes: number
  reads: number
  polls: number
  /** accept(2) failed for a limit of the process or the system. */
  acceptErrors: number
  /** Connections aborted, and writes dropped or refused, because a peer read too slowly: see `overflow`. */
  overflowAborts: number
  overflowDrops: number
  /** Connections aborted because the pool was full and their queued output was the largest. */
  evictions: number
  /** Connections turned away because the process or the system had no descriptor left. */
  shed: number
  /** Retained chunks that were garbage-collected unreleased. */
  leakedLeases: number
  /** Reads put off because the pool stood at its budget. */
  starvedReads: number
  /** The arena or the command ring was full in the middle of a dispatch. */
  midTurnFlushes: number
  /** The driver's thread has woken the event loop, or a turn has left work for the next: 0 under uv_poll and prepare. */
  wakes: number
  /** Turns in which the addon had to allocate because a table, a list or the pool grew: none once it has its size. */
  growths: number
  /** The slab pool: bytes of chunks in use now and at most, of slabs held, and the budget. */
  slabInUseBytes: number
  slabPeakBytes: number
  slabMappedBytes: number
  slabBudgetBytes: number
}

export function stats(): Stats {
  const metrics = openLoop()?.metrics ?? new Float64Array(abi.MetricWords)
  const read = (word: number): number => metrics[word] as number
  const turns = read(abi.MetricTurns)
  const completions = read(abi.MetricCompletions)
  const opened = read(abi.MetricAccepted) + read(abi.MetricDialed)
  return {
    driver: openLoop()?.driver,
    accepted: read(abi.MetricAccepted),
    dialed: read(abi.MetricDialed),
    closed: read(abi.MetricClosed),
    open: opened - read(abi.MetricClosed),
    bytesRead: read(abi.MetricBytesRead),
    bytesWritten: read(abi.MetricBytesWritten),
    turns,
    dispatches: read(abi.MetricDispatches),
    completions,
    commands: read(abi.MetricCommands),
    completionsPerTurn: turns === 0 ? 0 : completions / turns,
    flushes: read(abi.MetricFlushes),
    reads: read(abi.MetricReads),
    polls: read(abi.MetricPolls),
    acceptErrors: read(abi.MetricAcceptErrors),
    overflowAborts: openLoop()?.overflowAborts ?? 0,
    overflowDrops: openLoop()?.overflowDrops ?? 0,
    evictions: read(abi.MetricEvictions),
    shed: read(abi.MetricShed),
    leakedLeases: openLoop()?.leakedLeases ?? 0,
    starvedReads: read(abi.MetricStarved),
    midTurnFlushes: read(abi.MetricMidTurnFlushes),
    wakes: read(abi.MetricWakes),
    growths: read(abi.MetricGrowths),
    slabInUseBytes: read(abi.MetricSlabInUse),
    slabPeakBytes: read(abi.MetricSlabPeak),
    slabMappedBytes: read(abi.MetricSlabMapped),
    slabBudgetBytes: slabBudget(),
  }
}

export interface Configuration {
  /**
   * The most bytes that the slab pool of a thread may use: 1 MiB to 4 GiB, in whole MiB. Default 256 MiB, or the
   * environment variable EDGEWIRE_SLAB_BUDGET_BYTES. At the budget reading pauses until chunks come back.
   */
  slabBudgetBytes?: number
}

/** Changes settings of this thread, at any time. */
export function configure(configuration: Configuration): void {
  if (typeof configuration !== 'object' || configuration === null) {
    throw invalidArgument('configure', 'configure() takes an object', configuration)
  }
  for (const key of Object.keys(configuration)) {
    if (key !== 'slabBudgetBytes') throw invalidArgument('configure', 'the only setting is slabBudgetBytes', key)
  }
  const { slabBudgetBytes } = configuration
  if (slabBudgetBytes === undefined) return
  setSlabBudget(checkInteger('configure', 'slabBudgetBytes', slabBudgetBytes, SlabBudgetBytesMin, SlabBudgetBytesMax))
}
