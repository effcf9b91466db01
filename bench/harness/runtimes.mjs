// @ts-check
// The runtimes beside Node. They are optional: `npm run bench -- --install-peers` fetches what can be had, and what is
// not there is skipped by name.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const bench = fileURLToPath(new URL('..', import.meta.url))
const INSTALL = 'npm run bench -- --install-peers'

/**
 * @typedef {object} Runtime
 * @property {string} name
 * @property {() => string} program  where it would lie
 * @property {() => string | undefined} missing  why it cannot be used, in one line
 * @property {() => string | undefined} version
 */

export const bun = runtime('Bun', {
  program: path.join(bench, `node_modules/@oven/bun-linux-${process.arch === 'arm64' ? 'aarch64' : 'x64'}/bin/bun`),
  version: (program) => execFileSync(program, ['--version'], { encoding: 'utf8' }),
})

export const deno = runtime('Deno', {
  program: path.join(bench, 'node_modules/@deno', `linux-${process.arch}-glibc`, 'deno'),
  version: (program) => execFileSync(program, ['--version'], { encoding: 'utf8' }).replace(/^deno (\S+)[\s\S]*/, '$1'),
})

/** The Go server is built ahead: what it was built with is written into it. */
export const goServer = runtime('the Go server', {
  program: path.join(bench, '../build/bench/go_server'),
  source: path.join(bench, 'peers/go'),
  version: (program) => /: go(\S+)/.exec(execFileSync('go', ['version', program], { encoding: 'utf8' }))?.[1] ?? '',
})

/**
 * @param {string} name
 * @param {{ program: string, source?: string, version: (program: string) => string }} how
 * @returns {Runtime}
 */
function runtime(name, { program, source, version }) {
  const missing = () => {
    if (!existsSync(program)) return `${name} is not installed (${INSTALL})`
    if (source !== undefined && isOlder(program, source)) return `${name} is older than its source (${INSTALL})`
    return undefined
  }
  return {
    name,
    program: () => program,
    missing,
    version: () => (missing() === undefined ? attempt(() => version(program).trim()) : undefined),
  }
}

/**
 * What is measured has to be what can be read.
 * @param {string} program
 * @param {string} source a folder
 */
export function isOlder(program, source) {
  const changed = (/** @type {string} */ file) => statSync(file).mtimeMs
  return readdirSync(source).some((name) => changed(path.join(source, name)) > changed(program))
}

/**
 * @template T
 * @param {() => T} read
 */
function attempt(read) {
  try {
    return read()
  } catch {
    return undefined
  }
}
