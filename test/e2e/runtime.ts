// Which runtime the tests run in, and what it cannot do: the suite is written for Node, and runs in Bun and Deno too
// (test/runtimes). docs/runtimes.md says it to users.

import { mkdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

export const isBun = 'bun' in process.versions
export const isDeno = 'deno' in process.versions
export const isNode = !isBun && !isDeno

/** The driver that wakes the loop with a thread-safe function: in Bun and Deno, and where EDGEWIRE_DRIVER says so. */
export const isTsfn = !isNode || process.env.EDGEWIRE_DRIVER === 'waiter-tsfn'

/** No thread waits on the poller beside the loop: what a synchronous piece of a test does is found in one look. */
export const looksItself = isNode && ['', 'uv_poll', 'prepare', undefined].includes(process.env.EDGEWIRE_DRIVER)

const waitsForLibuv = process.env.EDGEWIRE_DRIVER === 'prepare'

/**
 * How many looks at the poller libuv has been the reason for. The driver prepare waits in libuv's place: whatever wakes
 * libuv (V8's garbage collector does by the thousand) ends one look, and the alarm that follows may end another.
 */
export const looksForLibuv = () => (waitsForLibuv ? 2 * performance.nodeTiming.uvMetricsInfo.events : 0)

const folder = fileURLToPath(new URL('../../.cache/programs', import.meta.url))
let programs = 0

/** The arguments that make this runtime run `source`, an ES module, in a process of its own while the test lasts. */
export function moduleArguments(source: string): string[] {
  if (!isDeno) return ['--input-type=module', '-e', source]
  // Deno translates `-e` of child_process to CommonJS. 'edgewire' is found from inside the clone only.
  mkdirSync(folder, { recursive: true })
  const path = join(folder, `${process.pid}-${programs++}.mjs`)
  writeFileSync(path, source)
  // Not when this process ends, which vitest may end as it likes.
  onTestFinished(() => rmSync(path, { force: true }))
  return [path]
}

const standard = [0, 1, 2].map((fd) => targetOf(fd))

/** What a runtime opens for itself when it likes: Deno's caches of compiled code, Bun's second stdout and stderr. */
export function isRuntimes(fd: number, target: string): boolean {
  if (isDeno) return /_cache_v\d+(-wal|-shm|-journal)?$/.test(target)
  return isBun && fd > 2 && standard.includes(target)
}

function targetOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return undefined
  }
}
