// @ts-check
// The command line of the JavaScript servers. It is read once, before anything is opened, so that they can share it.
import process from 'node:process'
import { parseArgs } from 'node:util'

export const APPS = ['echo', 'deadline', 'fanout', 'lines', 'frames', 'sink', 'source']

/** The same for every server here, where the runtime lets it be chosen: a burst of connects must not find it full. */
export const BACKLOG = 4096

/** Its tests do not wait for half a minute. */
const DEADLINE_MS_DEFAULT = '30000'

/**
 * `--host H --port N --app APP`, `--deadline-ms N` (what `deadline` gives a connection to send its next bytes), and with
 * `unix` also `--path SOCKET` instead of host and port, and `--style` when there
 * are `styles`. Anything else ends the process with status 2.
 * @param {string} program
 * @param {{ unix?: boolean, styles?: string[] }} [allowed]
 */
export function readOptions(program, { unix = false, styles = [] } = {}) {
  const values = parse(program)
  const { host, port, path, app, style } = values
  const deadlineMs = Number(values['deadline-ms'])
  if (path !== undefined && !unix) refuse(program, '--path is not for this server.')
  if ((port === undefined) === (path === undefined)) {
    refuse(program, unix ? 'give either --port or --path.' : '--port is missing.')
  }
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) <= 65_535)) {
    refuse(program, '--port takes a number from 0 to 65535.')
  }
  if (!APPS.includes(app)) refuse(program, `--app takes one of ${APPS.join(', ')}.`)
  if (!(deadlineMs >= 1000)) refuse(program, '--deadline-ms takes a number from 1000.')
  if (style !== undefined && !styles.includes(style)) {
    refuse(
      program,
      styles.length > 0 ? `--style takes one of ${styles.join(', ')}.` : '--style is not for this server.',
    )
  }
  return { host, port: Number(port ?? 0), path, app, deadlineMs, style: style ?? styles[0] }
}

/** @param {string} program */
function parse(program) {
  try {
    return parseArgs({
      options: {
        host: { type: 'string', default: '127.0.0.1' },
        port: { type: 'string' },
        path: { type: 'string' },
        app: { type: 'string', default: 'echo' },
        style: { type: 'string' },
        'deadline-ms': { type: 'string', default: DEADLINE_MS_DEFAULT },
      },
    }).values
  } catch (error) {
    return refuse(program, error.message)
  }
}

/**
 * @param {string} program
 * @param {string} problem
 * @returns {never}
 */
export function refuse(program, problem) {
  console.error(`${program}: ${problem}`)
  process.exit(2)
}

/**
 * SIGTERM and SIGINT end the process with status 0, whatever is open. To be called before the server says that it listens:
 * from then on it may be told to end.
 * @param {() => unknown} [close]
 */
export function endOnSignals(close) {
  for (const signal of /** @type {const} */ (['SIGTERM', 'SIGINT'])) {
    process.on(signal, () => {
      close?.()
      process.exit(0)
    })
  }
}
