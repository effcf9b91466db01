// Programs that run in a process of their own: where the process's end, its memory or an uncaught exception is the
// property.

import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { atEnd, within } from './harness.ts'
import { moduleArguments } from './runtime.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const RUN_MS = 20_000

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** A child process, its lines as they come, and its end. */
export class Program {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  private readonly lines: string[] = []
  private readonly waiting: ((line: string) => void)[] = []
  private stdout = ''
  private stderr = ''

  constructor(args: string[], env: Record<string, string> = {}, command = process.execPath) {
    const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env }, stdio: 'pipe' })
    this.child = child
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.stdout += `${line}\n`
      const waiter = this.waiting.shift()
      if (waiter === undefined) this.lines.push(line)
      else waiter(line)
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    this.ended = new Promise((resolve) => {
      child.once('close', (code, signal) => resolve({ code, signal, stdout: this.stdout, stderr: this.stderr }))
    })
    atEnd(() => {
      child.kill('SIGKILL')
      return this.ended
    })
  }

  /** The next line of stdout. */
  line(): Promise<string> {
    const line = this.lines.shift()
    if (line !== undefined) return Promise.resolve(line)
    const next = new Promise<string>((resolve) => this.waiting.push(resolve))
    const over = this.ended.then((end) => {
      throw new Error(`the program ended (${end.signal ?? end.code}) before its next line:\n${end.stderr}`)
    })
    return within('a line of the program', Promise.race([next, over]), RUN_MS)
  }

  end(limitMs = RUN_MS): Promise<Ended> {
    return within('the program ends', this.ended, limitMs)
  }
}

/** Every program starts with these. */
const prelude = `
import net from 'node:net'
import { once } from 'node:events'
import { configure, dial, listen, stats } from 'edgewire'
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const print = (value) => process.stdout.write((typeof value === 'string' ? value : JSON.stringify(value)) + '\\n')
`

/** Starts a program from its source, an ES module; 'edgewire', net, once, sleep and print are there. */
export function start(source: string, env: Record<string, string> = {}): Program {
  return new Program(['--expose-gc', ...moduleArguments(prelude + source)], env)
}

export function run(source: string, env: Record<string, string> = {}, limitMs = RUN_MS): Promise<Ended> {
  return start(source, env).end(limitMs)
}
