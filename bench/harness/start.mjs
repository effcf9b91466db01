// @ts-check
// How the two programs begin and how they fail.
import pc from 'picocolors'
import { defaultBin, missingFiles } from './servers.mjs'

/** @import { Server } from './servers.mjs' */

/**
 * Runs a program to its end. A failure is one sentence and status 1: the numbers of a run in which anything went wrong
 * are not shown.
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
 * @param {Server[]} chosen
 * @param {string} [bin] where edgewire-floor and edgewire-load are
 * @returns {string} the same, or where they are usually
 */
export function requirePrograms(chosen, bin = defaultBin) {
  if (process.platform !== 'linux') throw new Error('the load generator and the floor run on Linux only (epoll).')
  const missing = missingFiles(chosen, bin)
  if (missing.length > 0) throw new Error(`not built yet (npm run build):\n  ${missing.join('\n  ')}`)
  return bin
}
