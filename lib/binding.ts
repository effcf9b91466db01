// The only place that loads the addon. What the exports do is said in native/node/binding.cc.

import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { AbiVersion } from './abi.js'
import { NetError } from './errors.js'

/** What native/node/env.cc calls and fills in. */
export interface Hooks {
  dispatch(): void
  /** By slab index; native sets and clears the elements. */
  slabs: (Uint8Array | undefined)[]
  /** What lib/ makes of them; native clears an element with its slab. */
  opened: (object | undefined)[]
  /** The connection tables: replaced by larger ones as ControlTableRows grows. */
  doubles?: ArrayBuffer
  words?: ArrayBuffer
}

export interface SharedMemory {
  control: ArrayBuffer
  metrics: ArrayBuffer
  completions: ArrayBuffer
  commands: ArrayBuffer
  arena: ArrayBuffer
  /** Which driver it has become: without libuv, DriverWaiterTsfn whatever was asked for. */
  driver: number
}

export interface Binding {
  readonly abiVersion: number
  /** A number: -errno, and nothing is open; -ENOTSUP: this process cannot have the driver. */
  open(hooks: Hooks, budgetBytes: number, debug: boolean, driver: number): SharedMemory | number | undefined
  flush(): void
  listen(kind: number, name: string, port: number, flags: number, backlog: number, lowWater: number): number
  dial(
    kind: number,
    name: string,
    port: number,
    local: string | undefined,
    localPort: number,
    flags: number,
    lowWater: number,
  ): number
  address(index: number, which: number): [family: string, address: string, port: number] | undefined
  setOption(index: number, option: number, value: number): number
  pin(bytes: Uint8Array): number
  /** dispatch() is called in this call's async context from now on; undefined: in none. False: not in this runtime. */
  setScope(resource: object | undefined): boolean
  setRef(on: boolean): void
  setBudget(bytes: number): void
}

const NodeMin = [20, 19] as const

let loaded: Binding | undefined

/** The addon, loaded at the first call. Throws a NetError with one readable sentence where it cannot run. */
export function binding(): Binding {
  loaded ??= load()
  return loaded
}

function unsupported(reason: string, cause?: unknown): NetError {
  return new NetError('ERR_UNSUPPORTED_PLATFORM', { op: 'configure' }, reason, { cause })
}

function checkRuntime(): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  if (major < NodeMin[0] || (major === NodeMin[0] && minor < NodeMin[1])) {
    throw unsupported(`edgewire needs Node.js ${NodeMin.join('.')} or newer, this is ${process.versions.node}`)
  }
  if (process.platform !== 'linux' && process.platform !== 'darwin') {
    throw unsupported(`edgewire runs on Linux and macOS only, this is ${process.platform}`)
  }
}

/** node-gyp-build takes Alpine for the only system with musl, and anything else for glibc unless LIBC says otherwise. */
function isUnnamedMusl(): boolean {
  if (process.platform !== 'linux' || process.env.LIBC !== undefined || existsSync('/etc/alpine-release')) return false
  // Deno has a report without this.
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined
  return report?.header !== undefined && report.header.glibcVersionRuntime === undefined
}

function load(): Binding {
  checkRuntime()
  const require = createRequire(import.meta.url)
  const loadAddon = require('node-gyp-build') as (root: string) => Binding
  let addon: Binding
  try {
    addon = loadAddon(fileURLToPath(new URL('..', import.meta.url)))
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ERR_DLOPEN_DISABLED') {
      throw unsupported('this process may not load addons: it runs with --no-addons or without --allow-addons', cause)
    }
    const machine = `${process.platform}-${process.arch} with Node.js ${process.versions.node}`
    const loads = code !== 'ERR_DLOPEN_FAILED'
    const problem = loads ? 'no binary of edgewire fits' : 'the binary of edgewire does not load on'
    const advice = isUnnamedMusl()
      ? 'this Node is linked with musl: set LIBC=musl in its environment'
      : 'build one with `npx edgewire build`'
    throw unsupported(`${problem} ${machine}; ${advice}`, cause)
  }
  if (addon.abiVersion !== AbiVersion) {
    throw unsupported(
      `the addon speaks version ${addon.abiVersion} and lib/ version ${AbiVersion}: reinstall or rebuild edgewire`,
    )
  }
  return addon
}
