// `npm run release -- 1.2.3`: checks that the clone can be released, builds and packs it, and makes the commit and the
// tag. With `--dry-run` it does the same and then puts everything back. It publishes nothing: docs/releasing.md.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import semver from 'semver'
import { stamp } from './changelog.mjs'
import { checkContents, PREBUILDS } from './contents.mjs'

const BRANCH = 'main'
const STAMPED = ['CHANGELOG.md', 'package.json', 'package-lock.json']

const root = resolve(fileURLToPath(import.meta.url), '..', '..')
const at = (...parts) => join(root, ...parts)
const output = at('build', 'release')

class Failure extends Error {}

// --- what must be so before anything is done ------------------------------------------------------------------------

/** Each throws what is wrong. All are made, so that one run shows all there is to mend. */
const checks = {
  'the version follows the last one': ({ version }) => {
    if (semver.valid(version) !== version) throw new Failure(`"${version}" is not a version: semver.org`)
    const { version: current } = manifest()
    // Equal is for the first release: package.json has the version that is in the making.
    if (semver.lt(version, current)) throw new Failure(`package.json has ${current} already`)
    if (git('tag', '--list', `v${version}`) !== '') throw new Failure(`the tag v${version} exists`)
  },
  'everything is committed': () => {
    const changed = git('status', '--porcelain')
    if (changed !== '') throw new Failure(`there are changes:\n${changed}`)
  },
  [`the branch is ${BRANCH}`]: () => {
    const branch = git('branch', '--show-current')
    if (branch !== BRANCH) throw new Failure(`this is ${branch || 'no branch'}`)
  },
  'the changelog has something to release': ({ version, date }) => {
    stamp(readFileSync(at('CHANGELOG.md'), 'utf8'), version, date)
  },
  'package.json names the repository': () => {
    if (!manifest().repository?.url) throw new Failure('npm refuses provenance without repository.url')
  },
}

/** Whether all checks hold; prints each. */
function ready(release) {
  let failures = 0
  for (const [title, check] of Object.entries(checks)) {
    try {
      check(release)
      console.log(`ok      ${title}`)
    } catch (error) {
      failures++
      console.log(`FAILED  ${title}: ${error.message}`)
    }
  }
  return failures === 0
}

// --- the steps ------------------------------------------------------------------------------------------------------

/** Twice from the sources: what cannot be built again byte for byte cannot be checked by anybody else. */
function buildPrebuilds() {
  const hashes = [1, 2].map(() => {
    rmSync(at('prebuilds'), { recursive: true, force: true })
    npm('run', 'prebuild')
    const missing = PREBUILDS.filter((path) => !existsSync(at(path)))
    if (missing.length > 0) throw new Failure(`npm run prebuild did not make ${missing.join(', ')}`)
    return PREBUILDS.map((path) =>
      createHash('sha256')
        .update(readFileSync(at(path)))
        .digest('hex'),
    )
  })
  const different = PREBUILDS.filter((_, index) => hashes[0][index] !== hashes[1][index])
  if (different.length > 0) throw new Failure(`two builds differ in ${different.join(', ')}`)
  console.log(`ok      ${PREBUILDS.length} prebuilds, the same in two builds`)
}

function stampFiles({ version, date }) {
  writeFileSync(at('CHANGELOG.md'), stamp(readFileSync(at('CHANGELOG.md'), 'utf8'), version, date))
  npm('version', version, '--no-git-tag-version', '--allow-same-version')
}

/** Returns the tarball's path. */
function pack({ version }) {
  rmSync(output, { recursive: true, force: true })
  mkdirSync(output, { recursive: true })
  npm('pack', '--pack-destination', output)
  const tarball = join(output, `${manifest().name}-${version}.tgz`)
  const wrong = checkContents(root, tarball)
  if (wrong.length > 0) throw new Failure(`the tarball is not what it should be:\n${wrong.join('\n')}`)
  console.log(`ok      ${tarball}`)
  return tarball
}

function commitAndTag({ version }) {
  git('commit', '--quiet', '--message', `Release ${version}`, '--', ...STAMPED)
  git('tag', '--annotate', '--message', `edgewire ${version}`, `v${version}`)
}

// --- other programs -------------------------------------------------------------------------------------------------

const manifest = () => JSON.parse(readFileSync(at('package.json'), 'utf8'))

function run(command, args) {
  const { status, error, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: 'utf8' })
  if (error !== undefined) throw new Failure(`cannot run ${command}: ${error.message}`)
  if (status !== 0) throw new Failure(`${[command, ...args].join(' ')}: exit code ${status}\n${stdout}${stderr}`)
  return stdout.trimEnd()
}

const git = (...args) => run('git', args)
const npm = (...args) => run('npm', args)

// --- main -----------------------------------------------------------------------------------------------------------

function main() {
  const { values, positionals } = parseArgs({ options: { 'dry-run': { type: 'boolean' } }, allowPositionals: true })
  if (positionals.length !== 1) throw new Failure('usage: npm run release -- 1.2.3 [--dry-run]')
  const release = { version: positionals[0], date: new Date().toISOString().slice(0, 10) }
  if (!ready(release)) throw new Failure('nothing was done')
  let committed = false
  try {
    buildPrebuilds()
    stampFiles(release)
    pack(release)
    if (values['dry-run']) {
      console.log(`dry run: without --dry-run, a commit "Release ${release.version}" and the tag v${release.version}`)
      return
    }
    commitAndTag(release)
    committed = true
    console.log(`\nNow publish: git push origin ${BRANCH} v${release.version}`)
    console.log('.github/workflows/release.yml builds the tag anew, tests that tarball, and publishes it.')
  } finally {
    // The tree was clean, so these three are as they were committed.
    if (!committed) git('checkout', '--quiet', 'HEAD', '--', ...STAMPED)
  }
}

try {
  main()
} catch (error) {
  if (!(error instanceof Failure)) throw error
  console.error(error.message)
  process.exitCode = 1
}
