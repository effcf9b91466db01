// The order of all trials, and what becomes of a server that fails. A trial is a function here; only for its window does
// a server run.

import { expect, onTestFinished, test, vi } from 'vitest'
import { type Campaign, type Failure, measureLoads } from '../../bench/harness/campaign.mjs'
import { Child, twoCores, withheld } from '../../bench/harness/child.mjs'
import { PEAK_ROUNDS } from '../../bench/harness/plan.mjs'
import { scenarioNamed } from '../../bench/harness/scenarios.mjs'
import { defaultBin, type Server, servers } from '../../bench/harness/servers.mjs'
import { runTrial } from '../../bench/harness/trial.mjs'
import { areBuilt } from './programs.ts'
import { trial } from './results.ts'

const server = (name: string): Server => ({ name, label: name, command: () => [] })
const scenario = (name: string) => scenarioNamed(name) ?? expect.unreachable(`no scenario ${name}`)
const [a, b, c] = ['a', 'b', 'c'].map(server) as [Server, Server, Server]
const settings = { bin: 'bin', seconds: 1, warmup: 0.5 }

type Trial = NonNullable<Campaign['trial']>
type Seen = { server: string; load: string[]; app: string }

/** Runs a campaign whose trials take `cpu` microseconds a message, or throw. */
async function campaign(groups: Campaign['groups'], more: Partial<Campaign> = {}, cpu = (_: Seen): number => 10) {
  const seen: Seen[] = []
  const attempt: Trial = async ({ name }, { app, load }) => {
    const at = { server: name, load, app }
    seen.push(at)
    return trial(cpu(at))
  }
  const measured = await measureLoads({ groups, rounds: 3, settings, trial: attempt, onStep: () => {}, ...more })
  return { seen, measured }
}

test('every round begins with another server', async () => {
  const { seen } = await campaign([[{ scenario: scenario('64b-64'), servers: [a, b, c] }]])
  expect(seen.map((at) => at.server).join('')).toBe('abcbaccab')
})

test('no server always follows the same one, and no load always the one that it is compared with', async () => {
  const group = ['64b-64', 'deadline'].map((name) => ({ scenario: scenario(name), servers: [a, b, c] }))
  const { seen } = await campaign([group], { rounds: 4 })
  const rounds = [0, 1, 2, 3].map((round) => seen.slice(round * 6, round * 6 + 6))
  const follows = (first: string, second: string) =>
    rounds.filter((round) =>
      round
        .map((at) => at.server)
        .join('')
        .includes(first + second),
    ).length
  expect([follows('a', 'b'), follows('b', 'a')]).toEqual([2, 1])
  expect(
    rounds.map((round) =>
      round
        .slice(0, 2)
        .map((at) => at.app)
        .join(),
    ),
  ).toEqual(['echo,deadline', 'deadline,echo', 'echo,deadline', 'deadline,echo'])
})

test('loads that have a goal get rounds of their own', async () => {
  const groups = ['16k-64', 'churn'].map((name) => [{ scenario: scenario(name), servers: [a] }])
  const { measured } = await campaign(groups, { rounds: 2, goalRounds: 5 })
  expect(measured.map(({ servers: [only] }) => only.trials.length)).toEqual([2, 5])
})

test('loads that are compared with each other are measured side by side', async () => {
  const group = ['64b-64', 'deadline'].map((name) => ({ scenario: scenario(name), servers: [a, b] }))
  const { seen } = await campaign([group], { rounds: 1 })
  expect(seen.map((at) => `${at.server} ${at.app}`)).toEqual(['a echo', 'a deadline', 'b echo', 'b deadline'])
})

test('a server that fails is left out of that load alone, with what it had measured before', async () => {
  const failures: Failure[] = []
  const groups = ['64b-64', 'churn'].map((name) => [{ scenario: scenario(name), servers: [a, b] }])
  let count = 0
  const cpu = (at: Seen) => {
    if (at.server === 'b' && !at.load.includes('churn') && ++count === 2) throw new Error('it crashed')
    return 10
  }
  const { measured, seen } = await campaign(groups, { onFailure: (failure) => failures.push(failure) }, cpu)
  expect(failures).toEqual([{ scenario: '64b-64', server: 'b', round: 1, reason: 'it crashed' }])
  expect(measured.map(({ servers }) => servers.map((each) => each.server.name))).toEqual([['a'], ['a', 'b']])
  expect(measured[0].servers[0].trials).toHaveLength(3)
  expect(seen).toHaveLength(3 + 2 + 6)
})

