// The code in README.md and docs/ is right: it is type-checked, and it runs.
//
// Conventions for a ```ts or ```js block in README.md and docs/*.md
//   - It is a complete program: an ES module that imports 'edgewire' and what else it needs.
//   - It ends by itself, with exit code 0 and nothing on stderr.
//   - Or the line `<!-- sample: an echo server -->` stands before it: then it prints `listening on HOST:PORT` and serves
//     an echo until it is killed. `port: 7000` in it becomes `port: 0`, because 7000 may be in use where the test runs.
// Other fences (sh, text, mermaid) are not looked at.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Client } from './client.ts'
import { Program, root } from './program.ts'

const TYPE_CHECK_MS = 60_000
const ECHO_BYTES = 100_000
const SERVES_ECHO = '<!-- sample: an echo server -->'

interface Sample {
  /** `README.md:25`, for the reader of a failure. */
  where: string
  /** File name of the module, without its folder. */
  file: string
  code: string
  servesEcho: boolean
}

const documents = ['README.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)]
const samples = documents.filter((path) => path.endsWith('.md')).flatMap(samplesIn)
/** Below the package's root, where its own name resolves as it does for a user. */
let folder: string

beforeAll(() => {
  mkdirSync(join(root, '.cache'), { recursive: true })
  folder = mkdtempSync(join(root, '.cache', 'samples-'))
  for (const { file, code } of samples) writeFileSync(join(folder, file), code)
  const options = { rootDir: '.', outDir: 'out', allowJs: true, checkJs: true, noEmitOnError: false }
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ extends: '../../tsconfig.json', compilerOptions: options, include: ['*.mts', '*.mjs'] }),
  )
})

afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('code in the documents', () => {
  test('there is some', () => {
    expect(samples.length).toBeGreaterThan(0)
  })

  test('fits the types', { timeout: TYPE_CHECK_MS }, () => {
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
    const args = [tsc, '-p', folder, '--pretty', 'false']
    const { stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    const places = samples.reduce((text, { where, file }) => text.replaceAll(file, `${where} ${file}`), stdout)
    expect(places).toBe('')
  })

  test.each(samples.filter(({ servesEcho }) => !servesEcho))('$where ends by itself', async ({ file }) => {
    const { code, signal, stderr } = await new Program([emitted(file)]).ended
    expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' })
  })

  test.each(samples.filter(({ servesEcho }) => servesEcho))('$where serves an echo', async ({ file }) => {
    const program = new Program([emitted(file)])
    const client = await Client.connect(await program.port())
    await client.expectEcho(ECHO_BYTES)
    client.finish()
    expect(await client.rest()).toBe('')
  })
})

/** What the compiler made of it, which runs on every Node. */
function emitted(file: string): string {
  return join(folder, 'out', file.replace(/\.mts$/, '.mjs'))
}

function samplesIn(path: string): Sample[] {
  const lines = readFileSync(join(root, path), 'utf8').split('\n')
  return lines.flatMap((text, index): Sample[] => {
    const language = /^```(ts|js)$/.exec(text)?.[1]
    if (language === undefined) return []
    const end = lines.indexOf('```', index)
    const servesEcho = lines[index - 1] === SERVES_ECHO
    const code = `${lines.slice(index + 1, end).join('\n')}\n`
    const name = path.replace(/\W/g, '_')
    return [
      {
        where: `${path}:${index + 1}`,
        file: `${name}_${index + 1}.m${language}`,
        code: servesEcho ? code.replace('port: 7000', 'port: 0') : code,
        servesEcho,
      },
    ]
  })
}
