// A server in a process of its own, started by a command that stands between it and the kernel: a shell that lowers a
// limit, strace that makes calls fail. And a client whose fate is told in full.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { atEnd, within } from '../e2e/harness.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const END_MS = 20_000

export class Server {
  readonly child: ChildProcess
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  stderr = ''
  private readonly lines: AsyncIterator<string>

  constructor(command: string, args: string[]) {
    const child = spawn(command, args, { cwd: root, stdio: 'pipe' })
    this.child = child
    this.lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    this.ended = new Promise((resolve) => child.once('close', (code, signal) => resolve({ code, signal })))
    atEnd(() => {
      child.kill('SIGKILL')
      return this.ended
    })
  }

  /** The next line of stdout. */
  async line(): Promise<string> {
    const { value, done } = await within('a line of the server', this.lines.next(), END_MS)
    if (done) throw new Error(`the server ended before its next line:\n${this.stderr}`)
    return value as string
  }

  /** Sends a line to its stdin; resolves with its answer, JSON in a line. */
  async ask(question: string): Promise<Record<string, number>> {
    this.child.stdin?.write(`${question}\n`)
    return JSON.parse(await this.line())
  }

  async stop() {
    this.child.kill('SIGTERM')
    return await within('the server ends', this.ended, END_MS)
  }
}

/** How a client's exchange with an echo ended. */
export interface Fate {
  received: Buffer
  /** The server's FIN came, not an error. */
  orderly: boolean
}

/** Sends `payload` and FIN, and takes what comes until the end, of whatever kind. */
export function exchange(port: number, payload: Buffer): Promise<Fate> {
  return converse(port, [payload])
}

/** Sends each message when the one before has come back, then FIN; takes what comes until the end, of whatever kind. */
export async function converse(port: number, messages: Buffer[]): Promise<Fate> {
  const socket = net.connect({ port, host: '127.0.0.1' })
  atEnd(() => socket.destroy())
  const parts: Buffer[] = []
  let received = 0
  let sent = 0
  let failed = false
  let next = 0
  const goOn = (): void => {
    const message = messages[next++]
    if (message === undefined) return
    sent += message.length
    if (next === messages.length) socket.end(message)
    else socket.write(message)
  }
  socket.on('data', (part) => {
    parts.push(part)
    received += part.length
    if (received === sent) goOn()
  })
  socket.on('error', () => {
    failed = true
  })
  goOn()
  await within(
    'the exchange comes to an end',
    once(socket, 'close').catch(() => {}),
    END_MS,
  )
  return { received: Buffer.concat(parts), orderly: !failed }
}
