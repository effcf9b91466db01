// From the file of a run to its report: goals, losses, the page, the pictures.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Measured } from '../../bench/harness/campaign.mjs'
import { noCharts, svgOf } from '../../bench/harness/charts.mjs'
import { REVISION } from '../../bench/harness/compare.mjs'
import { goals, judge } from '../../bench/harness/goals.mjs'
import { lossesIn } from '../../bench/harness/losses.mjs'
import { picturesOf } from '../../bench/harness/pictures.mjs'
import {
  describeTrials,
  portable,
  readRecord,
  recordRun,
  requireWritable,
  writeRecord,
} from '../../bench/harness/record.mjs'
import { pageOf, writeReport } from '../../bench/harness/report.mjs'
import { scenarios } from '../../bench/harness/scenarios.mjs'
import { load, named, record } from './results.ts'

const steady = (value: number) => [value, value * 1.01, value * 0.99, value, value * 1.005]
const outcome = (
  loads: Measured[],
  text: string,
  memory = [] as { server: { name: string; label: string }; bytes: number[] }[],
) => judge({ loads, memory }).find((each) => each.load.includes(text))

function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), 'edgewire-bench-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return folder
}

describe('a goal', () => {
  const fanout = (edgewire: number[]) => [load('fanout-1000', { net: [10, 10, 10, 10, 10], edgewire })]

  test('is met when the whole interval keeps the bound', () => {
    expect(outcome(fanout([3, 3.1, 3.2, 3.9, 4]), 'fan-out')).toMatchObject({ verdict: 'met' })
  })

  test('is not decided when the interval contains the bound', () => {
    expect(outcome(fanout([3, 3.1, 3.2, 3.9, 4.1]), 'fan-out')).toMatchObject({ verdict: 'not decided' })
  })

  test('is missed when the whole interval is beyond it', () => {
    expect(outcome(fanout([4.1, 4.2, 4.2, 4.3, 4.4]), 'fan-out')).toMatchObject({ verdict: 'missed' })
  })

  test.each([1, 2, 4])('is not decided by %i rounds, whose range has not the confidence', (rounds) => {
    const of = (cpu: number) => outcome([load('fanout-1000', { net: some(10), edgewire: some(cpu) })], 'fan-out')
    const some = (value: number) => Array<number>(rounds).fill(value)
    expect([of(1)?.verdict, of(9)?.verdict]).toEqual(['not decided', 'not decided'])
  })

  test('needs all of its bounds', () => {
    const cpu = { floor: steady(5), edgewire: steady(5.2), go: steady(9) }
    expect(outcome([load('64b-64', { ...cpu, bun: steady(8) })], '1 in flight')?.verdict).toBe('met')
    expect(outcome([load('64b-64', { ...cpu, bun: steady(4) })], '1 in flight')?.verdict).toBe('missed')
    expect(outcome([load('64b-64', cpu)], '1 in flight')?.verdict).toBe('not measured')
  })

  test('holds if it holds under the better driver', () => {
    const loads = [load('fanout-1000', { net: steady(10), edgewire: steady(6), 'edgewire-prepare': steady(3) })]
    const found = outcome(loads, 'fan-out')
    expect(found?.verdict).toBe('met')
    expect(found?.drivers.map(({ verdict }) => verdict)).toEqual(['missed', 'met'])
  })

  describe('whose bound the floor does not keep either', () => {
    const within = (floor: number[], servers: Record<string, number[]>) => {
      const found = outcome([load('fanout-1000', { net: steady(10), floor, ...servers })], 'fan-out')
      return found ?? expect.unreachable()
    }
    const beyond = [4.1, 4.2, 4.2, 4.3, 4.4]
    const open = [3.9, 4.2, 4.2, 4.3, 4.4]

    test('is out of reach, and says what the floor does', () => {
      const found = within(
        beyond.map((value) => value / 1.001),
        { edgewire: steady(6) },
      )
      expect(found.verdict).toBe('out of reach')
      expect(found.drivers[0].findings[0]).toMatchObject({ floor: '0.42 (0.41..0.44)', verdict: 'out of reach' })
    })

    test('is missed when the spread leaves open whether the floor keeps it', () => {
      const found = within(open, { edgewire: steady(6) })
      expect(found.verdict).toBe('missed')
      expect(found.drivers[0].findings[0].floor).toBe('0.42 (0.39..0.44)')
    })

    test('is missed when some server of the run keeps it, so that it can be kept', () => {
      expect(within(beyond, { edgewire: steady(6), go: steady(3) }).verdict).toBe('missed')
      expect(within(beyond, { edgewire: steady(6), go: open }).verdict).toBe('out of reach')
    })

    test('is met, or not decided, by what edgewire does', () => {
      expect(within(beyond, { edgewire: steady(3) }).verdict).toBe('met')
      expect(within(beyond, { edgewire: [3.9, 4.1, 4.1, 4.1, 4.1] }).verdict).toBe('not decided')
    })

    test('is missed where the floor was not measured', () => {
      expect(outcome(fanout(steady(6)), 'fan-out')?.verdict).toBe('missed')
      expect(outcome(fanout(steady(6)), 'fan-out')?.drivers[0].findings[0]).not.toHaveProperty('floor')
    })

    test('is as the better driver has it', () => {
      const verdicts = (edgewire: number[], prepare: number[]) =>
        within(beyond, { edgewire, 'edgewire-prepare': prepare }).drivers.map(({ verdict }) => verdict)
      expect(verdicts(steady(6), steady(7))).toEqual(['out of reach', 'out of reach'])
      expect(verdicts(steady(6), [3.9, 4.1, 4.1, 4.1, 4.1])).toEqual(['out of reach', 'not decided'])
      // That driver shows that it can be reached.
      expect(verdicts(steady(6), steady(3))).toEqual(['missed', 'met'])
      expect(within(beyond, { edgewire: steady(6), 'edgewire-prepare': open }).verdict).toBe('not decided')
    })

    test('asks for less than another server takes: being ahead of it is never out of reach', () => {
      const ahead = { floor: steady(9), edgewire: steady(9), bun: steady(5), go: steady(12) }
      const [driver] = outcome([load('64b-64', ahead)], '1 in flight')?.drivers ?? []
      expect(driver?.findings.map(({ verdict }) => verdict)).toEqual(['met', 'missed', 'met'])
      expect(driver?.findings.some((finding) => 'floor' in finding)).toBe(false)
    })

    test('is missed all the same with another bound that could be reached; else no other bound matters', () => {
      // At most 1.1 x floor, and 0.25 x net.
      const goal = (floor: number[], edgewire: number[], prepare = edgewire) =>
        outcome([load('64k-64', { floor, net: steady(10), edgewire, 'edgewire-prepare': prepare })], '64 KiB x 64')
      expect(goal(steady(6), steady(6.2))?.verdict).toBe('out of reach')
      expect(goal(steady(6), steady(8))?.verdict).toBe('missed')
      expect(goal(steady(6), [6, 6.2, 6.2, 6.4, 8])?.verdict).toBe('out of reach')
      expect(goal(steady(6), steady(8), steady(6.2))?.verdict).toBe('out of reach')
    })
  })

  test('compares a load with another one of the same server', () => {
    const loads = [load('64b-64', { edgewire: steady(5) }), load('deadline', { edgewire: steady(6) })]
    expect(outcome(loads, 'deadline')?.verdict).toBe('missed')
  })

  test('counts the bytes of an idle connection', () => {
    const memory = (bytes: number[]) => [{ server: named('edgewire'), bytes }]
    expect(outcome([], 'idle', memory([390, 395, 395, 396, 400]))?.verdict).toBe('met')
    expect(outcome([], 'idle', memory([390, 395, 395, 396, 401]))?.verdict).toBe('not decided')
    expect(outcome([], 'idle', memory([410, 420, 420, 425, 430]))?.verdict).toBe('missed')
    expect(outcome([], 'idle', memory([390, 395, 400]))?.verdict).toBe('not decided')
  })

  test('is about loads that exist', () => {
    const known = scenarios.map(({ name }) => name)
    for (const { scenario, toLoad = scenario } of goals.flatMap(({ bounds }) => bounds)) {
      expect(known).toEqual(expect.arrayContaining([scenario, toLoad]))
    }
  })
})

