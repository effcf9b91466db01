// `edgewire echo`: the same service in both styles, as a smoke test and for comparison.

import { type Conn, type Handlers, type Listener, listen, type Task } from '../index.js'

export interface EchoOptions {
  host: string
  port: number
  path?: string
  style: 'handlers' | 'task'
}

const ReadBytes = 16 * 1024

const handlers: Handlers = {
  data(conn, chunk) {
    // A peer that sends without reading is not read from until it does.
    if (!conn.write(chunk)) conn.pause()
  },
  drain(conn) {
    conn.resume()
  },
}

const task: Task = async (conn: Conn) => {
  const buffer = new Uint8Array(ReadBytes)
  for (;;) {
    const count = await conn.read(buffer)
    if (count === null) return
    if (!conn.write(buffer.subarray(0, count))) await conn.drained()
  }
}

function describe(listener: Listener): string {
  if (listener.family === 'unix') return listener.address.replaceAll('\0', '@')
  const host = listener.family === 'IPv6' ? `[${listener.address}]` : listener.address
  return `${host}:${listener.port}`
}

export async function echo(options: EchoOptions): Promise<void> {
  const where = options.path === undefined ? { host: options.host, port: options.port } : { path: options.path }
  const listener = await listen(where, options.style === 'task' ? task : handlers)
  process.stdout.write(`listening on ${describe(listener)}\n`)
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve())
  })
  await listener.shutdown()
}
