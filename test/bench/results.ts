// A run that nobody ran: results made of chosen numbers.

import type { Measured } from '../../bench/harness/campaign.mjs'
import { FORMAT, type RunRecord } from '../../bench/harness/record.mjs'
import { scenarioNamed } from '../../bench/harness/scenarios.mjs'
import { servers } from '../../bench/harness/servers.mjs'
import type { LoadResult } from '../../bench/harness/trial.mjs'

/** A trial in which a message takes `cpu` microseconds; the rest follows from that. */
export function trial(cpu: number, more: Partial<LoadResult> = {}): LoadResult {
  return {
    messages: 100_000,
    seconds: 1,
    messagesPerSecond: 1e6 / cpu,
    bytes: 6_400_000,
    p50Us: 10 * cpu,
    p99Us: 30 * cpu,
    p999Us: 60 * cpu,
    serverCpuNs: 1e8 * cpu,
    cpuUsPerMessage: cpu,
    connections: 64,
    errors: 0,
    ...more,
  }
}

export const named = (name: string) => {
  const found = servers.find((server) => server.name === name)
  if (found === undefined) throw new Error(`no server ${name}`)
  return { name, label: found.label }
}

/** A load with the CPU time per message of each server, one value a round. */
export function load(scenario: string, cpu: Record<string, number[]>, more: Partial<LoadResult> = {}): Measured {
  const found = scenarioNamed(scenario)
  if (found === undefined) throw new Error(`no scenario ${scenario}`)
  return {
    scenario: found,
    servers: Object.entries(cpu).map(([name, values]) => ({
      server: named(name),
      trials: values.map((value) => trial(value, more)),
    })),
  }
}

export function record(loads: Measured[], more: Partial<RunRecord> = {}): RunRecord {
  return {
    format: FORMAT,
    date: '2026-01-02T03:04:05.000Z',
    commit: { revision: '0123456789abcdef0123456789abcdef01234567', dirty: true },
    machine: { cpu: 'A CPU', cores: 2, memoryGiB: 8, kernel: 'Linux 6.1', node: 'v20.19.0', pinned: true },
    versions: { Node: '20.19.0', Bun: '1.4.5' },
    settings: { trials: 5, seconds: 1, warmup: 0.5, quick: false },
    tookSeconds: 600,
    skipped: [],
    absent: [],
    failures: [],
    loads,
    memory: [],
    syscalls: [],
    ...more,
  }
}