describe('where edgewire loses', () => {
  test('is every load and metric in which another is ahead by more than the spread', () => {
    const loads = [
      load('64b-64', { floor: steady(5), net: steady(12), edgewire: steady(6), bun: steady(4) }),
      load('churn', { net: [3, 9, 3, 9, 3], edgewire: [6, 6, 6, 6, 6] }),
    ]
    const { peers, floor, undecided } = lossesIn({ loads, memory: [] })
    expect(peers).toHaveLength(1)
    expect(peers[0]).toMatchObject({ load: '64 B x 64 conns', server: 'Bun.listen' })
    expect(peers[0].points.join()).toMatch(/CPU per message x1\.50,messages a second x0\.67,p50 x1\.50,p99 x1\.50/)
    expect(floor.map(({ server }) => server)).toEqual(['C floor'])
    expect(undecided).toBe(4)
  })

  test('includes what is behind by an interval too wide for a ratio', () => {
    const loads = [load('64b-64', { net: steady(1), edgewire: [2, 3, 5, 7, 9] })]
    const { peers, undecided } = lossesIn({ loads, memory: [] })
    expect(peers[0].points[0]).toMatch(/^CPU per message ~ 2\.00\.\.8\.9\d$/)
    expect(peers[0].points).toHaveLength(4)
    expect(undecided).toBe(0)
    const ahead = lossesIn({ loads: [load('64b-64', { net: [2, 3, 5, 7, 9], edgewire: steady(1) })], memory: [] })
    expect([ahead.peers, ahead.undecided]).toEqual([[], 0])
  })

  test('is not told by one round', () => {
    const { peers, undecided } = lossesIn({ loads: [load('64b-64', { net: [1], edgewire: [9] })], memory: [] })
    expect([peers, undecided]).toEqual([[], 4])
  })

  test('looks at the p99.9 of an open loop', () => {
    const rated = { ...load('rate', { bun: steady(4), edgewire: steady(5) }), rate: 1000 }
    expect(lossesIn({ loads: [rated], memory: [] }).peers[0].points.join()).toContain('p99.9 x1.25')
  })

  test('does not count the rate of an open loop', () => {
    const rated = { ...load('rate', { bun: steady(4), edgewire: steady(5) }), rate: 1000 }
    expect(lossesIn({ loads: [rated], memory: [] }).peers[0].points.join()).not.toContain('a second')
  })

  test('counts memory', () => {
    const memory = [
      { server: named('edgewire'), bytes: [500, 510, 520] },
      { server: named('bun'), bytes: [300, 310, 320] },
    ]
    expect(lossesIn({ loads: [], memory }).peers).toEqual([
      { load: 'idle connection', server: 'Bun.listen', points: [expect.stringContaining('bytes each')] },
    ])
  })
})

