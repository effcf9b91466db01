// The files of the project as the tidy test sees them.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

export const read = (path: string) => readFileSync(join(root, path), 'utf8')
export const linesOf = (path: string) => read(path).replace(/\n$/, '').split('\n')
export const exists = (path: string) => existsSync(join(root, path))

const GENERATED = new Set(['node_modules', 'build', 'dist', 'prebuilds', 'source', 'coverage', '.git', '.cache'])
const BINARY = /\.(png|gif|ico|node|o|a|wasm)$/

/** What is in the repository or would be added to it; without git (an unpacked archive) all but what is generated. */
function list(): string[] {
  const git = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  })
  const found = git.status === 0 ? git.stdout.split('\n').filter(Boolean) : walk('')
  return found.filter((path) => exists(path) && statSync(join(root, path)).isFile()).sort()
}

function walk(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    if (GENERATED.has(entry.name)) return []
    const path = join(folder, entry.name)
    return entry.isDirectory() ? walk(path) : [path]
  })
}

export const allFiles = list()
export const textFiles = allFiles.filter((path) => !BINARY.test(path))

/** Files below `folder` whose name ends as `extensions` says. */
export function filesIn(folder: string, extensions: RegExp): string[] {
  return textFiles.filter((path) => path.startsWith(`${folder}/`) && extensions.test(path))
}