test('a failure fails the run where nobody is told of it', async () => {
  const groups = [[{ scenario: scenario('churn'), servers: [a] }]]
  const crash = () => {
    throw new Error('it crashed')
  }
  await expect(campaign(groups, {}, crash)).rejects.toThrow('connect, echo, close on a, round 1: it crashed')
})

test('an open loop runs at a share of the peak that was measured before it', async () => {
  const net = server('net')
  const peaks = [10, 20, 40]
  const cpu = ({ load }: Seen) => (load.includes('--rate') ? 1 : (peaks.shift() ?? expect.unreachable()))
  const { seen, measured } = await campaign([[{ scenario: scenario('rate'), servers: [a] }]], { rated: [net] }, cpu)
  expect(seen.slice(0, PEAK_ROUNDS).map((at) => at.server)).toEqual(['net', 'net', 'net'])
  expect(measured[0].rate).toBe(25_000) // half of the median of 100,000, 50,000 and 25,000
  for (const { server: name, load } of seen.slice(PEAK_ROUNDS)) {
    expect(name).toBe('a')
    expect(load.slice(-2)).toEqual(['--rate', '25000'])
  }
})

test('an open loop whose rate cannot be found is left out, and the other loads are measured', async () => {
  const failures: Failure[] = []
  const groups = ['rate', 'churn'].map((name) => [{ scenario: scenario(name), servers: [a] }])
  const cpu = (at: Seen) => {
    if (at.server === 'net') throw new Error('it crashed')
    return 10
  }
  const more = { rated: [server('net')], onFailure: (failure: Failure) => failures.push(failure) }
  const { measured } = await campaign(groups, more, cpu)
  expect(measured.map((load) => load.scenario.name)).toEqual(['churn'])
  expect(failures).toEqual([{ scenario: 'rate (its rate)', server: 'net', round: 0, reason: 'it crashed' }])
})

test.runIf(areBuilt)('a load may ask for a longer window than the run has', async () => {
  const [floor] = servers.filter(({ name }) => name === 'floor')
  const burst = { app: 'echo', load: ['--mode', 'burst', '--connections', '20'], minSeconds: 0.5 }
  const short = { bin: defaultBin, seconds: 0.1, warmup: 0.1 }
  const { seconds } = await runTrial(floor ?? expect.unreachable(), burst, short)
  expect(seconds).toBeGreaterThanOrEqual(0.5)
})

test('what a shell has set to tune a runtime does not reach the servers', async () => {
  vi.stubEnv('EDGEWIRE_DRIVER', 'waiter')
  vi.stubEnv('NODE_OPTIONS', '--no-warnings')
  vi.stubEnv('GOGC', 'off')
  vi.stubEnv('GOPATH', '/go')
  onTestFinished(() => void vi.unstubAllEnvs())
  expect(withheld()).toEqual(expect.arrayContaining(['EDGEWIRE_DRIVER', 'NODE_OPTIONS', 'GOGC']))
  const child = new Child('env', ['env'])
  await child.success(5000)
  const names = child.output.split('\n').map((line) => line.split('=')[0])
  expect(names).toEqual(expect.arrayContaining(['PATH', 'GOPATH']))
  expect(names.filter((name) => withheld().includes(name))).toEqual([])
})

test('the server and the load generator are not two threads of one core where there is another', () => {
  const pairs = (core: number) => [core & ~1, core | 1]
  const halves = (core: number) => [core % 4, (core % 4) + 4]
  expect(twoCores([0, 1, 2, 3], pairs)).toEqual([0, 2])
  expect(twoCores([1, 5, 6], halves)).toEqual([1, 6])
  expect(twoCores([0, 1, 2, 3], (core) => [core])).toEqual([0, 1])
  expect(twoCores([2, 3], pairs)).toEqual([2, 3])
})

test('when the time is up, later rounds are left out, never the first', async () => {
  const groups = ['64b-64', 'churn'].map((name) => [{ scenario: scenario(name), servers: [a, b] }])
  const { measured } = await campaign(groups, { budgetMs: -1 })
  expect(measured.map(({ servers }) => servers[0].trials.length)).toEqual([1, 1])
})
