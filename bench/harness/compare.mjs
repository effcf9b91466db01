// @ts-check
// `--compare REV`: edgewire of another git revision, built in a temporary worktree of its own.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { EDGEWIRE, edgewire, root } from './servers.mjs'

/** @import { Server } from './servers.mjs' */

const PREFIX = 'edgewire-compare-'

/** The name of the other edgewire in the results. */
export const REVISION = 'revision'

/**
 * The worktree is removed when this process ends, however it does; what a killed one has left is removed by the next.
 * @param {string} revision
 * @returns {Server[]} this tree's edgewire and the other's
 */
export function buildRevision(revision) {
  const commit = git('rev-parse', '--verify', '--quiet', '--end-of-options', `${revision}^{commit}`).trim()
  if (commit === '') throw new Error(`git knows no revision "${revision}"`)
  removeAbandoned()
  const folder = mkdtempSync(path.join(tmpdir(), `${PREFIX}${process.pid}-`))
  const clone = path.join(folder, 'tree')
  process.on('exit', () => removeWorktree(folder))
  git('worktree', 'add', '--quiet', '--detach', clone, commit)
  console.log(`building ${commit.slice(0, 12)} (${revision}) ...`)
  shareDependencies(clone)
  const { status, stderr, stdout } = spawnSync(process.execPath, ['tools/ready.mjs'], { cwd: clone, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${revision} cannot be built:\n${stdout}${stderr}`)
  useOurServer(clone)
  const here = {
    name: EDGEWIRE,
    label: 'this tree',
    command: (/** @type {string} */ _, /** @type {string} */ app) => edgewire(root, app),
  }
  const there = {
    name: REVISION,
    label: revision,
    command: (/** @type {string} */ _, /** @type {string} */ app) => edgewire(clone, app),
  }
  return [here, there]
}

/** Only when the lock files are the same: `npm ci` there would change what a link points to, and that is ours. @param {string} clone */
function shareDependencies(clone) {
  const lock = (/** @type {string} */ folder) => readFileSync(path.join(folder, 'package-lock.json'), 'utf8')
  if (lock(clone) === lock(root)) symlinkSync(path.join(root, 'node_modules'), path.join(clone, 'node_modules'))
}

/** Both run the same program, so that only the library differs. @param {string} clone */
function useOurServer(clone) {
  const from = path.join(root, 'bench/peers')
  const to = path.join(clone, 'bench/peers')
  mkdirSync(to, { recursive: true })
  for (const file of readdirSync(from).filter((name) => name.endsWith('.mjs'))) {
    cpSync(path.join(from, file), path.join(to, file))
  }
}

/** @param {string} folder */
function removeWorktree(folder) {
  spawnSync('git', ['-C', root, 'worktree', 'remove', '--force', path.join(folder, 'tree')], { stdio: 'ignore' })
  rmSync(folder, { recursive: true, force: true })
  spawnSync('git', ['-C', root, 'worktree', 'prune'], { stdio: 'ignore' })
}

function removeAbandoned() {
  const name = new RegExp(`^${PREFIX}(\\d+)-`)
  for (const entry of readdirSync(tmpdir())) {
    const pid = name.exec(entry)?.[1]
    if (pid !== undefined && !isAlive(Number(pid))) removeWorktree(path.join(tmpdir(), entry))
  }
}

/** @param {number} pid */
function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === 'EPERM'
  }
}

/** @param {string[]} args */
function git(...args) {
  const { status, stdout, stderr } = spawnSync('git', ['-C', root, ...args], { encoding: 'utf8' })
  if (status !== 0 && args[0] !== 'rev-parse') throw new Error(`git ${args[0]} failed: ${stderr.trim()}`)
  return stdout
}
