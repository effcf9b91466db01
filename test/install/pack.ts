// Before all tests: the tarball that they install.
//
// EDGEWIRE_TARBALL names one that is there already: the one that is going to be published. Otherwise the clone is
// packed; and when nobody has built its prebuilds, the addon of build/ is put in for this machine only.

import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { TestProject } from 'vitest/node'
import { must } from './commands.ts'
import { hostPrebuild, pack, repack, root, temporaryFolder } from './tarball.ts'

declare module 'vitest' {
  interface ProvidedContext {
    tarball: string
    /** All six binaries must be in it, rather than this machine's only. */
    complete: boolean
  }
}

export default function setup({ provide }: TestProject) {
  if (!existsSync(join(root, 'test', 'install', 'node_modules')))
    throw new Error('run `npm ci --ignore-scripts` in test/install first')
  const given = process.env.EDGEWIRE_TARBALL
  if (given !== undefined) {
    provide('tarball', resolve(given))
    provide('complete', true)
    return undefined
  }
  const folder = temporaryFolder()
  const complete = existsSync(join(root, 'prebuilds'))
  must(root, process.execPath, ['tools/ready.mjs'])
  const packed = pack(root, join(folder, 'clone'))
  provide('complete', complete)
  provide('tarball', complete ? packed : repack(packed, join(folder, 'host'), addHostBinary))
  return () => rmSync(folder, { recursive: true, force: true })
}

function addHostBinary(folder: string): void {
  const target = join(folder, hostPrebuild())
  mkdirSync(dirname(target), { recursive: true })
  copyFileSync(join(root, 'build', 'Release', 'edgewire.node'), target)
}