const full = record(
  [
    load(
      '64b-64',
      { floor: steady(5), net: steady(12), edgewire: steady(5.5), bun: [4, 9, 4, 9, 5] },
      { contextSwitches: 10 },
    ),
    { ...load('rate', { net: steady(9), edgewire: steady(5) }, { missed: 0 }), rate: 50_000 },
  ],
  {
    skipped: ['go: the Go server is not installed'],
    failures: [{ scenario: 'churn', server: 'deno', round: 1, reason: 'it crashed\nwith a stack' }],
    memory: [{ server: named('edgewire'), bytes: [500, 505, 510, 515, 520] }],
    syscalls: [
      { scenario: '64b-64', server: named('edgewire'), calls: { all: 2.05, byName: { recvfrom: 1, sendto: 1 } } },
    ],
  },
)

test('a run of --compare does not become the page', async () => {
  const compared = load('churn', { edgewire: steady(5) })
  compared.servers.push({ server: { name: REVISION, label: 'HEAD~1' }, trials: compared.servers[0].trials })
  const root = scratch()
  await expect(writeReport(record([compared]), root)).rejects.toThrow('--compare')
  expect(readdirSync(root)).toEqual([])
})

describe('the page', () => {
  const page = pageOf(full, picturesOf(full))

  test('says what ran, and where', () => {
    expect(page).toContain('edgewire 0123456789ab with uncommitted changes; Node 20.19.0, Bun 1.4.5')
    expect(page).toContain('2026-01-02, 5 trials of 1 s each')
    expect(page).toContain('A CPU, 2 cores')
  })

  test('says where a trial was longer than the others', () => {
    const echo = record([load('64b-64', { net: steady(9), edgewire: steady(5) })])
    expect(pageOf(echo, [])).toContain('5 trials of 1 s each after 0.5 s of warm-up')
    const burst = record([load('burst-5000', { net: steady(9), edgewire: steady(5) })])
    expect(pageOf(burst, [])).toContain('5 trials of 1 s each (5000 connects at once: 3 s) after 0.5 s of warm-up')
  })

  test('shows every goal', () => {
    for (const { load: text } of goals) expect(page).toContain(`| ${text} |`)
    expect(page).toMatch(/\| idle connection \| \*\*missed\*\* \|/)
  })

  test('counts the goals under the default driver, too: the better one is another look at each', () => {
    const cpu = { net: steady(10), edgewire: steady(6), 'edgewire-prepare': steady(3) }
    const text = pageOf(record([load('fanout-1000', cpu)]), [])
    expect(text).toMatch(/\n1 met, 0 missed, 0 out of reach, 0 not decided, \d+ not measured\. A goal/)
    expect(text).toMatch(/With the default driver alone: 0 met, 1 missed, 0 out of reach, 0 not decided, /)
  })

  test('counts the goals that are out of reach apart, and shows what the floor does', () => {
    const unreached = record([load('lines', { floor: steady(6), net: steady(10), edgewire: steady(8) })])
    const text = pageOf(unreached, [])
    expect(text).toContain('0 met, 0 missed, 1 out of reach, 0 not decided, 13 not measured.')
    expect(text).toMatch(
      /^\| line protocol \| \*\*out of reach\*\* \|.* at most 0\.5 x net \| 0\.80 \(.*\) \| 0\.60 \(.*\) \| out of reach \|$/m,
    )
  })

  test('refuses the ratio that the spread swallows', () => {
    const line = page.split('\n').find((text) => text.includes('Bun.listen'))
    expect(line).toContain('~ 0.80..1.80')
    expect(line).not.toMatch(/x\d/)
  })

  test('says where edgewire loses, what was skipped and what failed', () => {
    expect(page).toContain('## Where edgewire loses')
    expect(page).toMatch(/\| 64 B x 64 conns \| C floor \| CPU per message x1\.10/)
    expect(page).toContain('- Skipped: go: the Go server is not installed.')
    expect(page).toContain('- deno failed in churn: it crashed')
    expect(page).not.toContain('with a stack')
  })

  test('links the pictures that there are, and no others', () => {
    const linked = [...page.matchAll(/\(benchmarks\/([\w-]+\.svg)\)/g)].map(([, file]) => file)
    expect(linked.sort()).toEqual(['cpu-echo.svg', 'latency.svg', 'memory.svg'])
  })

  test('has tables whose rows are as long as their heads', () => {
    const tables = page.split('\n\n').filter((block) => block.startsWith('|'))
    expect(tables.length).toBeGreaterThan(4)
    for (const table of tables) {
      expect(
        new Set(
          table
            .trim()
            .split('\n')
            .map((line) => line.split('|').length),
        ).size,
        table,
      ).toBe(1)
    }
  })
})

