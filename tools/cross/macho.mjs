// What a macOS addon is and asks for. Linux has no tool for it that would check a code signature, and the packages on
// npm know neither LC_BUILD_VERSION nor export tries; so this reads the few load commands that matter, little-endian
// 64-bit only. The layouts are those of <mach-o/loader.h> and, for signatures, of Apple's xnu: osfmk/kern/cs_blobs.h.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

const MAGIC_64 = 0xfeedfacf
const ARCH = { 16777223: 'x64', 16777228: 'arm64' }
const KIND = { 2: 'program', 6: 'shared library', 8: 'bundle' }
const PLATFORM_MACOS = 1
const HEADER_BYTES = 32

const LC = { SYMTAB: 0x2, LOAD_DYLIB: 0xc, CODE_SIGNATURE: 0x1d, BUILD_VERSION: 0x32 }
const LC_EXPORTS = { DYLD_INFO: 0x22, DYLD_INFO_ONLY: 0x80000022, EXPORTS_TRIE: 0x80000033 }

// nlist_64
const SYMBOL_BYTES = 16
const N_STAB = 0xe0
const N_TYPE = 0x0e
const N_EXT = 0x01
const N_UNDF = 0x0
const FLAT_LOOKUP = 0xfe
const WEAK_REFERENCE = 0x40

// Signatures are big-endian.
const CS_SUPERBLOB = 0xfade0cc0
const CS_CODE_DIRECTORY = 0xfade0c02
const CS_ADHOC = 0x2
const CS_SHA256 = 2

/**
 * @param {string} path
 * @returns {import('./elf.mjs').Binary & { minimum?: string, signature?: string }} `signature` is 'ad hoc' or says what
 *   is wrong with it
 */
export function readMachO(path) {
  const file = readFileSync(path)
  if (file.length < HEADER_BYTES || file.readUInt32LE(0) !== MAGIC_64) throw new Error('not a 64-bit Mach-O file')
  const commands = loadCommands(file)
  const all = (type) => commands.filter((command) => command.type === type)
  const [build] = all(LC.BUILD_VERSION)
  const needed = all(LC.LOAD_DYLIB).map(({ at }) => textAt(file, at + file.readUInt32LE(at + 8)))
  const [signed] = all(LC.CODE_SIGNATURE)
  const symbols = all(LC.SYMTAB).flatMap(({ at }) => symbolTable(file, at))
  return {
    kind: KIND[file.readUInt32LE(12)] ?? `file type ${file.readUInt32LE(12)}`,
    arch: ARCH[file.readUInt32LE(4)] ?? `cpu type ${file.readUInt32LE(4)}`,
    needed,
    exports: exportTries(file, commands).map(withoutUnderscore),
    imports: symbols
      .filter(({ type, weak }) => (type & N_EXT) !== 0 && (type & N_TYPE) === N_UNDF && !weak)
      .map(({ name, library }) => ({
        name: withoutUnderscore(name),
        library: library === FLAT_LOOKUP ? undefined : needed[library - 1],
      })),
    debug: symbols.some(({ type }) => (type & N_STAB) !== 0),
    minimum: build && minimumVersion(file, build.at),
    signature: signed && checkSignature(file, file.readUInt32LE(signed.at + 8)),
  }
}

/** C names carry a leading underscore in Mach-O. */
const withoutUnderscore = (name) => name.replace(/^_/, '')

const textAt = (file, at) => file.toString('utf8', at, file.indexOf(0, at))

function loadCommands(file) {
  const count = file.readUInt32LE(16)
  let at = HEADER_BYTES
  return Array.from({ length: count }, () => {
    const command = { type: file.readUInt32LE(at), at }
    at += file.readUInt32LE(at + 4)
    return command
  })
}

function minimumVersion(file, at) {
  const version = file.readUInt32LE(at + 12)
  const platform = file.readUInt32LE(at + 8)
  return `${platform === PLATFORM_MACOS ? 'macOS' : `platform ${platform}`} ${version >> 16}.${(version >> 8) & 255}`
}

function symbolTable(file, at) {
  const [offset, count, strings] = [8, 12, 16].map((field) => file.readUInt32LE(at + field))
  return Array.from({ length: count }, (_, index) => {
    const symbol = offset + index * SYMBOL_BYTES
    const description = file.readUInt16LE(symbol + 6)
    return {
      name: textAt(file, strings + file.readUInt32LE(symbol)),
      type: file[symbol + 4],
      library: description >> 8,
      weak: (description & WEAK_REFERENCE) !== 0,
    }
  })
}

function exportTries(file, commands) {
  return commands.flatMap(({ type, at }) => {
    if (type === LC_EXPORTS.EXPORTS_TRIE) return trie(file, file.readUInt32LE(at + 8), file.readUInt32LE(at + 12))
    if (type !== LC_EXPORTS.DYLD_INFO && type !== LC_EXPORTS.DYLD_INFO_ONLY) return []
    return trie(file, file.readUInt32LE(at + 40), file.readUInt32LE(at + 44))
  })
}

/** All names of a trie of prefixes: a node is its value's length, the value, and edges of a text and a node's place. */
function trie(file, start, bytes) {
  if (bytes === 0) return []
  const names = []
  const rest = [{ prefix: '', at: start }]
  for (let node = rest.pop(); node !== undefined; node = rest.pop()) {
    const value = uleb128(file, node.at)
    if (value.number > 0) names.push(node.prefix)
    let at = value.next + value.number
    for (let edges = file[at++]; edges > 0; edges--) {
      const text = textAt(file, at)
      const child = uleb128(file, at + text.length + 1)
      rest.push({ prefix: node.prefix + text, at: start + child.number })
      at = child.next
    }
  }
  return names
}

function uleb128(file, at) {
  let number = 0
  for (let shift = 0; ; shift += 7) {
    const byte = file[at++]
    number += (byte & 127) * 2 ** shift
    if (byte < 128) return { number, next: at }
  }
}

/** macOS kills a process that maps a page whose hash is not the one in the signature. */
function checkSignature(file, at) {
  if (file.readUInt32BE(at) !== CS_SUPERBLOB) return 'no signature where there should be one'
  const blobs = Array.from({ length: file.readUInt32BE(at + 8) }, (_, i) => at + file.readUInt32BE(at + 16 + i * 8))
  const directory = blobs.find((blob) => file.readUInt32BE(blob) === CS_CODE_DIRECTORY)
  if (directory === undefined) return 'no code directory'
  const [flags, hashes, , slots, limit] = [12, 16, 24, 28, 32].map((field) => file.readUInt32BE(directory + field))
  const [hashBytes, hashType, , pageBits] = file.subarray(directory + 36, directory + 40)
  if ((flags & CS_ADHOC) === 0 || hashType !== CS_SHA256) return 'not ad hoc with SHA-256'
  if (limit !== at) return 'the signature does not cover the whole file'
  for (let slot = 0; slot < slots; slot++) {
    const page = file.subarray(slot << pageBits, Math.min((slot + 1) << pageBits, limit))
    const wanted = file.subarray(directory + hashes + slot * hashBytes, directory + hashes + (slot + 1) * hashBytes)
    if (!createHash('sha256').update(page).digest().equals(wanted)) return `page ${slot} does not match its hash`
  }
  return 'ad hoc'
}
