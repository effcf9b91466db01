// What a command line of the benchmark leads to: options, servers, loads, time.

import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { buildRevision } from '../../bench/harness/compare.mjs'
import { parseOptions } from '../../bench/harness/options.mjs'
import {
  chosenServers,
  countTrials,
  describeTime,
  estimate,
  PEAK_ROUNDS,
  planLoads,
  withIdle,
} from '../../bench/harness/plan.mjs'
import { isOlder } from '../../bench/harness/runtimes.mjs'
import { scenarios } from '../../bench/harness/scenarios.mjs'
import { type Server, servers } from '../../bench/harness/servers.mjs'
import { present } from '../../bench/harness/start.mjs'

const parse = (...args: string[]) => parseOptions(args, { throws: true })
const names = (list: { name: string }[]) => list.map(({ name }) => name)
const server = (name: string, more: Partial<Server> = {}): Server => ({ name, label: name, command: () => [], ...more })

describe('options', () => {
  test('a full run has five trials and counts system calls', () => {
    expect(parse()).toMatchObject({ trials: 5, quick: false, syscalls: true, installPeers: false })
  })

  test('a quick run has fewer and shorter ones, unless it is told otherwise', () => {
    expect(parse('--quick').trials).toBeLessThan(parse().trials)
    expect(parse('--quick').seconds).toBeLessThan(parse().seconds)
    expect(parse('--quick', '--trials', '9')).toMatchObject({ trials: 9, syscalls: false })
  })

  test('--server is another name of --peer', () => {
    expect(parse('--peer', 'net', 'go', '--server', 'net', 'bun').servers).toEqual(['net', 'go', 'bun'])
  })

  test('--idle alone measures nothing else', () => {
    expect(parse('--idle').scenarios).toEqual(['idle'])
    expect(parse('--idle', '--scenario', 'churn').scenarios).toEqual(['churn', 'idle'])
  })

  test.each([
    [['--peer', 'nginx'], 'nginx'],
    [['--scenario', 'everything'], 'everything'],
    [['--trials', '0'], 'positive'],
    [['--trials', '2.5'], 'positive'],
    [['--seconds', 'long'], '0.01 to 3600'],
    [['--seconds', '0.001'], '0.01 to 3600'],
    [['--warmup', '1e9'], '0.01 to 3600'],
    [['--goal-trials', '1e400'], 'positive'],
    [['--report', 'a.json', '--quick'], 'no other option'],
    [['--install-peers', '--trials', '3'], 'no other option'],
    [['--compare', 'HEAD', '--peer', 'net'], 'takes no --peer'],
  ])('%j is refused', (args, reason) => {
    expect(() => parse(...args)).toThrow(reason)
  })
})

describe('a plan', () => {
  test('of a full run has every load but the rare ones, each with every server that takes part everywhere', () => {
    const { groups } = planLoads({}, servers)
    const entries = groups.flat()
    expect(names(entries.map(({ scenario }) => scenario)).sort()).toEqual(
      names(scenarios.filter(({ rare }) => !rare)).sort(),
    )
    for (const { scenario, servers: found } of entries) {
      const everywhere = servers.filter(({ name, some }) => !some && scenario.without?.[name] === undefined)
      expect(names(found), scenario.name).toEqual(expect.arrayContaining(names(everywhere)))
    }
  })

  test('a server of some loads takes part in others when it is asked for', () => {
    const deno = servers.filter(({ name }) => name === 'deno')
    expect(planLoads({ scenarios: ['16k-64'] }, deno).groups).toEqual([])
    expect(planLoads({ scenarios: ['16k-64'], servers: ['deno'] }, deno).groups).toHaveLength(1)
  })

  test('a rare load is there when it is named', () => {
    const rare = names(scenarios.filter((scenario) => scenario.rare))
    expect(rare.length).toBeGreaterThan(0)
    const entries = planLoads({ scenarios: rare }, servers).groups.flat()
    expect(names(entries.map(({ scenario }) => scenario))).toEqual(rare)
  })

  test('a load comes with the one that it is compared with, in one group', () => {
    const { groups } = planLoads({ scenarios: ['deadline'] }, servers)
    expect(groups.map((group) => names(group.map(({ scenario }) => scenario)))).toEqual([['64b-64', 'deadline']])
  })

  test('a server that cannot take part is left out by name', () => {
    const { groups, absent } = planLoads(
      { scenarios: ['sink'], servers: ['net', 'edgewire-task'] },
      servers.filter(({ name }) => ['net', 'edgewire-task'].includes(name)),
    )
    expect(names(groups.flat()[0].servers)).toEqual(['net'])
    expect(absent).toEqual([{ scenario: 'sink', server: 'edgewire-task', reason: expect.any(String) }])
  })

  test('a burst that overflows the backlog of one server is no failure of that server', () => {
    const { groups, absent } = planLoads({ scenarios: ['burst-5000'] }, servers)
    expect(names(groups.flat()[0].servers)).not.toContain('bun')
    expect(absent).toEqual([{ scenario: 'burst-5000', server: 'bun', reason: expect.stringContaining('backlog') }])
  })

  test('every load that another is compared with exists and is no such load itself', () => {
    for (const { beside } of scenarios) {
      if (beside !== undefined) expect(scenarios.find(({ name }) => name === beside)).not.toHaveProperty('beside')
    }
    expect(new Set(names(scenarios)).size).toBe(scenarios.length)
  })

  test('idle connections are part of a full run, and of none that is quick or about something else', () => {
    expect(withIdle({})).toBe(true)
    expect(withIdle({ quick: true })).toBe(false)
    expect(withIdle({ scenarios: ['churn'] })).toBe(false)
    expect(withIdle({ scenarios: ['idle'] })).toBe(true)
  })
})

