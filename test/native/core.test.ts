// The core's property tests are a C++ program of their own (test/native/*_test.cc under AddressSanitizer and
// UndefinedBehaviorSanitizer); this runs it, and turns its findings into a readable failure.

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

// The core with the system's own poller; on Linux also with macOS's, over a kqueue that the tests bring (kqueue/).
const binaries = ['edgewire_core_test', ...(process.platform === 'linux' ? ['edgewire_core_kqueue_test'] : [])]
const TESTS_MIN = 120
const RUN_TIMEOUT_MS = 120_000
// The last lines tell what failed; a sanitizer's stacks come at the end as well.
const TAIL_LINES = 120

const pathOf = (name: string) => fileURLToPath(new URL(`../../build/Release/${name}`, import.meta.url))

function runCore(name: string, detectLeaks: boolean) {
  return spawnSync(pathOf(name), ['--gtest_brief=1', '--gtest_color=no'], {
    encoding: 'utf8',
    timeout: RUN_TIMEOUT_MS,
    maxBuffer: 64 * 1024 * 1024,
    env: {
      ...process.env,
      ASAN_OPTIONS: `detect_leaks=${detectLeaks ? 1 : 0}:detect_stack_use_after_return=1`,
      UBSAN_OPTIONS: 'print_stacktrace=1',
    },
  })
}

test.each(binaries)(
  '%s: the native core passes its own tests under the sanitizers',
  (name) => {
    expect(existsSync(pathOf(name)), 'the core test binary is not built: node tools/ready.mjs --tests').toBe(true)
    let run = runCore(name, process.platform === 'linux')
    // Leak detection needs ptrace, which a debugger or a container may have taken.
    if (run.stderr.includes('LeakSanitizer has encountered a fatal error')) run = runCore(name, false)

    const output = `${run.stdout}${run.stderr}`
    const tail = output.split('\n').slice(-TAIL_LINES).join('\n')
    if (run.status !== 0) throw new Error(`${name}: ${run.signal ?? `exit code ${run.status}`}\n${tail}`)

    const ran = Number(/(\d+) tests? from \d+ test suites? ran/.exec(output)?.[1] ?? 0)
    expect(ran, `fewer tests than there must be:\n${tail}`).toBeGreaterThanOrEqual(TESTS_MIN)
  },
  RUN_TIMEOUT_MS * 2,
)
