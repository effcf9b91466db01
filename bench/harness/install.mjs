// @ts-check
// `npm run bench -- --install-peers`: the package of the bench's own, and the Go server. What cannot be had is named, and
// the bench works without it.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { bun, deno, goServer } from './runtimes.mjs'
import { peers, root } from './servers.mjs'

const bench = path.join(root, 'bench')

/** @returns {string[]} a line for each peer: its version, or why it is not there */
export function installPeers() {
  const problems = [installPackages(), buildGoServer()].filter((problem) => problem !== undefined)
  const found = [bun, deno, goServer].map(
    ({ name, version, missing }) => `${name}: ${missing() ?? version() ?? 'installed, but it does not run here'}`,
  )
  return [...found, ...problems]
}

function installPackages() {
  console.log('npm ci in bench/ (Bun, Deno, charts, micro-benchmarks) ...')
  return run('npm', ['ci', '--no-audit', '--no-fund'], bench)
}

function buildGoServer() {
  const source = path.join(peers, 'go')
  if (!existsSync(source)) return 'the Go server has no source in bench/peers/go'
  if (!hasGo()) {
    const problem = installGo()
    if (problem !== undefined) return problem
  }
  console.log('go build in bench/peers/go ...')
  mkdirSync(path.dirname(goServer.program()), { recursive: true })
  return run('go', ['build', '-o', goServer.program(), '.'], source)
}

function hasGo() {
  return spawnSync('go', ['version'], { stdio: 'ignore' }).status === 0
}

/** Debian's compiler, if this is Debian and we may. */
function installGo() {
  const debian = existsSync('/etc/os-release') && /^ID(_LIKE)?=.*debian/m.test(readFileSync('/etc/os-release', 'utf8'))
  if (!debian || process.getuid?.() !== 0)
    return 'Go is not installed: on Debian, apt-get install golang-go, then again'
  console.log('apt-get install golang-go ...')
  return run('apt-get', ['install', '--yes', '--no-install-recommends', 'golang-go'], root)
}

/**
 * @param {string} command
 * @param {string[]} args
 * @param {string} cwd
 * @returns {string | undefined} why it failed
 */
function run(command, args, cwd) {
  const { status, error, stderr } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  if (error !== undefined) return `${command} cannot be run: ${error.message}`
  if (status === 0) return undefined
  return `${command} ${args[0]} failed: ${stderr.trim().split('\n').slice(-3).join(' ')}`
}
