// The servers of bench/peers as child processes: which of them can be started here, and with what.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { within } from '../e2e/harness.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const inPeers = (name: string) => join(root, 'bench/peers', name)

const GO_BUILD_MS = 120_000

export interface PeerServer {
  name: string
  apps: string[]
  /** The program and its arguments; undefined where it is not installed. */
  command: string[] | undefined
}

const everyApp = ['echo', 'deadline', 'fanout', 'lines', 'frames', 'sink', 'source']
const edgewire = [process.execPath, inPeers('edgewire_server.mjs')]
const bun = findRuntime('bun', '@oven/bun-linux-x64/bin/bun')
const deno = findRuntime('deno', '@deno/linux-x64-glibc/deno')

export const peerServers: PeerServer[] = [
  { name: 'net', apps: everyApp, command: [process.execPath, inPeers('net_server.mjs')] },
  { name: 'edgewire', apps: everyApp, command: edgewire },
  { name: 'edgewire-task', apps: ['echo', 'deadline', 'lines', 'frames'], command: [...edgewire, '--style', 'task'] },
  { name: 'bun', apps: everyApp, command: bun === undefined ? undefined : [bun, inPeers('bun_server.mjs')] },
  {
    name: 'deno',
    apps: everyApp,
    command: deno === undefined ? undefined : [deno, 'run', '--allow-net', inPeers('deno_server.mjs')],
  },
  { name: 'go', apps: everyApp, command: buildGo() },
]

/** EDGEWIRE_BUN or EDGEWIRE_DENO, what the bench or the runtimes' tests have installed, or the system. */
function findRuntime(name: string, packaged: string): string | undefined {
  const places = [
    process.env[`EDGEWIRE_${name.toUpperCase()}`] ?? '',
    ...['bench', 'test/runtimes'].map((folder) => join(root, folder, 'node_modules', packaged)),
    ...onPath(name),
  ]
  return places.find((path) => path !== '' && existsSync(path))
}

function onPath(name: string): string[] {
  return (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, name))
}

function buildGo(): string[] | undefined {
  const go = onPath('go').find((path) => existsSync(path))
  if (go === undefined) return undefined
  const program = join(root, 'build/test/edgewire-go')
  // As bench/harness/install.mjs builds it: what that has compiled is in Go's cache.
  const built = spawnSync(go, ['build', '-o', program, '.'], {
    cwd: inPeers('go'),
    encoding: 'utf8',
    timeout: GO_BUILD_MS,
  })
  if (built.status !== 0) throw new Error(`go build fails:\n${built.stderr}`)
  return [program]
}

/** A server that runs. */
export class Running {
  port = 0
  readonly ended: Promise<number | string | null>
  private readonly child: ChildProcess
  private output = ''

  constructor(command: string[], options: string[]) {
    const [program = '', ...args] = [...command, ...options]
    this.child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.child.stdout?.on('data', (text: Buffer) => {
      this.output += text
    })
    this.child.stderr?.on('data', (text: Buffer) => {
      this.output += text
    })
    this.ended = new Promise((resolve) => this.child.once('close', (code, signal) => resolve(code ?? signal)))
  }

  /** Waits for its first line. */
  async ready(): Promise<this> {
    const line = new Promise<void>((resolve) => {
      this.child.stdout?.on('data', () => this.output.includes('\n') && resolve())
    })
    await within('the server listens', Promise.race([line, this.ended]))
    const port = /^listening on 127\.0\.0\.1:(\d+)\n/.exec(this.output)?.[1]
    if (port === undefined) throw new Error(`not what a server says first: ${this.output}`)
    this.port = Number(port)
    return this
  }

  /** What it has printed, once it has ended by itself. */
  async text(): Promise<string> {
    await within('the program ends', this.ended)
    return this.output
  }

  /** SIGTERM; the exit status, or the signal that ended it. */
  async terminate(): Promise<number | string | null> {
    this.child.kill('SIGTERM')
    return await within('the server ends', this.ended)
  }

  /** Resolves when its descriptors here are closed, too. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await within('the server dies', this.ended)
  }
}
