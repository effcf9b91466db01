// source/, a folder that exists only while the package is packed: what `edgewire build` compiles on a user's machine.
//
// The published package may not have binding.gyp at its root: yarn warns about it and npm would compile unasked. So it
// goes into a folder, with native/ beside it as its paths want.

import { copyFileSync, cpSync, mkdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = resolve(fileURLToPath(import.meta.url), '..', '..')
const source = join(root, 'source')

rmSync(source, { recursive: true, force: true })
if (!process.argv.includes('--remove')) {
  mkdirSync(source)
  copyFileSync(join(root, 'binding.gyp'), join(source, 'binding.gyp'))
  cpSync(join(root, 'native'), join(source, 'native'), { recursive: true })
}
