// Shows on a Mac what docs/macos.md says only a Mac can show: the tests that its table names, one claim a line, then the
// end-to-end tests. `--rehearse` runs the native ones on Linux, over the kqueue that the tests bring.

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const rehearsal = process.argv.includes('--rehearse')
const binary = join(root, 'build', 'Release', rehearsal ? 'edgewire_core_kqueue_test' : 'edgewire_core_test')
const CLAIMS_MIN = 15

/** The table's rows: the claim, and the tests that show it. */
function claims() {
  const rows = readFileSync(join(root, 'docs', 'macos.md'), 'utf8').matchAll(
    /^\| (.+?) \| (.+?) \| (`\w+\.\w+`.*?) \|$/gm,
  )
  const found = [...rows].map(([, claim = '', , tests = '']) => ({
    claim,
    tests: [...tests.matchAll(/`(\w+\.\w+)`/g)].map(([, name]) => name),
  }))
  if (found.length < CLAIMS_MIN) throw new Error(`docs/macos.md: ${found.length} claims, fewer than ${CLAIMS_MIN}`)
  return found
}

/** Runs just these tests, and sees that there are such tests. @param {(string | undefined)[]} tests */
function shows(tests) {
  const { status, stdout, stderr } = spawnSync(binary, [`--gtest_filter=${tests.join(':')}`, '--gtest_color=no'], {
    encoding: 'utf8',
  })
  const passed = Number(/\[ {2}PASSED {2}\] (\d+) test/.exec(stdout ?? '')?.[1] ?? 0)
  if (status === 0 && passed === tests.length) return true
  console.log(`${stdout}${stderr}`)
  return false
}

/** @param {string[]} args */
function run(...args) {
  return spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' }).status === 0
}

function main() {
  if (process.platform !== (rehearsal ? 'linux' : 'darwin')) {
    console.error(rehearsal ? 'the rehearsal is for Linux' : 'this is for macOS; on Linux: --rehearse')
    return 1
  }
  if (!run('tools/ready.mjs', '--tests')) return 1
  let failed = 0
  for (const { claim, tests } of claims()) {
    const shown = shows(tests)
    if (!shown) failed++
    console.log(`${shown ? 'shown ' : 'FAILED'}  ${claim}`)
  }
  if (!rehearsal && !run('node_modules/vitest/vitest.mjs', 'run', 'test/e2e', 'test/conformance')) failed++
  console.log(failed === 0 ? 'all shown' : `${failed} failed`)
  return failed === 0 ? 0 : 1
}

process.exitCode = main()
