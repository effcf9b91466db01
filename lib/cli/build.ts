// `edgewire build`: compiles the addon where no published binary fits. It must work without the addon, so nothing here
// imports it.
//
// The package has the C++ sources in source/. They are compiled in a temporary folder, since make cannot stand a blank
// in a path, with node-gyp and node-addon-api installed there: those who have a binary need neither. The result goes
// to build/Release, where the loader looks first.

import { type SpawnSyncOptions, spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const Needs = 'it needs Python 3, make, a C++20 compiler, and the npm registry'
const root = fileURLToPath(new URL('../..', import.meta.url))

export function build(): void {
  const source = join(root, 'source')
  if (!existsSync(source)) throw new Error('no source/ in the package; in a clone, `npm run compile` does this')
  const folder = mkdtempSync(join(tmpdir(), 'edgewire-build-'))
  try {
    cpSync(source, folder, { recursive: true })
    const built = compile(folder)
    // In a process of its own: what does not load must not replace what does, nor end this one.
    run(folder, process.execPath, ['-e', 'require(process.argv[1])', built])
    const target = join(root, 'build', 'Release')
    mkdirSync(target, { recursive: true })
    copyFileSync(built, join(target, 'edgewire.node'))
    process.stdout.write(`built ${join(target, 'edgewire.node')}\n`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Returns the path of the addon. */
function compile(folder: string): string {
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies: tools() }))
  const install = ['install', '--ignore-scripts', '--no-package-lock', '--no-audit', '--no-fund', '--loglevel=error']
  const npm = process.env.npm_execpath
  if (npm?.endsWith('npm-cli.js')) run(folder, process.execPath, [npm, ...install])
  else run(folder, 'npm', install)
  const gyp = join(folder, 'node_modules', 'node-gyp', 'bin', 'node-gyp.js')
  run(folder, process.execPath, [gyp, 'rebuild', '--loglevel=warn', '--jobs=max'])
  return join(folder, 'build', 'Release', 'edgewire.node')
}

/** The versions that the published binaries were built with. */
function tools(): Record<string, string | undefined> {
  const text = readFileSync(join(root, 'package.json'), 'utf8')
  const { devDependencies } = JSON.parse(text) as { devDependencies: Record<string, string> }
  return { 'node-gyp': devDependencies['node-gyp'], 'node-addon-api': devDependencies['node-addon-api'] }
}

function run(cwd: string, command: string, args: string[]): void {
  // NODE_OPTIONS may hold a loader of the caller's project, such as yarn's Plug'n'Play.
  const { NODE_OPTIONS: _, ...env } = process.env
  const options: SpawnSyncOptions = { cwd, env: { ...env, ...headers() }, stdio: ['ignore', 'inherit', 'inherit'] }
  const { status, signal, error } = spawnSync(command, args, options)
  if (error !== undefined) throw new Error(`cannot run ${command}: ${error.message}`)
  if (status === 0) return
  const shown = [command, ...args].join(' ').replaceAll(`${cwd}/`, '')
  throw new Error(`${shown} ended with ${signal ?? `exit code ${status}`}; ${Needs}`)
}

/** Node's own headers, when they were installed with it: node-gyp would download them otherwise. */
function headers(): Record<string, string> {
  const prefix = resolve(process.execPath, '..', '..')
  return existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? { npm_config_nodedir: prefix } : {}
}