test.skipIf(noCharts() !== undefined)('a chart is SVG on white, with the values as text', () => {
  for (const { chart } of picturesOf(full)) {
    const svg = svgOf(chart)
    expect(svg).toMatch(/^<svg /)
    expect(svg).toContain('fill="#ffffff"')
    for (const { bars } of chart.panels)
      for (const { text, label } of bars) {
        expect(svg).toContain(`>${text}</text>`)
        expect(svg).toContain(`>${label}</text>`)
      }
  }
})

describe('the file of a run', () => {
  test('is read as it was written, a trial a line', () => {
    const file = join(scratch(), 'deep', 'run.json')
    writeRecord(file, full)
    expect(readRecord(file)).toEqual(JSON.parse(JSON.stringify(full)))
  })

  test('replaces an older one only as a whole', () => {
    const folder = scratch()
    const file = join(folder, 'run.json')
    writeRecord(file, full)
    const endless = { ...full, versions: { toJSON: () => expect.unreachable('the disk is full') } }
    expect(() => writeRecord(file, endless as unknown as typeof full)).toThrow('the disk is full')
    expect(readRecord(file).date).toBe(full.date)
    // A folder cannot be replaced: what was written beside it goes.
    mkdirSync(join(folder, 'taken', 'by'), { recursive: true })
    expect(() => writeRecord(join(folder, 'taken'), full)).toThrow()
    expect(readdirSync(folder).sort()).toEqual(['run.json', 'taken'])
  })

  test('is known to be writable before anything is measured', () => {
    const folder = scratch()
    writeFileSync(join(folder, 'a'), 'a')
    expect(() => requireWritable(folder)).toThrow('it is a folder')
    expect(() => requireWritable(join(folder, 'a', 'run.json'))).toThrow('cannot be written')
    requireWritable(join(folder, 'new', 'run.json'))
    requireWritable(join(folder, 'a'))
    expect(readdirSync(join(folder, 'new'))).toEqual([])
    expect(readFileSync(join(folder, 'a'), 'utf8')).toBe('a')
  })

  test('says how many trials there were, not how many were asked for', () => {
    const of = (trials: number, goalTrials?: number) =>
      describeTrials({
        ...full,
        settings: { ...full.settings, trials, ...(goalTrials !== undefined && { goalTrials }) },
      })
    expect([of(5), of(9), of(5, 21)]).toEqual(['5 trials', '5 trials', '5 trials (21 under loads that have a goal)'])
    const one = load('churn', { net: [9], edgewire: [5] })
    expect(describeTrials({ ...full, loads: [...full.loads, one] })).toBe('1 to 5 trials')
    expect(describeTrials({ ...full, loads: [one] })).toBe('1 trial')
  })

  test('names the commit that was there when it began, and its changes of then', async () => {
    const repo = scratch()
    const git = (...args: string[]) => {
      const identity = ['-c', 'user.name=a', '-c', 'user.email=a@example.com', '-c', 'commit.gpgsign=false']
      const { status, stdout, stderr } = spawnSync('git', ['-C', repo, ...identity, ...args], { encoding: 'utf8' })
      expect(status, stderr).toBe(0)
      return stdout.trim()
    }
    const commit = () => {
      git('add', '.')
      git('commit', '--quiet', '--allow-empty', '--message', 'a change')
      return git('rev-parse', 'HEAD')
    }
    const edit = (text: string) => writeFileSync(join(repo, 'a.mjs'), text)
    const { settings, skipped, absent, failures, loads, memory, syscalls } = full
    const run = (meanwhile: () => unknown) =>
      recordRun(repo, settings, async () => {
        meanwhile()
        return { skipped, absent, failures, loads, memory, syscalls }
      })

    git('init', '--quiet')
    const first = commit()
    const edited = await run(() => edit('edited while it runs'))
    expect(edited.commit).toEqual({ revision: first, dirty: false })
    expect({ ...edited, loads: edited.loads.length }).toMatchObject({
      format: full.format,
      settings,
      loads: loads.length,
    })

    const committed = await run(commit)
    expect(committed.commit).toEqual({ revision: first, dirty: true })
  })

  test.each([
    ['{"format": 0}', 'not a result of this benchmark'],
    ['null', 'not a result of this benchmark'],
    ['[', 'cannot be read'],
  ])('%s is refused', (text, reason) => {
    const file = join(scratch(), 'run.json')
    writeFileSync(file, text)
    expect(() => readRecord(file)).toThrow(reason)
  })

  test('says nothing about where it was made', () => {
    const said = 'Module not found "\u001b[1mfile:///clone/bench/a.mjs\u001b[0m" from /clone/bench/b.mjs'
    expect(portable(said, '/clone/')).toBe('Module not found "bench/a.mjs" from bench/b.mjs')
  })

  test('that is missing is refused', () => {
    expect(() => readRecord(join(scratch(), 'none.json'))).toThrow('cannot be read')
  })
})
