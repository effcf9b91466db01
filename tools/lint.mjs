// Every check on the text of the sources, each run to its end so that one run shows all there is to mend.
// `--fix` formats, and applies the linter's safe fixes, instead.

import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const fix = process.argv.includes('--fix')
const bin = (name) => join(root, 'node_modules', '.bin', name)

const cppFolders = ['native', 'bench', 'test/native', 'test/fuzz']
const cppFiles = cppFolders.flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.(cc|h)$/.test(file) && !file.startsWith('node_modules/'))
    .map((file) => join(folder, file)),
)

/** @type {{ command: string, args: string[] }[]} */
const checks = [
  { command: 'biome', args: ['check', '--error-on-warnings', ...(fix ? ['--write'] : []), '.'] },
  { command: 'clang-format', args: [...(fix ? ['-i'] : ['--dry-run', '-Werror']), ...cppFiles] },
]
if (!fix) {
  checks.push({ command: 'tsc', args: ['-p', 'test', '--noEmit'] })
  checks.push({ command: 'tsc', args: ['-p', 'tools', '--noEmit'] })
}

let failed = 0
for (const { command, args } of checks) {
  const { status, error } = spawnSync(bin(command), args, { cwd: root, stdio: 'inherit' })
  if (error !== undefined) console.error(`cannot run ${command}: ${error.message}`)
  if (status === 0) continue
  failed++
  console.error(`${command} ${args.slice(0, 3).join(' ')}: failed`)
}
process.exitCode = failed === 0 ? 0 : 1
