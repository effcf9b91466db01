// One test that reads the tree: what review would otherwise have to remember. A failure lists every place.

import { createRequire } from 'node:module'
import { homedir } from 'node:os'
import { posix } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, test } from 'vitest'
import { type Edge, findCycle, type Layer, libEdges, libLayers, nativeEdges, nativeLayers, rankOf } from './layers.ts'
import { allFiles, exists, filesIn, linesOf, read, root, textFiles } from './tree.ts'

const FILE_LINES_MAX = 450
const FUNCTION_LINES_MAX = 70
const ADDON_EXPORTS_MAX = 12

// Longer than the limit, each with its length. An entry may only shrink, and goes when it is no longer needed.
const longFiles: Record<string, number> = {}
const longFunctions: Record<string, number> = {}

// Where the operating system may be asked for; everywhere else binding.gyp picks a file.
const platformFiles = [
  /^native\/core\/sys\.(cc|h)$/,
  /^native\/core\/sockaddr\.cc$/,
  /^native\/core\/poller_\w+\.cc$/,
  /^native\/node\/driver_\w+\.cc$/,
]

const code = textFiles.filter((path) => /\.(cc|h|ts|mjs|js)$/.test(path) && !path.startsWith('bench/peers/'))

/** Every place that breaks a rule, one a line; the rule is the test's name. */
function expectNone(places: string[]) {
  expect(places, `\n  ${places.join('\n  ')}\n`).toEqual([])
}

describe('layers: arrows point one way', () => {
  const languages: [string, Layer[], string[], Edge[]][] = [
    ['native', nativeLayers, filesIn('native', /\.(cc|h)$/), nativeEdges()],
    ['lib', libLayers, filesIn('lib', /\.ts$/), libEdges()],
  ]

  test.each(languages)('%s: every file has a layer', (_, layers, files) => {
    expectNone(
      files.filter((path) => rankOf(layers, path) < 0).map((path) => `${path}: give it a layer in test/tidy/layers.ts`),
    )
  })

  test.each(languages)('%s: nothing uses a layer above its own', (_, layers, __, edges) => {
    const upward = edges.filter(({ from, to }) => rankOf(layers, to) > rankOf(layers, from))
    expectNone(
      upward.map(({ from, to, line }) => {
        const [lower, upper] = [from, to].map((path) => layers[rankOf(layers, path)]?.name)
        return `${from}:${line} uses ${to}, but (${upper}) lies above (${lower})`
      }),
    )
  })

  test.each(languages)('%s: no files use each other in a circle', (_, __, ___, edges) => {
    expect(findCycle(edges)?.join(' -> ')).toBeUndefined()
  })

  test('only lib/loop.ts imports lib/binding.ts', () => {
    const others = libEdges().filter(({ from, to }) => to === 'lib/binding.ts' && from !== 'lib/loop.ts')
    expectNone(others.map(({ from, line }) => `${from}:${line}`))
  })

  test('the core knows neither Node-API nor libuv', () => {
    const foreign = /#\s*include\s*[<"](napi\.h|node_api\.h|js_native_api\.h|uv\.h|node\.h|v8\.h)[>"]/
    expectNone([...grep(filesIn('native/core', /\.(cc|h)$/), foreign), ...grep(['native/abi.h'], foreign)])
  })

  test('the operating system is asked for in the allowed files only', () => {
    const platform =
      /^\s*#\s*(if|ifdef|ifndef|elif|elifdef)\b.*(__linux|__APPLE__|__MACH__|__FreeBSD__|__unix|_WIN32|__GLIBC__)/
    const others = filesIn('native', /\.(cc|h)$/).filter((path) => !platformFiles.some((allowed) => allowed.test(path)))
    expectNone(grep(others, platform))
  })
})

