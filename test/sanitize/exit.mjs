// Under AddressSanitizer and UndefinedBehaviorSanitizer: process.exit() inside a handler while connections of every
// kind are open, output is queued, deadlines run and chunks are leased. In a child process, and without the search for
// leaks there: Node frees nothing of its own in process.exit().

import { spawnSync } from 'node:child_process'
import net from 'node:net'
import { fileURLToPath } from 'node:url'
import { dial, listen } from 'edgewire'

const PLACES = ['data', 'timeout', 'close']
const EXIT_CODE = 7

if (process.argv.length > 2) await openEverythingAndExit(process.argv[2])
else exitFromEverywhere()

function exitFromEverywhere() {
  for (const place of PLACES) {
    const { status, signal, stderr } = spawnSync(
      process.execPath,
      [...process.execArgv, fileURLToPath(import.meta.url), place],
      {
        encoding: 'utf8',
        timeout: 30_000,
        env: { ...process.env, ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:detect_leaks=0` },
      },
    )
    if (status === EXIT_CODE && stderr === '') continue
    console.error(`exit in ${place}: ${signal ?? status}\n${stderr}`)
    process.exitCode = 1
  }
}

async function openEverythingAndExit(place) {
  const leave = (where) => place === where && server.stats().open >= 20 && process.exit(EXIT_CODE)
  const server = await listen(
    { host: '127.0.0.1', port: 0, maxBufferedBytes: 64 << 20 },
    {
      data(conn, chunk) {
        conn.retain(chunk)
        conn.write(chunk)
        conn.write(new Uint8Array(4 << 20))
        conn.setDeadline(Date.now() + (place === 'timeout' ? 5 : 60_000))
        if (server.stats().open < 20) return
        conn.write('the last words')
        if (place === 'close') conn.abort()
        leave('data')
      },
      timeout: () => void leave('timeout'),
      close: () => void process.exit(EXIT_CODE),
    },
  )
  for (let i = 0; i < 10; i++) {
    const socket = net.connect(server.port, '127.0.0.1').on('error', () => {})
    socket.write('hello')
    socket.pause()
    const conn = await dial({ host: '127.0.0.1', port: server.port })
    void conn.read(new Uint8Array(5)).catch(() => {})
    conn.write('hello')
  }
}
