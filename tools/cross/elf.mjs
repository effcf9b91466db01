// What a Linux addon is and asks for, as readelf (binutils, which comes with g++) tells it.

import { execFileSync } from 'node:child_process'

/**
 * @typedef {object} Binary  both formats are read into this
 * @property {string} kind       'shared library' or what else it is
 * @property {string} arch       as Node calls it, or the format's own word for it
 * @property {string[]} needed   libraries that the loader must find
 * @property {string[]} exports
 * @property {{ name: string, version?: string, library?: string }[]} imports
 * @property {boolean} debug     debug information or a full symbol table is in the file
 */

const ARCH = { 'Advanced Micro Devices X86-64': 'x64', AArch64: 'arm64' }
const KIND = { DYN: 'shared library', EXEC: 'program', REL: 'object file' }

/** @returns {Binary} */
export function readElf(path) {
  const text = execFileSync('readelf', ['--wide', '--file-header', '--sections', '--dynamic', '--dyn-syms', path], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 64 * 1024 * 1024,
  })
  const field = (name) => new RegExp(`^\\s*${name}:\\s+(.*?)\\s*$`, 'm').exec(text)?.[1] ?? ''
  const symbols = [...text.matchAll(symbolLine)].map((match) => match.groups)
  return {
    kind: KIND[field('Type').split(' ')[0]] ?? field('Type'),
    arch: ARCH[field('Machine')] ?? field('Machine'),
    needed: [...text.matchAll(/\(NEEDED\)\s+Shared library: \[(.+)\]/g)].map(([, name]) => name),
    exports: symbols.filter(({ place }) => place !== 'UND').map(({ name }) => name),
    imports: symbols
      .filter(({ place, bind }) => place === 'UND' && bind !== 'WEAK')
      .map(({ name, version }) => ({ name, version })),
    debug: /^\s*\[ *\d+\] \.(symtab|debug_\w+)\s/m.test(text),
  }
}

// `    12: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND memcpy@GLIBC_2.14 (4)`
const symbolLine =
  /^ *\d+: [\da-f]+ +\d+ \w+ +(?<bind>GLOBAL|WEAK) +DEFAULT +(?<place>\w+) (?<name>[^\s@]+)(?:@+(?<version>\S+))?/gm
