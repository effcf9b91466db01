// Makes the clone ready to run: dependencies, native programs, TypeScript. Does only what is missing or stale, and
// says nothing when there is nothing to do. `--tests` adds the core's sanitizer test binary.
//
// It runs before node_modules exists, so it may import nothing but Node itself.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const NODE_MIN = [20, 19]
const BUILD_JOBS = 2
const LOCK_POLL_MS = 200
const NATIVE_SOURCE = /\.(cc|h|gyp)$/

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const at = (...parts) => join(root, ...parts)
const withTests = process.argv.includes('--tests')
const onLinux = process.platform === 'linux'

// What a finished run has seen, so that the next one can tell whether anything has changed since. It lies in build/:
// removing build/ and dist/ starts from nothing.
const stampPath = at('build', 'ready.json')
const lockPath = at('build', 'ready.lock')

class Failure extends Error {}

// --- the steps: each says whether it is due, and does it ------------------------------------------------------------

/** npm has recorded what it installed in node_modules/.package-lock.json: compare content, since a checkout sets every mtime anew. */
function dependencies() {
  const wanted = readJson(at('package-lock.json'))?.packages
  const installed = readJson(at('node_modules', '.package-lock.json'))?.packages ?? {}
  if (wanted === undefined) throw new Failure('package-lock.json is missing or damaged')
  const stale = Object.entries(wanted).some(([path, { version, integrity, optional }]) => {
    if (path === '') return false
    const found = installed[path]
    if (found === undefined) return !optional // another platform's optional package
    return found.version !== version || found.integrity !== integrity
  })
  return {
    name: 'npm ci',
    due: stale,
    run() {
      const npm = process.env.npm_execpath
      if (npm?.endsWith('npm-cli.js')) run(process.execPath, [npm, 'ci'])
      else run('npm', ['ci'])
    },
  }
}

/** Which make targets there are, and the file that each leaves in build/Release. */
function nativeTargets() {
  const targets = [{ name: 'edgewire', file: 'edgewire.node' }]
  if (onLinux) {
    targets.push({ name: 'edgewire_load', file: 'edgewire-load' })
    targets.push({ name: 'edgewire_floor', file: 'edgewire-floor' })
    targets.push({ name: 'edgewire_core_cost', file: 'edgewire-core-cost' })
  }
  if (withTests) {
    targets.push({ name: 'edgewire_core_test', file: 'edgewire_core_test' })
    // The kqueue poller over a kqueue of the tests' own; on macOS the first binary has the real one.
    if (onLinux) targets.push({ name: 'edgewire_core_kqueue_test', file: 'edgewire_core_kqueue_test' })
  }
  return targets
}

function native() {
  const targets = nativeTargets()
  const configuration = fingerprint(['binding.gyp'], [process.version, process.arch, nodeDir() ?? ''])
  // A build with the tests has made all that one without them makes, so it leaves both marks.
  const marks = { native: fingerprint(['binding.gyp', 'native', 'bench'], [], NATIVE_SOURCE) }
  if (withTests) marks.nativeTests = fingerprint(['test/native'], [], NATIVE_SOURCE)
  const missing = targets.some(({ file }) => !existsSync(at('build', 'Release', file)))
  const seen = stamp()
  return {
    name: withTests ? 'native code and its tests' : 'native code',
    due: missing || Object.entries(marks).some(([mark, value]) => seen[mark] !== value),
    run() {
      checkToolchain()
      const env = { ...process.env }
      const dir = nodeDir()
      if (dir !== undefined) env.npm_config_nodedir = dir
      const gyp = at('node_modules', 'node-gyp', 'bin', 'node-gyp.js')
      const configured = existsSync(at('build', 'edgewire_core_test.target.mk')) // only with edgewire_dev=1
      if (!configured || seen.configuration !== configuration) {
        run(process.execPath, [gyp, 'configure', '--loglevel=warn', '--', '-Dedgewire_dev=1'], env)
        remember({ configuration })
      }
      const names = targets.map(({ name }) => name)
      run(process.execPath, [gyp, 'build', '--loglevel=warn', `--jobs=${BUILD_JOBS}`, ...names], env)
      // Without the tests, the test binary may be older than the core now.
      remember(withTests ? marks : { ...marks, nativeTests: undefined })
    },
  }
}

function typescript() {
  const sources = fingerprint(
    ['lib', 'tsconfig.json'],
    [readJson(at('node_modules', 'typescript', 'package.json'))?.version ?? ''],
  )
  return {
    name: 'TypeScript',
    due: !existsSync(at('dist', 'index.js')) || stamp().typescript !== sources,
    run() {
      run(process.execPath, [at('node_modules', 'typescript', 'bin', 'tsc'), '-p', root, '--pretty', 'false'])
      removeOrphans()
      remember({ typescript: sources })
    },
  }
}

