// tools/release.mjs in a scratch repository whose `npm run prebuild` writes six small files.

import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { stamp } from '../../tools/changelog.mjs'
import { PREBUILDS } from '../../tools/contents.mjs'

const root = fileURLToPath(new URL('../..', import.meta.url))
const today = () => new Date().toISOString().slice(0, 10)

const changelog = `# Changelog

Intro, wrapped
by hand.

## Unreleased

### Added

- Something,
  on two lines.

## 0.1.0 - 2026-01-01

- The first.
`

/** Writes each prebuild; FAKE=short leaves one out, FAKE=random makes no two builds alike. */
const fakePrebuild = `
const { mkdirSync, writeFileSync } = require('node:fs')
const paths = ${JSON.stringify(PREBUILDS)}
for (const path of process.env.FAKE === 'short' ? paths.slice(1) : paths) {
  mkdirSync(require('node:path').dirname(path), { recursive: true })
  writeFileSync(path, process.env.FAKE === 'random' ? String(process.hrtime.bigint()) : path)
}
`

let folder: string

const git = (...args: string[]) => execFileSync('git', args, { cwd: folder, encoding: 'utf8' }).trimEnd()
const read = (path: string) => readFileSync(join(folder, path), 'utf8')

function write(path: string, text: string): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true })
  writeFileSync(join(folder, path), text)
}

function commit(): void {
  git('add', '--all')
  git('commit', '--quiet', '--allow-empty', '--message', 'change')
}

function release(args: string[], fake = '') {
  const env = { ...process.env, FAKE: fake }
  const { status, stdout, stderr } = spawnSync(process.execPath, ['tools/release.mjs', ...args], {
    cwd: folder,
    env,
    encoding: 'utf8',
  })
  return { code: status, output: stdout + stderr }
}

const manifest = {
  name: 'edgewire',
  version: '0.1.0',
  repository: { type: 'git', url: 'git+https://example.com/edgewire.git' },
  files: ['dist', 'source', 'docs', 'prebuilds', 'CHANGELOG.md'],
  scripts: {
    prebuild: 'node prebuild.cjs',
    prepack: 'node tools/source.mjs',
    postpack: 'node tools/source.mjs --remove',
  },
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'edgewire-release-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  for (const tool of ['release', 'changelog', 'contents', 'source'])
    cpSync(join(root, 'tools', `${tool}.mjs`), join(folder, 'tools', `${tool}.mjs`))
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  write('package.json', JSON.stringify(manifest))
  write('package-lock.json', JSON.stringify({ name: 'edgewire', version: '0.1.0', lockfileVersion: 3, packages: {} }))
  write('.gitignore', 'node_modules\nbuild\ndist\nprebuilds\nsource\n')
  write('CHANGELOG.md', changelog)
  write('prebuild.cjs', fakePrebuild)
  for (const path of [
    'LICENSE',
    'README.md',
    'docs/dialing.md',
    'docs/errors.md',
    'docs/lifecycle.md',
    'docs/pool.md',
    'docs/tuning.md',
  ])
    write(path, '')
  for (const path of ['binding.gyp', 'native/abi.h', 'lib/a.ts', 'dist/a.js', 'dist/a.d.ts']) write(path, '')
  git('init', '--quiet', '--initial-branch', 'main')
  git('config', 'user.name', 'Nobody')
  git('config', 'user.email', 'nobody@example.com')
  commit()
})

/** Nothing of the attempt is left in the repository. */
function expectUntouched(): void {
  expect(git('status', '--porcelain')).toBe('')
  expect(git('tag')).toBe('')
  expect(git('log', '--format=%s')).not.toContain('Release')
  expect(read('CHANGELOG.md')).toBe(changelog)
}

