// A program in a process of its own, as a reader of the documents would start it.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

export const root = fileURLToPath(new URL('../..', import.meta.url))

const RUN_MS = 20_000

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

export class Program {
  readonly ended: Promise<Ended>
  private readonly child
  private stdout = ''
  private stderr = ''
  private onOutput: (() => void) | undefined

  constructor(args: string[], env: Record<string, string> = {}, cwd = root) {
    const stdio: ['ignore', 'pipe', 'pipe'] = ['ignore', 'pipe', 'pipe']
    const child = spawn(process.execPath, args, { cwd, env: { ...process.env, ...env }, stdio })
    this.child = child
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text
      this.onOutput?.()
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    // Nothing here may run for ever; what is killed has no exit code, which fails its test.
    const timer = setTimeout(() => child.kill('SIGKILL'), RUN_MS)
    this.ended = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        clearTimeout(timer)
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr })
      })
    })
    onTestFinished(() => void child.kill('SIGKILL'))
  }

  interrupt(): void {
    this.child.kill('SIGINT')
  }

  /** The port in its line `listening on HOST:PORT`. */
  async port(): Promise<number> {
    const line = /^listening on .*:(\d+)$/m
    const printed = new Promise<void>((resolve) => {
      this.onOutput = () => line.test(this.stdout) && resolve()
      this.onOutput()
    })
    await Promise.race([printed, this.ended])
    const port = line.exec(this.stdout)?.[1]
    if (port === undefined) throw new Error(`no line 'listening on HOST:PORT' in:\n${this.stdout}\n${this.stderr}`)
    return Number(port)
  }
}