describe('the estimate', () => {
  const extent = (...args: string[]) => {
    const options = parse(...args)
    const found = chosenServers(options, servers)
    const { groups } = planLoads(options, found)
    const syscalls = options.syscalls ? groups.flat().filter(({ scenario }) => scenario.syscalls) : []
    const idle = withIdle(options) ? found.filter(({ some }) => !some) : []
    const { trials: rounds, goalTrials: goalRounds, seconds, warmup } = options
    return { groups, syscalls, idle, rounds, ...(goalRounds !== undefined && { goalRounds }), seconds, warmup }
  }

  test('counts a trial for each server, load and round, and those that find a peak', () => {
    const { groups } = extent('--scenario', 'rate', '64b-1', '--peer', 'net', 'edgewire')
    expect(countTrials(groups, { rounds: 5 })).toBe(2 * 2 * 5 + PEAK_ROUNDS)
  })

  test('--goal-trials counts under the loads that have a goal, and what is measured beside them', () => {
    const options = ['--peer', 'net', 'edgewire', '--trials', '5', '--goal-trials', '21', '--no-syscalls']
    const trials = (...names: string[]) => {
      const { groups, ...wanted } = extent('--scenario', ...names, ...options)
      return countTrials(groups, wanted)
    }
    expect(trials('16k-64')).toBe(2 * 5)
    expect(trials('churn')).toBe(2 * 21)
    expect(trials('16k-64', 'deadline')).toBe(2 * 5 + 2 * 2 * 21) // with 64b-64, which it is compared with
    expect(trials('rate')).toBe(2 * 21 + PEAK_ROUNDS)
  })

  test('counts the longer window that a load may have', () => {
    const burst = ['--scenario', 'burst-5000', '--peer', 'net', '--trials', '1', '--no-syscalls']
    const seconds = (text: string) => estimate(extent(...burst, '--seconds', text))
    expect(seconds('0.5')).toBeCloseTo(seconds('3'))
    expect(seconds('5')).toBeCloseTo(seconds('3') + 2)
  })

  test('a quick run fits into three minutes, a full one with all servers into half an hour', () => {
    expect(estimate(extent('--quick'))).toBeLessThan(180)
    expect(estimate(extent())).toBeLessThan(2050)
  })

  test('grows with everything that is measured', () => {
    const base = extent('--scenario', '64b-64', '--no-syscalls')
    expect(estimate({ ...base, rounds: base.rounds + 1 })).toBeGreaterThan(estimate(base))
    expect(estimate({ ...base, goalRounds: base.rounds + 1 })).toBeGreaterThan(estimate(base))
    expect(estimate({ ...base, idle: [server('a')] })).toBeGreaterThan(estimate(base))
    expect(estimate({ ...base, syscalls: base.groups.flat() })).toBeGreaterThan(estimate(base))
  })

  test('is said in words', () => {
    expect(describeTime(42)).toBe('about 42 s')
    expect(describeTime(1500)).toBe('about 25 minutes')
  })
})

describe('a server that is not there', () => {
  const works = async () => undefined

  test('is skipped by name, with the reason in one line', async () => {
    const gone = server('go', { missing: () => 'the Go server is not installed' })
    const { found, skipped } = await present([server('net'), gone], 'bin', works)
    expect(names(found)).toEqual(['net'])
    expect(skipped).toEqual(['go: the Go server is not installed'])
  })

  test('or does not start, as well', async () => {
    const attempt = async ({ name }: Server) => (name === 'bun' ? 'ended with status 1' : undefined)
    expect(await present([server('bun'), server('net')], 'bin', attempt)).toMatchObject({
      skipped: ['bun: ended with status 1'],
    })
  })

  test('fails the run if it is one that comes with the clone', async () => {
    await expect(present([server('edgewire')], 'bin', async () => 'broken')).rejects.toThrow('broken')
  })

  test('fails the run if no other is left', async () => {
    const gone = server('go', { missing: () => 'not installed' })
    await expect(present([gone], 'bin', works)).rejects.toThrow(/no server is left.*\n.*go: not installed/)
  })
})

test('a program that was built before its source was changed is found out', () => {
  const folder = mkdtempSync(join(tmpdir(), 'edgewire-bench-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const [source, program] = [join(folder, 'source'), join(folder, 'program')]
  mkdirSync(source)
  for (const file of [join(source, 'a.go'), join(source, 'b.go'), program]) writeFileSync(file, '')
  const changed = (file: string, seconds: number) => utimesSync(file, seconds, seconds)
  changed(program, 2000)
  changed(join(source, 'a.go'), 1000)
  changed(join(source, 'b.go'), 1500)
  expect(isOlder(program, source)).toBe(false)
  changed(join(source, 'b.go'), 2500)
  expect(isOlder(program, source)).toBe(true)
})

test('a revision that git does not know is refused before anything is built', () => {
  expect(() => buildRevision('no-such-revision')).toThrow('git knows no revision "no-such-revision"')
  expect(() => buildRevision('--help')).toThrow('git knows no revision "--help"')
})
