// Packing, unpacking, and packing again with something changed.

import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { must } from './commands.ts'

export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

/** The running machine's file in prebuilds/. */
export function hostPrebuild(): string {
  const musl = process.platform === 'linux' && !('glibcVersionRuntime' in header())
  const libc = process.platform === 'linux' ? (musl ? '.musl' : '.glibc') : ''
  return `prebuilds/${process.platform}-${process.arch}/edgewire${libc}.node`
}

function header(): object {
  return (process.report.getReport() as unknown as { header: object }).header
}

export function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), 'edgewire-install-'))
}

/** Returns the path of the tarball, in `into`. */
export function pack(folder: string, into: string, ...flags: string[]): string {
  mkdirSync(into, { recursive: true })
  must(folder, 'npm', ['pack', '--pack-destination', into, ...flags])
  const [name] = readdirSync(into).filter((file) => file.endsWith('.tgz'))
  if (name === undefined) throw new Error('npm pack left no tarball')
  return join(into, name)
}

/** A tarball like this one but for what `edit` does to its unpacked files. */
export function repack(tarball: string, into: string, edit: (folder: string) => void): string {
  const folder = temporaryFolder()
  try {
    must(folder, 'tar', ['-xzf', tarball])
    edit(join(folder, 'package'))
    return pack(join(folder, 'package'), into, '--ignore-scripts')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
