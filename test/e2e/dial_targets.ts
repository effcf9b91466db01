// What the tests dial: servers of node:net, and an address that never answers.

import net from 'node:net'
import type { Conn } from 'edgewire'
import { atEnd, sleep, within } from './harness.ts'
import { Program } from './programs.ts'
import { moduleArguments } from './runtime.ts'

/** An echo server of node:net. */
export async function theirs(options: net.ListenOptions): Promise<{ server: net.Server; port: number }> {
  const sockets = new Set<net.Socket>()
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).pipe(socket)
  })
  server.listen(options)
  await within('node:net listens', new Promise((resolve) => server.once('listening', resolve)))
  atEnd(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  return { server, port: typeof address === 'object' ? address!.port : 0 }
}

export async function finish(conn: Conn): Promise<void> {
  conn.abort()
  await within('it ends', conn.closed)
}

/**
 * A port of this machine that does not answer: its backlog is full and nobody accepts. In Node only: Bun's
 * net.Server ignores the backlog (oven-sh/bun#33786), Deno connects when the loop runs again, which is never.
 */
export async function silentPort(host = '127.0.0.1', at = 0): Promise<number> {
  const program = new Program(
    moduleArguments(`import { writeFileSync } from 'node:fs'
import net from 'node:net'
     const server = net.createServer().listen({ port: ${at}, host: '${host}', backlog: 1 }, () => {
       const { port } = server.address()
       for (let i = 0; i < 4; i++) net.connect(port, '${host}').on('error', () => {})
       process.stdout.write(port + '\\n', () => {
         for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000)
       })
     })`),
  )
  const port = Number(await program.line())
  await sleep(50)
  return port
}
