// @ts-check
// The apps of the benchmark on edgewire, in both of its styles.
//
//   node edgewire_server.mjs --port 0 [--host 127.0.0.1] [--app echo] [--style handlers|task]
//   node edgewire_server.mjs --path SOCKET [--app echo] [--style handlers|task]
//
// `--style task` is there for echo, deadline, lines and frames. The apps are described in bench/README.md.
// SIGTERM or SIGINT ends it with status 0.
import { listen } from '../../dist/index.js'
import { handlersOf } from './edgewire_handlers.mjs'
import { tasksOf } from './edgewire_tasks.mjs'
import { BACKLOG, endOnSignals, readOptions, refuse } from './options.mjs'

const options = readOptions('edgewire_server', { unix: true, styles: ['handlers', 'task'] })
const { host, port, path, app } = options
const apps = options.style === 'task' ? tasksOf(options.deadlineMs) : handlersOf(options.deadlineMs)
const serve = apps[app]
if (serve === undefined) refuse('edgewire_server', `--style task has the apps ${Object.keys(apps).join(', ')}.`)

endOnSignals(() => void listener?.close()) // removes the Unix socket

/** @type {import('../../dist/index.js').Listener | undefined} */
let listener
listener = await listen({ ...(path === undefined ? { host, port } : { path }), backlog: BACKLOG }, serve)
console.log(`listening on ${path ?? `${host}:${listener.port}`}`)
