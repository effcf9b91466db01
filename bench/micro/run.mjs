// @ts-check
// `npm run bench:micro`: what one call, one dispatch, one round trip costs, in nanoseconds. README.md says what each
// number means and what it does not.
//
//   node --expose-gc bench/micro/run.mjs [--json FILE]
import { spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import process from 'node:process'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

/**
 * @typedef {object} Measurement
 * @property {string} name
 * @property {string} what
 * @property {() => unknown} run  what is timed; a promise is awaited
 */

const bench = fileURLToPath(new URL('..', import.meta.url))
/** Each row; with warm-ups and collections all rows together stay below half a minute. */
const MEASURED_NS = 500e6

/** The bench's own packages are not part of the install of the library. */
function install() {
  if (['mitata', 'generic-pool', 'undici'].every((name) => existsSync(`${bench}/node_modules/${name}`))) return
  console.log('installing the packages of bench/ ...')
  const { status, stderr } = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: bench,
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`npm ci in bench/ failed:\n${stderr}`)
}

/** @param {number} ns */
function duration(ns) {
  return ns < 10_000 ? `${ns.toFixed(1)} ns` : `${(ns / 1000).toFixed(2)} us`
}

/** @returns {{ json?: string }} */
function readOptions() {
  try {
    return parseArgs({ options: { json: { type: 'string' } } }).values
  } catch (error) {
    console.error(`micro: ${error instanceof Error ? error.message : error}`)
    process.exit(2)
  }
}

async function main() {
  const { json } = readOptions()
  install()
  // By a name that the type checker does not follow: it runs where the bench's packages are not installed.
  const { measure } = await import(/** @type {string} */ ('mitata'))
  const { calls } = await import('./calls.mjs')
  const { copies } = await import('./copies.mjs')
  const { pools } = await import('./pool.mjs')
  const { roundTrips } = await import('./round_trips.mjs')
  const { stats } = await import('../../dist/index.js')
  /** @type {Record<string, { p25: number, p50: number, p75: number }>} */
  const results = {}
  /** @param {string} title @param {() => Promise<{ measurements: Measurement[], end: () => Promise<unknown> }>} make */
  async function section(title, make) {
    const head = [''.padEnd(32), 'median'.padStart(11), 'half of the samples in'.padEnd(24), 'turns', 'dispatches']
    console.log(`\n${title}\n${head.join('  ')}`)
    const { measurements, end } = await make()
    for (const { name, what, run } of measurements) {
      // Whatever woke us may have been a turn of the reactor, within which a flush, say, is another thing.
      await setImmediate()
      const before = stats()
      let runs = 0
      const counted = () => {
        runs++
        return run()
      }
      const { p25, p50, p75 } = await measure(counted, { min_cpu_time: MEASURED_NS })
      const after = stats()
      results[name] = { p25, p50, p75 }
      const range = `${duration(p25)} .. ${duration(p75)}`
      const turns = ((after.turns - before.turns) / runs).toFixed(1)
      const dispatches = ((after.dispatches - before.dispatches) / runs).toFixed(1)
      const columns = [name.padEnd(32), duration(p50).padStart(11), range.padEnd(24), turns.padStart(5)]
      console.log(`${columns.join('  ')} ${dispatches.padStart(10)}  ${what}`)
    }
    await end()
  }
  console.log(`Node ${process.version}, ${os.cpus()[0]?.model ?? process.arch}`)
  await section('Calls: in this process, nothing is sent', calls)
  await section('Through sockets: both ends in this process, over loopback', roundTrips)
  await section('Copies by the kernel: 64 KiB of a file, by the place of the buffer', copies)
  await section('Pool: borrowing a connection and giving it back', pools)
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(results, null, 2)}\n`)
}

await main()
