// What the documents list is what the code has: codes, states, files, layers, phases, budgets.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { libLayers, nativeLayers } from '../tidy/layers.ts'
import { filesIn } from '../tidy/tree.ts'
import { root } from './program.ts'

const read = (path: string) => readFileSync(join(root, path), 'utf8')
const architecture = read('docs/ARCHITECTURE.md')
const errors = read('lib/errors.ts')

/** The text between two strings; both must be there, so that a renamed heading fails a test and does not empty it. */
function between(text: string, start: string, end: string): string {
  const from = text.indexOf(start)
  const to = text.indexOf(end, from + start.length)
  if (from < 0 || to < 0) throw new Error(`no text between '${start}' and '${end}'`)
  return text.slice(from + start.length, to)
}

const matches = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match[1] ?? '').sort()

describe('docs/errors.md', () => {
  const document = read('docs/errors.md')

  test('has exactly the codes of OwnCode', () => {
    const documented = matches(between(document, '## Codes of edgewire', '\n## '), /^- `(\w+)`/gm)
    expect(documented).toEqual(matches(between(errors, 'export type OwnCode', '\n\n'), /'(\w+)'/g))
  })

  test('has exactly the system codes with words of their own', () => {
    const documented = matches(between(document, '## Codes of the system', '\nA name'), /^- `(\w+)`/gm)
    expect(documented).toEqual(matches(between(errors, 'const reasons', '\n}'), /^ {2}(\w+):/gm))
  })
})

describe('docs/lifecycle.md', () => {
  const document = read('docs/lifecycle.md')
  const states = matches(between(read('lib/net.ts'), 'export type ConnState', '\n\n'), /'([\w-]+)'/g)

  test('has exactly the states of ConnState in its table', () => {
    expect(matches(between(document, '## What each state allows', '\nA connection'), /^\| `([\w-]+)`/gm)).toEqual(
      states,
    )
  })

  test('has exactly the states of ConnState in its diagram', () => {
    const diagram = between(document, '```mermaid', '```')
    const drawn = [...matches(diagram, /^ *([\w-]+) -->/gm), ...matches(diagram, /--> ([\w-]+)/g)]
    expect([...new Set(drawn)].sort()).toEqual(states)
  })
})

describe('docs/ARCHITECTURE.md', () => {
  test('draws the layers of test/tidy/layers.ts', () => {
    const picture = between(architecture, '## Layers', '\n## ')
    const columns = picture.split('\n').map((line) => [line.slice(0, 48), line.slice(48)])
    for (const [column, layers] of [nativeLayers, libLayers].entries()) {
      const drawn = columns.map((line) => (line[column] ?? '').trim()).filter((text) => /^\w/.test(text))
      const named = drawn.map((text) => text.replace(/ \(.*\)$/, '')).filter((text) => !text.endsWith('/'))
      expect(named.reverse().filter((name) => layers.some((layer) => layer.name === name))).toEqual(
        layers.map(({ name }) => name),
      )
    }
  })

  test('has every file of native/ and lib/', () => {
    const table = between(architecture, '## The files', '\n## ')
    const files = [...filesIn('native', /\.(cc|h)$/), ...filesIn('lib', /\.ts$/)]
    const missing = files.filter((path) => {
      const name = path.slice(path.lastIndexOf('/') + 1)
      return !path.startsWith('lib/cli/') && !new RegExp(`[ /]${name.replaceAll('.', '\\.')}[, ]`).test(table)
    })
    expect(missing).toEqual([])
  })

  test('lists the phases of a turn', () => {
    const declared = matches(
      between(read('native/core/reactor.h'), '-- phases', 'another_round'),
      /void (\w+_phase)\(/g,
    )
    expect(matches(architecture, /^\| `(\w+_phase)`/gm)).toEqual(declared)
  })

  test('gives the budgets their names and values', () => {
    const source = read('native/core/reactor.h') + read('native/core/poller.h')
    const units: Record<string, number> = { KiB: 1024, MiB: 1024 ** 2, s: 1000, ms: 1 }
    const rows = [...architecture.matchAll(/^\| `(k\w+)`[^|]*\| (\d+) ?(KiB|MiB|ms|s)?\b/gm)]
    expect(rows.length).toBeGreaterThan(5)
    for (const [, name = '', number = '', unit] of rows) {
      const value = new RegExp(`\\b${name} = ([\\d* ]+)[;,]`).exec(source)?.[1] ?? 'missing'
      const product = value.split('*').reduce((all, factor) => all * Number(factor), 1)
      expect({ [name]: product }).toEqual({ [name]: Number(number) * (unit === undefined ? 1 : (units[unit] ?? 0)) })
    }
  })
})
