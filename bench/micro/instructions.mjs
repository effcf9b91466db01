// @ts-check
// Instructions of the native core per message, counted by valgrind: the figure that is the same on a busy machine.
//
//   node bench/micro/instructions.mjs                     a table beside the reference; bench/results/instructions.json
//   node bench/micro/instructions.mjs --check             status 1 if something has become dearer than the reference
//   node bench/micro/instructions.mjs --save              makes this tree the reference: bench/micro/instructions.json
//   node bench/micro/instructions.mjs --load echo-64b-64 --functions      where they go, function by function
//
// Without valgrind it says so and ends with status 0. What is counted: core_cost.cc.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { countInstructions } from './callgrind_file.mjs'
import { compare, GROWTH_ALLOWED } from './reference.mjs'

/** @typedef {import('./reference.mjs').Cost} Cost */

const root = fileURLToPath(new URL('../..', import.meta.url))
const program = path.join(root, 'build/Release/edgewire-core-cost')
const referencePath = fileURLToPath(new URL('instructions.json', import.meta.url))
const FUNCTIONS_SHOWN = 25
/** Calls a message below this are in the file, but not in the table. */
const SHOWN_FROM = 0.005

/** The function between whose start and end is counted, and the namespace whose own instructions are not. */
const MEASURED = 'edgewire::bench::(anonymous namespace)::steady_state*'
const NOT_COUNTED = 'edgewire::bench::'

class Failure extends Error {}

/** @param {string} command @param {string[]} args */
function run(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' })
  if (error !== undefined) throw new Failure(`cannot run ${command}: ${error.message}`)
  if (status !== 0) throw new Failure(`${stdout}${stderr}\n${command}: status ${status}`)
  return stdout
}

/**
 * @param {string} load
 * @param {string} folder  for valgrind's file
 * @returns {{ cost: Cost, compiler: string, functions: [string, number][] }}
 */
function measure(load, folder) {
  const file = path.join(folder, load)
  const stdout = run('valgrind', [
    '--tool=callgrind',
    '--quiet',
    `--callgrind-out-file=${file}`,
    '--collect-atstart=no',
    `--toggle-collect=${MEASURED}`,
    '--compress-strings=no',
    '--compress-pos=no',
    program,
    load,
  ])
  const { messages, calls, compiler } = JSON.parse(stdout)
  const { total, byFunction } = countInstructions(readFileSync(file, 'utf8'), NOT_COUNTED)
  if (total === 0) throw new Failure(`${load}: nothing was counted; does the program still have ${MEASURED}?`)
  /** @param {number} count */
  const each = (count) => Number((count / messages).toFixed(3))
  return {
    cost: {
      instructions: each(total),
      calls: Object.fromEntries(
        Object.entries(calls)
          .filter(([, count]) => count > 0)
          .map(([name, count]) => [name, each(count)]),
      ),
    },
    compiler: `${compiler}, ${process.arch}`,
    functions: [...byFunction].map(([name, count]) => [name, each(count)]),
  }
}

/** @returns {{ compiler: string, loads: Record<string, Cost> } | undefined} */
function readReference() {
  try {
    return JSON.parse(readFileSync(referencePath, 'utf8'))
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === 'ENOENT') return undefined
    throw error
  }
}

/** @param {[string, number][]} functions */
function printFunctions(functions) {
  const sorted = functions.sort(([, a], [, b]) => b - a).slice(0, FUNCTIONS_SHOWN)
  for (const [name, each] of sorted) console.log(`    ${each.toFixed(1).padStart(8)}  ${name}`)
}

/** @param {Cost} cost @param {Cost | undefined} before */
function row(cost, before) {
  const change = before === undefined ? '' : `${((cost.instructions / before.instructions - 1) * 100).toFixed(1)}%`
  const calls = Object.entries(cost.calls)
    .filter(([, each]) => each >= SHOWN_FROM)
    .map(([name, each]) => `${name} ${each.toFixed(2)}`)
  return `${cost.instructions.toFixed(1).padStart(9)} ${change.padStart(8)}   ${calls.join(', ')}`
}

/** @param {string} file @param {string} compiler @param {Record<string, Cost>} loads */
function write(file, compiler, loads) {
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, `${JSON.stringify({ compiler, loads }, null, 2)}\n`)
}

/** @param {string[]} chosen */
function loadsToRun(chosen) {
  const all = run(program, []).trim().split('\n')
  const unknown = chosen.find((load) => !all.includes(load))
  if (unknown !== undefined) throw new Failure(`--load: there is no '${unknown}'. There are: ${all.join(', ')}`)
  return chosen.length > 0 ? chosen : all
}

/** @param {{ check: boolean, save: boolean, functions: boolean, load: string[] }} options */
function main(options) {
  if (options.save && options.load.length > 0) throw new Failure('--save takes all loads: leave --load away')
  const { error, stdout } = spawnSync('valgrind', ['--version'], { encoding: 'utf8' })
  if (error !== undefined) {
    console.log(
      'Instruction counts: skipped. They need valgrind, which is not installed (Debian: apt-get install valgrind).',
    )
    return
  }
  const loads = loadsToRun(options.load)
  const reference = readReference()
  const folder = mkdtempSync(path.join(tmpdir(), 'edgewire-instructions-'))
  /** @type {Record<string, Cost>} */
  const costs = {}
  let compiler = ''
  try {
    console.log(`Instructions of the core per message, and its system calls (${stdout.trim()})`)
    console.log(`${'load'.padEnd(18)} ${'instr.'.padStart(9)} ${'change'.padStart(8)}   calls`)
    for (const load of loads) {
      const { cost, functions, compiler: seen } = measure(load, folder)
      compiler = seen
      costs[load] = cost
      const comparable = reference?.compiler === compiler ? reference.loads[load] : undefined
      console.log(`${load.padEnd(18)} ${row(cost, comparable)}`)
      if (options.functions) printFunctions(functions)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  write(path.join(root, 'bench/results/instructions.json'), compiler, costs)
  if (options.save) return write(referencePath, compiler, costs)
  judge(reference, compiler, costs, options.check)
}

/**
 * @param {ReturnType<typeof readReference>} reference
 * @param {string} compiler
 * @param {Record<string, Cost>} costs
 * @param {boolean} check
 */
function judge(reference, compiler, costs, check) {
  if (reference === undefined || reference.compiler !== compiler) {
    const known = reference === undefined ? 'there is no reference' : `the reference is of ${reference.compiler}`
    console.log(`Not compared: ${known}, this is ${compiler}.`)
    return
  }
  const found = compare(reference.loads, costs)
  for (const sentence of found) console.log(sentence)
  if (check && found.length > 0) process.exitCode = 1
  if (found.length === 0) console.log(`Nothing is dearer than the reference by more than ${GROWTH_ALLOWED * 100}%.`)
}

try {
  const { values } = parseArgs({
    options: {
      check: { type: 'boolean', default: false },
      save: { type: 'boolean', default: false },
      functions: { type: 'boolean', default: false },
      load: { type: 'string', multiple: true, default: [] },
    },
  })
  main(values)
} catch (error) {
  const ours = error instanceof Failure || (error instanceof TypeError && 'code' in error)
  if (!ours) throw error
  console.error(`instructions: ${error.message}`)
  process.exitCode = 2
}
