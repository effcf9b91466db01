// Runs every binary of prebuilds/ as far as this machine can, and prints what ran where: test/smoke in four Nodes for
// x64 and for arm64 (emulated), in a Node linked with musl, and in musl's loader where there is no such Node. For macOS
// nothing can run here; what the binary expects of Node is looked up in real macOS Nodes.
//
//   npm run prebuild && node tools/ready.mjs && node tools/proof.mjs
//
// Anything that cannot be done is a failure, never a skip.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Table from 'cli-table3'
import { root } from './cross/build.mjs'
import { darwinNode, linuxArm64, linuxArm64Musl, linuxX64, linuxX64Musl } from './cross/hosts.mjs'
import { readMachO } from './cross/macho.mjs'
import { targets } from './cross/targets.mjs'
import { verify } from './cross/verify.mjs'

const MAJORS = ['20', '22', '24', '26']
// The oldest and the newest: Node-API only grows.
const DARWIN_MAJORS = ['20', '26']
const LIMIT_MS = 180_000
const TOOLS = {
  'qemu-aarch64-static': 'qemu-user-static',
  '/usr/aarch64-linux-gnu/lib/libstdc++.so.6': 'libc6-arm64-cross libstdc++6-arm64-cross libgcc-s1-arm64-cross',
  // Node 26 asks for it.
  '/usr/aarch64-linux-gnu/lib/libatomic.so.1': 'libatomic1-arm64-cross',
  '/lib/ld-musl-x86_64.so.1': 'musl',
}

const target = (name) => targets.find((each) => each.name === name)
const path = (name) => join(root, 'prebuilds', target(name).file)

function requireTools() {
  const found = (tool) =>
    tool.startsWith('/') ? existsSync(tool) : spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0
  const packages = Object.entries(TOOLS).flatMap(([tool, name]) => (found(tool) ? [] : [name]))
  if (packages.length > 0) throw new Error(`missing; on Debian: apt-get install ${packages.join(' ')}`)
}

/**
 * Runs a program; returns its last line, or throws with all that it said.
 * @param {string[]} line
 */
function lastLine(line, env = {}) {
  const [command = '', ...args] = line
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    timeout: LIMIT_MS,
    env: { ...process.env, NODE_OPTIONS: '', ...env },
  })
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(`${signal ?? `exit code ${status}`}\n${stdout}${stderr}`.trim())
  return stdout.trim().split('\n').at(-1)
}

/** With both drivers of Node: the one that is not this system's default is macOS's. */
function smoke(name, host) {
  const program = [...host, join(root, 'test', 'smoke', 'main.mjs')]
  const env = { PREBUILDS_ONLY: '1', LIBC: target(name).libc }
  lastLine(program, { ...env, EDGEWIRE_DRIVER: 'waiter' })
  const line = lastLine(program, env)
  if (!line.includes(`smoke: ok with ${target(name).file} `)) throw new Error(`another binary was loaded: ${line}`)
  return line
}

function muslLoader(name) {
  const { imports } = verify(target(name), path(name))
  return lastLine([...linuxArm64Musl(imports), path(name)])
}

/** What the addon links of libuv, it links by hand: no symbol table names it. */
function lookedUp() {
  const source = readFileSync(join(root, 'native', 'node', 'uv_api.cc'), 'utf8')
  const names = [...source.matchAll(/look_up\("(\w+)"/g)].map(([, name = '']) => name)
  if (names.length === 0) throw new Error('native/node/uv_api.cc looks nothing up')
  return names
}

function macOsExports(name, major) {
  const { imports } = verify(target(name), path(name))
  const { program, version } = darwinNode(target(name).arch, major)
  const node = readMachO(program)
  if (node.arch !== target(name).arch) throw new Error(`that Node is made for ${node.arch}`)
  const there = new Set(node.exports)
  const expected = [...imports, ...lookedUp()]
  const missing = expected.filter((symbol) => !there.has(symbol))
  if (missing.length > 0) throw new Error(`Node ${version} does not export ${missing.join(', ')}`)
  return `not run: all ${expected.length} symbols that it expects are in Node ${version} for macOS`
}

/** @param {() => string} prove */
const row = (name, where, prove) => ({ name, where, prove })
const proofs = [
  ...MAJORS.map((major) => row('linux-x64', `Node ${major}`, () => smoke('linux-x64', linuxX64(major)))),
  ...MAJORS.map((major) => row('linux-arm64', `Node ${major}, qemu`, () => smoke('linux-arm64', linuxArm64(major)))),
  row('linux-x64-musl', 'Node 26 linked with musl', () => smoke('linux-x64-musl', linuxX64Musl())),
  row('linux-arm64-musl', "musl's loader, qemu", () => muslLoader('linux-arm64-musl')),
  ...['darwin-x64', 'darwin-arm64'].flatMap((name) =>
    DARWIN_MAJORS.map((major) => row(name, `symbols of Node ${major}`, () => macOsExports(name, major))),
  ),
]

requireTools()
const table = new Table({ head: ['binary', 'where', 'result'], style: { head: [], border: [] } })
let failed = 0
for (const { name, where, prove } of proofs) {
  process.stderr.write(`proof: ${name}, ${where}\n`)
  try {
    table.push([name, where, prove().replace('smoke: ok with ', 'ran: ')])
  } catch (error) {
    failed++
    table.push([name, where, 'FAILED'])
    console.error(error.message)
  }
}
console.log(table.toString())
process.exitCode = failed === 0 ? 0 : 1
