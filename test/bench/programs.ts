// The benchmark's native programs as the tests run them, and servers of node:net for the load generator to judge.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach } from 'vitest'

const release = (name: string) => fileURLToPath(new URL(`../../build/Release/${name}`, import.meta.url))
const floorProgram = release('edgewire-floor')
const loadProgram = release('edgewire-load')

/** They are built on Linux only. */
export const areBuilt = existsSync(floorProgram) && existsSync(loadProgram)

/** A load that fails by itself needs five seconds for the slowest of its reasons. */
const LOAD_MS = 25_000

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

export interface Floor {
  port: number
  pid: number
  child: ChildProcess
}

export async function startFloor(app: string, ...more: string[]): Promise<Floor> {
  const child = spawn(floorProgram, ['--port', '0', '--app', app, ...more], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'close')
  cleanups.push(() => {
    child.kill('SIGKILL')
    return ended
  })
  const [line] = await once(createInterface({ input: child.stdout! }), 'line')
  return { port: Number(/:(\d+)$/.exec(line)?.[1]), pid: child.pid!, child }
}

export type OnConnection = (socket: net.Socket) => void

export interface Outcome {
  code: number
  stdout: string
  stderr: string
}

function runToEnd(program: string, args: string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: LOAD_MS, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
      if (error !== null && typeof error.code !== 'number')
        reject(new Error(`${program} ${args.join(' ')}`, { cause: error }))
      else resolve({ code: Number(error?.code ?? 0), stdout, stderr })
    })
  })
}

export const floor = (args: string[]) => runToEnd(floorProgram, args)
export const loadWith = (args: string[]) => runToEnd(loadProgram, args)

/** Long enough for some messages on a busy machine; what a test says beside it wins. */
const short = { connections: 4, seconds: 0.3, warmup: 0.05 }

export type LoadOptions = Record<string, string | number>

export function load(port: number, options: LoadOptions = {}): Promise<Outcome> {
  const args = Object.entries({ port, ...short, ...options }).flatMap(([name, value]) => [`--${name}`, `${value}`])
  return loadWith(args)
}

export interface Result {
  messages: number
  seconds: number
  bytes: number
  p50Us: number
  p99Us: number
  p999Us: number
  serverCpuNs: number | null
  contextSwitches: number | null
  serverRssBytes: number | null
  connections: number
  rate?: number
  missed?: number
  deliveries?: number
}

/** A load that has to succeed. */
export async function measure(port: number, options: LoadOptions = {}): Promise<Result> {
  const { code, stdout, stderr } = await load(port, options)
  if (code !== 0) throw new Error(`edgewire-load ended with ${code}: ${stderr}`)
  return JSON.parse(stdout)
}

/** A server of the test's own, until `use` has ended: tests that run at the same time do not end each other's. */
export async function withServer<T>(onConnection: OnConnection, use: (port: number) => Promise<T>): Promise<T> {
  const { port, close } = await openServer(onConnection)
  try {
    return await use(port)
  } finally {
    await close()
  }
}

/** The same until the test has ended; for tests that run one by one. */
export async function serve(onConnection: OnConnection): Promise<number> {
  const { port, close } = await openServer(onConnection)
  cleanups.push(close)
  return port
}

/** Where somebody has listened who is gone. */
export async function closedPort(): Promise<number> {
  const { port, close } = await openServer(() => {})
  await close()
  return port
}

/** Its sockets may break as the load generator ends. */
async function openServer(onConnection: OnConnection) {
  const sockets = new Set<net.Socket>()
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    onConnection(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = () => {
    for (const socket of sockets) socket.destroy()
    return new Promise<unknown>((resolve) => server.close(resolve))
  }
  return { port: (server.address() as net.AddressInfo).port, close }
}

/** A connection of the test's own, and all that has come over it. */
export class Client {
  readonly socket: net.Socket
  private chunks: Buffer[] = []
  private length = 0
  private ended = false
  private wake: () => void = () => {}

  constructor(port: number) {
    this.socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    this.socket.on('error', () => {})
    this.socket.on('data', (chunk) => {
      this.chunks.push(chunk)
      this.length += chunk.length
      this.wake()
    })
    for (const event of ['end', 'close']) {
      this.socket.on(event, () => {
        this.ended = true
        this.wake()
      })
    }
    cleanups.push(() => this.socket.destroy())
  }

  /** The next `length` bytes; fewer if they are the last. */
  async take(length: number): Promise<Buffer> {
    while (this.length < length && !this.ended) {
      await new Promise<void>((resolve) => {
        this.wake = resolve
      })
    }
    const all = Buffer.concat(this.chunks)
    const rest = all.subarray(length)
    this.chunks = [rest]
    this.length = rest.length
    return all.subarray(0, length)
  }

  /** All bytes up to the server's FIN. */
  rest(): Promise<Buffer> {
    return this.take(Number.MAX_SAFE_INTEGER)
  }
}