/** A module that was renamed or removed in lib/ must not live on in dist/. */
function removeOrphans() {
  for (const file of filesUnder('dist')) {
    const source = file.replace(/^dist/, 'lib').replace(/(\.d\.ts|\.js)$/, '.ts')
    if (!existsSync(at(source))) rmSync(at(file))
  }
}

// --- what the machine must have -------------------------------------------------------------------------------------

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  const old = major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])
  if (old) throw new Failure(`edgewire needs Node ${NODE_MIN.join('.')} or newer; this is ${process.version}`)
  if (process.platform === 'win32') throw new Failure('edgewire builds on Linux and macOS only; this is Windows')
}

function checkToolchain() {
  const compiler = process.env.CXX ?? (onLinux ? 'g++' : 'c++')
  const [command, ...flags] = compiler.split(' ')
  const probe = [...flags, '-std=gnu++20', '-fsyntax-only', '-x', 'c++', '/dev/null']
  const works = (tool, args) => spawnSync(tool, args, { stdio: 'ignore' }).status === 0
  const missing = []
  if (!works('python3', ['--version'])) missing.push('Python 3 (python3), which node-gyp runs on')
  if (!works('make', ['--version'])) missing.push('make')
  if (!works(command, probe)) missing.push(`a C++20 compiler (${compiler})`)
  if (missing.length === 0) return
  const hint = onLinux ? 'on Debian: apt-get install python3 make g++' : 'on macOS: xcode-select --install'
  throw new Failure(`building edgewire needs ${missing.join(', and ')} (${hint})`)
}

/** Node's own headers, when they were installed with it: node-gyp would download them otherwise. */
function nodeDir() {
  const prefix = resolve(process.execPath, '..', '..')
  return existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? prefix : process.env.npm_config_nodedir
}

// --- running, remembering -------------------------------------------------------------------------------------------

/** Prints nothing unless the command fails or the compiler warns. */
function run(command, args, env = process.env) {
  const { status, signal, error, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 256 * 1024 * 1024,
  })
  if (error !== undefined) throw new Failure(`cannot run ${command}: ${error.message}`)
  if (status === 0) {
    if (stderr.includes(' warning: ')) process.stderr.write(`\n${stderr}`)
    return
  }
  const outcome = signal === null ? `exit code ${status}` : signal
  const shown = [command === process.execPath ? 'node' : command, ...args].join(' ').replaceAll(`${root}/`, '')
  throw new Failure(`${stdout}${stderr}\n${shown}: ${outcome}`)
}

function stamp() {
  return readJson(stampPath) ?? {}
}

function remember(facts) {
  writeFileSync(stampPath, `${JSON.stringify({ ...stamp(), ...facts }, null, 2)}\n`)
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return undefined
  }
}

/** Changes whenever a file among `paths` (files or folders) comes, goes or is written. */
function fingerprint(paths, more, wanted = /./) {
  const hash = createHash('sha256').update(JSON.stringify(more))
  for (const file of paths.flatMap(filesUnder).filter((path) => wanted.test(path))) {
    const { mtimeMs, size } = statSync(at(file))
    hash.update(`${file} ${mtimeMs} ${size}\n`)
  }
  return hash.digest('hex')
}

function filesUnder(path) {
  if (!existsSync(at(path))) return []
  if (statSync(at(path)).isFile()) return [path]
  return readdirSync(at(path), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .sort()
}

/** Two runs at once (a test watcher and a build, say): the second waits for the first. */
function lock() {
  mkdirSync(dirname(lockPath), { recursive: true })
  for (;;) {
    try {
      writeFileSync(lockPath, String(process.pid), { flag: 'wx' })
      return
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    if (holderIsGone()) rmSync(lockPath, { force: true })
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_POLL_MS)
  }
}

function holderIsGone() {
  let pid = Number.NaN
  try {
    const text = readFileSync(lockPath, 'utf8')
    if (text === '') return false // being written just now
    pid = Number(text)
    process.kill(pid, 0)
    return pid === process.pid
  } catch (error) {
    return error.code === 'ESRCH'
  }
}

// --- main -----------------------------------------------------------------------------------------------------------

const steps = [dependencies, native, typescript]

function main() {
  checkNode()
  if (!steps.some((step) => step().due)) return
  lock()
  try {
    for (const step of steps) {
      const { name, due, run: work } = step() // looked at again: whoever held the lock may have done it
      if (!due) continue
      const start = performance.now()
      process.stderr.write(`ready: ${name} ... `)
      work()
      process.stderr.write(`${((performance.now() - start) / 1000).toFixed(1)} s\n`)
    }
  } finally {
    rmSync(lockPath, { force: true })
  }
}

try {
  main()
} catch (error) {
  if (!(error instanceof Failure)) throw error
  process.stderr.write(`\n${error.message.trim()}\n`)
  process.exitCode = 1
}