test('a release stamps, packs, commits and tags', () => {
  const { code, output } = release(['0.2.0'])
  expect(code, output).toBe(0)
  expect(git('status', '--porcelain')).toBe('')
  expect(git('log', '-1', '--format=%s')).toBe('Release 0.2.0')
  expect(git('rev-list', '-1', 'v0.2.0')).toBe(git('rev-parse', 'HEAD'))
  expect(JSON.parse(read('package.json')).version).toBe('0.2.0')
  expect(JSON.parse(read('package-lock.json')).version).toBe('0.2.0')
  expect(read('CHANGELOG.md')).toContain(`## Unreleased\n\n## 0.2.0 - ${today()}\n\n### Added\n`)
  expect(existsSync(join(folder, 'build', 'release', 'edgewire-0.2.0.tgz'))).toBe(true)
  expect(output).toContain('git push origin main v0.2.0')
})

test('a dry run packs, and puts everything back', () => {
  const { code, output } = release(['0.2.0', '--dry-run'])
  expect(code, output).toBe(0)
  expect(existsSync(join(folder, 'build', 'release', 'edgewire-0.2.0.tgz'))).toBe(true)
  expectUntouched()
})

test('the version that package.json has may be released once', () => {
  expect(release(['0.1.0']).output).toContain('has a section 0.1.0 already')
  write('CHANGELOG.md', changelog.slice(0, changelog.indexOf('## 0.1.0')))
  commit()
  expect(release(['0.1.0']).code).toBe(0)
  expect(release(['0.1.0']).output).toContain('the tag v0.1.0 exists')
})

describe('it refuses, and leaves everything as it was', () => {
  test.each([
    ['no version', [], 'usage'],
    ['one that is none', ['1.2'], '"1.2" is not a version'],
    ['one with a v', ['v1.2.3'], '"v1.2.3" is not a version'],
    ['an older one', ['0.0.9'], 'package.json has 0.1.0 already'],
  ])('%s', (_, args, message) => {
    const { code, output } = release(args)
    expect(code).toBe(1)
    expect(output).toContain(message)
    expectUntouched()
  })

  test.each([
    ['short', `npm run prebuild did not make ${PREBUILDS[0]}`],
    ['random', 'two builds differ in'],
  ])('prebuilds: %s', (fake, message) => {
    const { code, output } = release(['0.2.0'], fake)
    expect(code).toBe(1)
    expect(output).toContain(message)
    expectUntouched()
  })

  test('a tarball with a file that nobody decided on', () => {
    write('dist/forgotten.js', '')
    const { code, output } = release(['0.2.0'])
    expect(code).toBe(1)
    expect(output).toContain('dist/forgotten.js should not be there')
    expectUntouched()
  })

  test('changes that are not committed, another branch and no repository, all told at once', () => {
    write('package.json', JSON.stringify({ ...manifest, repository: undefined }))
    commit()
    git('switch', '--quiet', '--create', 'topic')
    write('lib/a.ts', 'changed')
    const { code, output } = release(['0.2.0'])
    expect(code).toBe(1)
    expect(output.match(/^FAILED .*/gm)).toHaveLength(3)
    expect(output).toContain('this is topic')
    expect(read('lib/a.ts')).toBe('changed')
  })
})

describe('the changelog', () => {
  test('keeps every byte but the heading', () => {
    const stamped = stamp(changelog, '0.2.0', '2026-02-03')
    expect(stamped.replace('## 0.2.0 - 2026-02-03\n\n', '')).toBe(changelog)
    const own = readFileSync(join(root, 'CHANGELOG.md'), 'utf8')
    expect(stamp(own, '999.0.0', '2026-02-03').replace('## 999.0.0 - 2026-02-03\n\n', '')).toBe(own)
  })

  test.each([
    ['no section', '# Changelog\n\n## 0.1.0 - 2026-01-01\n\n- x\n', 'no section'],
    ['an empty one', '# Changelog\n\n## Unreleased\n\n## 0.1.0 - 2026-01-01\n\n- x\n', 'nothing under'],
    ['one in a code block', '# Changelog\n\n```\n## Unreleased\n```\n\n- x\n', 'no section'],
  ])('%s cannot be released', (_, text, message) => {
    expect(() => stamp(text, '1.0.0', '2026-02-03')).toThrow(message)
  })
})
