// The documents say what the run that is committed says, no more and no less: their figures are made from its file.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { noCharts, svgOf } from '../../bench/harness/charts.mjs'
import { excerptFiles, fillIn } from '../../bench/harness/excerpts.mjs'
import { picturesOf } from '../../bench/harness/pictures.mjs'
import { type RunRecord, readRecord } from '../../bench/harness/record.mjs'
import { pageOf } from '../../bench/harness/report.mjs'
import { root } from '../../bench/harness/servers.mjs'
import { load, named, record } from './results.ts'

const reference = readRecord(join(root, 'bench/results/reference.json'))
const pictures = picturesOf(reference)
const read = (file: string) => readFileSync(join(root, file), 'utf8')
const REMEDY = 'npm run bench -- --report bench/results/reference.json makes it'

test.each(excerptFiles)('%s repeats the figures of the run that is committed', (file) => {
  const text = read(file)
  expect(text, REMEDY).toBe(fillIn(file, text, reference))
})

test('docs/benchmarks.md is the page of the run that is committed', () => {
  expect(read('docs/benchmarks.md'), REMEDY).toBe(pageOf(reference, pictures))
})

test('docs/benchmarks has its charts, and no others', () => {
  expect(readdirSync(join(root, 'docs/benchmarks')).sort()).toEqual(pictures.map(({ file }) => file).sort())
})

// What draws them comes with the peers.
const charts = noCharts() === undefined || process.env.EDGEWIRE_REQUIRE_PEERS === '1'
test.runIf(charts)('the charts are those of the run that is committed', () => {
  for (const { file, chart } of pictures) expect(read(`docs/benchmarks/${file}`), REMEDY).toBe(svgOf(chart))
})

describe('a part that is made from a run', () => {
  const steady = (value: number) => [value, value * 1.01, value * 0.99, value, value * 1.005]
  const part = (run: RunRecord) => {
    const text = fillIn('README.md', 'before <!-- bench:what-it-costs -->old<!-- /bench:what-it-costs --> after', run)
    expect(text).toMatch(/^before <!-- bench:what-it-costs -->\n\n\|/)
    expect(text).toMatch(/\.\n\n<!-- \/bench:what-it-costs --> after$/)
    expect(text).not.toContain('old')
    return text
  }
  const ahead = { floor: steady(5), net: steady(10), edgewire: steady(6) }

  test('has a row for each of its loads that was measured', () => {
    const text = part(record([load('64b-64', ahead), load('churn', { net: steady(10), edgewire: steady(7) })]))
    expect(text.match(/^\| .*$/gm)).toEqual([
      '| load | to net.Server | to a bare C loop on epoll |',
      '| 64 B x 64 connections | x0.60 | x1.20 |',
      '| connect, echo 64 B, close | x0.70 |  |',
    ])
    expect(text).toContain('The run: 2026-01-02, 5 trials of each, on A CPU, 2 cores, Linux 6.1, Node 20.19.')
  })

  test('shows the range alone where the spread swallows a ratio, and says what that means', () => {
    const floor = [4, 9, 4, 9, 5]
    const text = part(record([load('64b-64', { ...ahead, floor })]))
    expect(text).toContain('| 64 B x 64 connections | x0.60 | ~ 0.67..1.50 |')
    expect(text).toContain('`~`:')
    expect(text).not.toContain('`same`:')
    const even = part(record([load('64b-64', { ...ahead, floor: steady(6) })]))
    expect(even).toContain('| x0.60 | same |')
    expect(even).toContain('`same`:')
    expect(even).not.toContain('`~`:')
  })

  test('names every load in which net.Server is ahead, and says nothing of it where it is nowhere', () => {
    const sink = load('sink', { net: steady(5), edgewire: steady(10), bun: steady(2) })
    const text = part(record([load('64b-64', ahead), sink])).replaceAll('\n', ' ')
    expect(text).toContain(
      '64 MiB to the server (CPU per message x2.00, messages a second x0.50, p50 x2.00, p99 x2.00).',
    )
    expect(text).not.toContain('64 B x 64 conns (')
    expect(text).not.toContain('x5.00')
    expect(part(record([load('64b-64', { ...ahead, bun: steady(2) })]))).not.toContain('loses')
  })

  test('has the memory of idle connections', () => {
    const memory = [
      { server: named('edgewire'), bytes: [150, 130, 140] },
      { server: named('net'), bytes: [3900, 4100, 4000] },
    ]
    expect(part(record([load('64b-64', ahead)], { memory }))).toContain(
      'An idle connection takes 140 bytes of the process (130..150), one of `net.Server` 4,000 (3,900..4,100);',
    )
    expect(part(record([load('64b-64', ahead)]))).not.toContain('idle')
  })

  test('is within the width of the documents', () => {
    const loads = ['sink', 'source', 'lines', 'frames'].map((name) =>
      load(name, { net: steady(5), edgewire: steady(9) }),
    )
    const lines = part(record(loads)).split('\n')
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(120)
  })

  test('must have its place', () => {
    for (const text of [
      '',
      '<!-- bench:what-it-costs -->',
      '<!-- /bench:what-it-costs --><!-- bench:what-it-costs -->',
    ]) {
      expect(() => fillIn('README.md', text, record([]))).toThrow('README.md has no part between')
    }
  })
})
