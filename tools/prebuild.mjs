// npm run prebuild [-- [options] [target ...]]: cross-builds the released binaries into prebuilds/ and checks each.
// Without a target all six. Options:
//   --check-reproducible   builds each twice, in folders of different names, and compares
//   --verify               builds nothing: checks what lies in prebuilds/
// docs/building.md says what the checks are.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { build, cache, cross, root } from './cross/build.mjs'
import { targets } from './cross/targets.mjs'
import { verify } from './cross/verify.mjs'

const LOG_TAIL_LINES = 60

class Failure extends Error {}

const { options, names: wantedNames } = readArguments()

function readArguments() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { 'check-reproducible': { type: 'boolean' }, verify: { type: 'boolean' } },
    })
    return { options: values, names: positionals }
  } catch (error) {
    console.error(error.message)
    process.exit(2)
  }
}

function chosen() {
  const unknown = wantedNames.filter((name) => !targets.some((target) => target.name === name))
  const names = targets.map(({ name }) => name).join(', ')
  if (unknown.length > 0) throw new Failure(`there is no target ${unknown.join(', ')}; there are ${names}`)
  return wantedNames.length === 0 ? targets : targets.filter(({ name }) => wantedNames.includes(name))
}

const destination = (target) => join(root, 'prebuilds', target.file)
const sha256 = (path) => createHash('sha256').update(readFileSync(path)).digest('hex')

/** The compiler, with its own lock file: installed when it is missing or of another version than the lock file's. */
function installCompiler() {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Failure('the cross compiler is the one for linux-x64; the binaries come from such a machine')
  const wanted = JSON.parse(readFileSync(join(cross, 'package-lock.json'), 'utf8')).packages
  const record = join(cross, 'node_modules', '.package-lock.json')
  const installed = existsSync(record) ? JSON.parse(readFileSync(record, 'utf8')).packages : {}
  const paths = Object.keys(wanted).filter((path) => path !== '')
  if (paths.every((path) => installed[path]?.integrity === wanted[path].integrity)) return
  console.log('prebuild: npm ci in tools/cross (half a minute)')
  execFileSync('npm', ['ci', '--ignore-scripts'], { cwd: cross, stdio: ['ignore', 'ignore', 'inherit'] })
}

async function buildAt(target, folder) {
  const { ok, file, log } = await build(target, folder)
  if (ok) return file
  const tail = readFileSync(log, 'utf8').split('\n').slice(-LOG_TAIL_LINES).join('\n')
  throw new Failure(`${tail}\n${target.name} does not build; everything is in ${relative(root, log)}`)
}

async function make(target) {
  const start = performance.now()
  const file = await buildAt(target, join(cache, target.name))
  const hash = sha256(file)
  if (options['check-reproducible']) {
    const again = sha256(await buildAt(target, join(cache, 'again', 'elsewhere', target.name)))
    if (again !== hash) throw new Failure(`${target.name}: two builds differ, ${hash} and ${again}`)
  }
  mkdirSync(dirname(destination(target)), { recursive: true })
  renameSync(file, destination(target))
  const seconds = ((performance.now() - start) / 1000).toFixed(0)
  console.log(
    `prebuild: ${target.name.padEnd(16)} ${options['check-reproducible'] ? 'twice the same, ' : ''}${seconds} s`,
  )
}

/** As many at a time as there are cores: zig compiles its C++ runtime, the longest part, on little more than one. */
async function makeAll(list) {
  const rest = [...list]
  const worker = async () => {
    for (let target = rest.shift(); target !== undefined; target = rest.shift()) await make(target)
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}

function verifyAll(list) {
  let wrong = 0
  for (const target of list) {
    const path = destination(target)
    if (!existsSync(path)) throw new Failure(`${relative(root, path)} is missing`)
    const { problems, facts } = verify(target, path)
    wrong += problems.length
    console.log(`verify:   ${target.name.padEnd(16)} ${problems.length === 0 ? facts : 'WRONG'}`)
    for (const problem of problems) console.log(`            ${problem}`)
  }
  const known = ['SHA256SUMS', ...targets.map(({ file }) => file)]
  for (const file of strays(known)) {
    wrong++
    console.log(`verify:   prebuilds/${file} is none of ours, and would be published`)
  }
  if (wrong > 0) throw new Failure(`${wrong} problems`)
}

function strays(known) {
  return readdirSync(join(root, 'prebuilds'), { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(join(root, 'prebuilds'), join(entry.parentPath ?? entry.path, entry.name)))
    .filter((file) => !known.includes(file))
}

/** What a release is compared with, in the format of sha256sum --check. */
function writeSums() {
  const files = targets.filter((target) => existsSync(destination(target))).map(({ file }) => file)
  const lines = files.map((file) => `${sha256(join(root, 'prebuilds', file))}  ${file}\n`)
  writeFileSync(join(root, 'prebuilds', 'SHA256SUMS'), lines.join(''))
}

try {
  const list = chosen()
  if (!options.verify) {
    installCompiler()
    await makeAll(list)
    writeSums()
  }
  verifyAll(list)
} catch (error) {
  if (!(error instanceof Failure)) throw error
  console.error(error.message)
  process.exit(1) // the other build, if one is running, is of no use now
}
