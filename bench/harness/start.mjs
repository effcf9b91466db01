// @ts-check
// How the two programs begin and how they fail.
import { existsSync } from 'node:fs'
import path from 'node:path'
import pc from 'picocolors'
import { defaultBin, EDGEWIRE, FLOOR, loadProgram, NET } from './servers.mjs'
import { tryOut } from './trial.mjs'

/** @import { Server } from './servers.mjs' */

/**
 * Runs a program to its end. A failure is a sentence or two and status 1.
 * @param {() => Promise<void>} main
 */
export function run(main) {
  main().then(
    () => process.exit(0),
    (error) => {
      const message = error instanceof Error ? error.message : `${error}`
      console.error(`${pc.red('bench failed:')} ${message}`)
      process.exit(1) // and with us goes whatever still runs: see child.mjs
    },
  )
}

/**
 * @param {string} [bin] where edgewire-floor and edgewire-load are
 * @returns {string} the same, or where they are usually
 */
export function requirePrograms(bin = defaultBin) {
  if (process.platform !== 'linux') throw new Error('the load generator and the floor run on Linux only (epoll).')
  const missing = [loadProgram(bin), path.join(bin, 'edgewire-floor')].filter((file) => !existsSync(file))
  if (missing.length > 0) throw new Error(`not built yet (npm run compile):\n  ${missing.join('\n  ')}`)
  return bin
}

/** Without these there is nothing to compare: they come with the clone. */
const OURS = [FLOOR, NET, EDGEWIRE]

/**
 * Tries every server once, so that one that is missing or does not run here is known before anything is measured.
 * @param {Server[]} wanted
 * @param {string} bin
 * @param {typeof tryOut} [attempt]
 * @returns {Promise<{ found: Server[], skipped: string[] }>} skipped: a line for each that is not among the found
 */
export async function present(wanted, bin, attempt = tryOut) {
  const found = []
  const skipped = []
  for (const server of wanted) {
    const reason = server.missing?.() ?? (await attempt(server, bin))
    if (reason === undefined) found.push(server)
    else if (OURS.includes(server.name)) throw new Error(reason)
    else skipped.push(`${server.name}: ${reason}`)
  }
  if (found.length === 0) throw new Error(`no server is left to measure:\n  ${skipped.join('\n  ')}`)
  return { found, skipped }
}
