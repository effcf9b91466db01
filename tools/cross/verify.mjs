// What a released binary must be. `verify` returns what is wrong with one, as sentences; nothing when all is well.

import { readFileSync, statSync } from 'node:fs'
import { readElf } from './elf.mjs'
import { readMachO } from './macho.mjs'

const KIB = 1024
export const SIZE_MAX_BYTES = 500 * KIB
const GLIBC_MAX = [2, 17]
const MACOS_MINIMUM = 'macOS 11.0'

// How Node knows an addon: N-API 8 registers by name.
const EXPORTS = ['napi_register_module_v1', 'node_api_module_get_api_version_v1']

// What the process that loads the addon must provide: Node-API only. libuv is looked up at run time.
const HOST_SYMBOL = /^(napi|node_api)_/

// zig's linker for macOS cannot be given a list of exports. Visibility hides all but these: operator new and delete of
// the C++ runtime, which must stay replaceable, and what every library has.
const UNAVOIDABLE_ON_DARWIN = /^(_Zn[wa]|_Zd[la])|^(_mh_dylib_header|__dso_handle)$/

// Debian and Alpine have them under the same names; every libc brings all of its own.
const LIBRARIES = {
  glibc: /^(libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|ld-linux-(x86-64|aarch64)\.so\.[12])$/,
  musl: /^libc\.so$/,
  darwin: /^\/usr\/lib\/libSystem\.B\.dylib$/,
}

/**
 * @param {import('./targets.mjs').Target} target
 * @param {string} path
 * @returns {{ problems: string[], facts: string, imports: string[] }} `imports`: what the host must provide
 */
export function verify(target, path) {
  const bytes = statSync(path).size
  const problems = bytes > SIZE_MAX_BYTES ? [`${bytes} bytes; ${SIZE_MAX_BYTES} are allowed`] : []
  const read = { linux: readElf, darwin: readMachO }[target.platform]
  let binary
  try {
    if (target.platform === 'linux' && !isElf(path)) throw new Error('not an ELF file')
    binary = read(path)
  } catch (error) {
    return { problems: [...problems, error.message], facts: '', imports: [] }
  }
  const special = target.platform === 'linux' ? verifyLinux(target, binary) : verifyDarwin(target, binary)
  problems.push(...verifyAny(target, binary), ...special.problems)
  const host = binary.imports.filter(({ name }) => HOST_SYMBOL.test(name)).map(({ name }) => name)
  const size = `${Math.ceil(bytes / KIB)} KiB`
  return { problems, facts: [size, special.fact, `${host.length} host symbols`].join(', '), imports: host }
}

const isElf = (path) => readFileSync(path).subarray(0, 4).toString('latin1') === '\x7fELF'

function verifyAny(target, { kind, arch, needed, exports, debug }) {
  const problems = []
  if (kind !== 'shared library') problems.push(`a ${kind}, not a shared library`)
  if (arch !== target.arch) problems.push(`made for ${arch}, not ${target.arch}`)
  if (debug) problems.push('not stripped')
  const allowed = LIBRARIES[target.libc ?? target.platform]
  problems.push(...needed.filter((name) => !allowed.test(name)).map((name) => `needs ${name}`))
  problems.push(...EXPORTS.filter((name) => !exports.includes(name)).map((name) => `does not export ${name}`))
  const more = exports.filter((name) => !EXPORTS.includes(name))
  const surplus = target.platform === 'darwin' ? more.filter((name) => !UNAVOIDABLE_ON_DARWIN.test(name)) : more
  problems.push(...surplus.map((name) => `exports ${name}`))
  return problems
}

function verifyLinux(target, { imports }) {
  const versions = new Set(imports.flatMap(({ version }) => version ?? []))
  const problems = []
  let newest = [0]
  for (const version of versions) {
    const numbers = /^GLIBC_([\d.]+)$/.exec(version)?.[1].split('.').map(Number)
    if (target.libc === 'musl' || numbers === undefined) problems.push(`needs the symbol version ${version}`)
    else if (compare(numbers, newest) > 0) newest = numbers
  }
  if (compare(newest, GLIBC_MAX) > 0)
    problems.push(`needs GLIBC_${newest.join('.')}; at most GLIBC_${GLIBC_MAX.join('.')} is allowed`)
  // In musl nothing has a version: there, what loads it in a real musl (tools/proof.mjs) finds out.
  const foreign = imports.filter(({ name, version }) =>
    target.libc === 'glibc' ? version === undefined && !HOST_SYMBOL.test(name) : name.startsWith('_Z'),
  )
  problems.push(...foreign.map(({ name }) => `imports ${name}, which neither libc nor Node provides`))
  return { problems, fact: target.libc === 'glibc' ? `GLIBC_${newest.join('.')}` : 'musl' }
}

function verifyDarwin(target, { imports, minimum, signature }) {
  const problems = []
  if (minimum !== MACOS_MINIMUM) problems.push(`is for ${minimum ?? 'an unknown system'}, not ${MACOS_MINIMUM}`)
  // macOS on arm64 loads no code without a signature; on x64 it need not have one.
  if (signature === undefined && target.arch === 'arm64') problems.push('has no code signature')
  if (signature !== undefined && signature !== 'ad hoc') problems.push(`code signature: ${signature}`)
  const foreign = imports.filter(({ name, library }) => library === undefined && !HOST_SYMBOL.test(name))
  problems.push(...foreign.map(({ name }) => `imports ${name}, which neither macOS nor Node provides`))
  return { problems, fact: `${minimum}, ${signature === undefined ? 'not signed' : `signed ${signature}`}` }
}

function compare(left, right) {
  const at = left.findIndex((number, index) => number !== (right[index] ?? 0))
  return at < 0 ? left.length - right.length : left[at] - (right[at] ?? 0)
}