describe('sizes', () => {
  test(`no file is longer than ${FILE_LINES_MAX} lines`, () => {
    const lengths = new Map(code.map((path) => [path, linesOf(path).length]))
    expectNone(overLimit(lengths, FILE_LINES_MAX, longFiles))
  })

  test(`no function is longer than ${FUNCTION_LINES_MAX} lines`, () => {
    const shipped = code.filter((path) => /^(native|lib|bench|tools)\//.test(path))
    const lengths = new Map(shipped.flatMap(functionsIn))
    expectNone(overLimit(lengths, FUNCTION_LINES_MAX, longFunctions))
  })
})

describe('the shared layout', () => {
  test.skipIf(!exists('native/abi.h') || !exists('dist/abi.js'))('lib/abi.ts mirrors native/abi.h', async () => {
    const native = nativeConstants(read('native/abi.h'))
    const mirror: Record<string, unknown> = await import(pathToFileURL(`${root}/dist/abi.js`).href)
    const numbers = new Map(Object.entries(mirror).filter(([, value]) => typeof value === 'number'))
    expect(native.size).toBeGreaterThan(0)
    const names = new Set([...native.keys(), ...numbers.keys()])
    expectNone(
      [...names]
        .filter((name) => native.get(name) !== numbers.get(name))
        .map((name) => `${name}: native/abi.h has ${native.get(name)}, lib/abi.ts has ${numbers.get(name)}`),
    )
  })

  test(`the addon has at most ${ADDON_EXPORTS_MAX} exports`, () => {
    const require = createRequire(import.meta.url)
    const addon: object = require('node-gyp-build')(root)
    const names = Object.keys(addon)
    expect(names.length, names.join(', ')).toBeGreaterThan(0)
    expect(names.length, names.join(', ')).toBeLessThanOrEqual(ADDON_EXPORTS_MAX)
  })
})

describe('names and words', () => {
  const vague = /^(utils?|helpers?|managers?|common|base|misc)$/i
  const words = (name: string) => name.split(/[^A-Za-z]+|(?<=[a-z])(?=[A-Z])/)
  const isVague = (name: string) => words(name).some((word) => vague.test(word))

  test('no file or folder has a name that says nothing', () => {
    expectNone(allFiles.filter((path) => path.split('/').some(isVague)))
  })

  test('no type has a name that says nothing', () => {
    const declaration =
      /^\s*(?:export\s+)?(?:abstract\s+)?(?:class|struct|interface|enum(?:\s+class)?|type|union)\s+(\w+)/
    expectNone(grep(code, declaration, (match) => isVague(match[1] ?? '')))
  })
})

describe('documents', () => {
  test('every relative link leads somewhere', () => {
    const broken = textFiles
      .filter((path) => path.endsWith('.md'))
      .flatMap((path) =>
        relativeLinks(path)
          .filter(({ target }) => !exists(posix.join(posix.dirname(path), target)))
          .map(({ line, target }) => `${path}:${line}: ${target}`),
      )
    expectNone(broken)
  })

  test('nothing names a path of the machine it was written on', () => {
    const folders = ['home', 'Users', 'root'].map((name) => `/${name}/\\w`)
    // Where the clone and the home folder lie here; too short a path (a container's /src) would match by chance.
    const local = [root, homedir()]
      .filter((path) => path.split('/').length > 2)
      .map((path) => path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    const machine = new RegExp(`(?<![\\w.)}])(${[...folders, ...local].join('|')})`)
    expectNone(
      grep(
        textFiles.filter((path) => !path.startsWith('test/tidy/')),
        machine,
      ),
    )
  })

  test('no lock file names a download address', () => {
    const lockFiles = allFiles.filter((path) => path.endsWith('package-lock.json'))
    expectNone(grep(lockFiles, /"resolved"/))
  })
})

/** `path:line: text` of each line that matches. */
function grep(paths: string[], pattern: RegExp, wanted: (match: RegExpExecArray) => boolean = () => true): string[] {
  return paths.filter(exists).flatMap((path) =>
    linesOf(path).flatMap((text, index) => {
      const match = pattern.exec(text)
      return match !== null && wanted(match) ? [`${path}:${index + 1}: ${text.trim()}`] : []
    }),
  )
}

function overLimit(lengths: Map<string, number>, max: number, exceptions: Record<string, number>): string[] {
  const tooLong = [...lengths].filter(([name, length]) => length > Math.max(max, exceptions[name] ?? 0))
  const slack = Object.entries(exceptions).filter(([name, length]) => (lengths.get(name) ?? 0) < length)
  return [
    ...tooLong.map(([name, length]) => `${name}: ${length} lines`),
    ...slack.map(([name, length]) => {
      const now = lengths.get(name) ?? 0
      return `${name}: the table allows ${length}, it has ${now}: ${now > max ? `lower the entry to ${now}` : 'remove the entry'}`
    }),
  ]
}

/**
 * `path: first line of the function` and its length in lines. The sources are formatted, so a body that opens at the
 * end of a line closes on the next line of the same indentation that starts with a brace.
 */
function functionsIn(path: string): [string, number][] {
  const lines = linesOf(path)
  return lines.flatMap((text, start): [string, number][] => {
    if (!opensFunction(text, path)) return []
    const indent = text.search(/\S/)
    const length = lines
      .slice(start + 1)
      .findIndex((line) => line.search(/\S/) === indent && line.trim().startsWith('}'))
    return length < 0 ? [] : [[`${path}: ${text.trim()}`, length + 2]]
  })
}

function opensFunction(text: string, path: string): boolean {
  if (!text.endsWith('{')) return false
  if (
    /^\s*(\}\s*)?(if|else|for|while|switch|do|try|catch|case|default|namespace|extern|class|struct|enum|union|interface|return\s*\{)\b/.test(
      text,
    )
  )
    return false
  if (/\.(cc|h)$/.test(path)) return /\)\s*(const|noexcept|override|final|mutable|->[^{]*|:[^{]*|\s)*\{$/.test(text)
  return /=>\s*\{$/.test(text) || /\)(\s*:[^{]*)?\s*\{$/.test(text)
}

/** `constexpr TYPE kName = VALUE;`, as Name -> number; a value may be an expression over names that came before. */
function nativeConstants(header: string): Map<string, number> {
  const found = new Map<string, number>()
  const source = header.replace(/\/\/.*$/gm, '')
  for (const [, name = '', expression = ''] of source.matchAll(/\bconstexpr\s+[\w:]+\s+k(\w+)\s*=\s*([^;]+);/g)) {
    const plain = expression
      .replace(/\bk(\w+)/g, (_, other: string) => String(found.get(other)))
      .replace(/(?<=\d)'(?=\d)/g, '')
      .replace(/\b(0x[\da-f]+|\d+)(u|l|ul|ull|ll)\b/gi, '$1')
    if (!/^[\da-fx.\s()<>|&~+*/-]+$/i.test(plain))
      throw new Error(`native/abi.h: k${name} = ${expression}: not understood`)
    found.set(name, Number(new Function(`return (${plain})`)()))
  }
  return found
}

function relativeLinks(path: string): { line: number; target: string }[] {
  let fenced = false
  return linesOf(path).flatMap((text, index) => {
    if (text.startsWith('```')) fenced = !fenced
    if (fenced) return []
    const links = [...text.replace(/`[^`]*`/g, '').matchAll(/\]\(([^)\s]+)[^)]*\)/g)].map((match) => match[1] ?? '')
    return links
      .filter((link) => !/^([a-z]+:|#|\/\/)/i.test(link))
      .map((link) => ({ line: index + 1, target: link.replace(/#.*$/, '') }))
  })
}
