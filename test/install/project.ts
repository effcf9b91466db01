// A user's project: an empty folder, in which a package manager installs the tarball.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject, onTestFinished } from 'vitest'
import { Client } from '../docs/client.ts'
import { Program } from '../docs/program.ts'
import { bareEnvironment, type Outcome, run } from './commands.ts'
import { root, temporaryFolder } from './tarball.ts'

const ECHO_BYTES = 100_000

/** What package managers say when they have run, skipped or missed a script, or dislike the package. */
const COMPLAINT = /\bwarn|\berror|deprecat|script|experimental|gyp\b|YN0002|YN0004|YN0007|YN0086/i

export const modules = join(root, 'test', 'install', 'node_modules')
const bun = `bun-${process.platform}-${process.arch === 'arm64' ? 'aarch64' : process.arch}`
const commands = {
  npm: ['npm'],
  npx: ['npx'],
  pnpm: ['node', join(modules, 'pnpm', 'bin', 'pnpm.cjs')],
  // The program alone: the package pnpm 12 wants one for every platform in the lock file, which not every mirror has.
  'pnpm 12': [join(modules, '@pnpm', 'exe.linux-x64', 'pnpm')],
  yarn: ['node', join(modules, '@yarnpkg', 'cli-dist', 'bin', 'yarn.js')],
  bun: [join(modules, '@oven', bun, 'bin', 'bun')],
}

export type Command = keyof typeof commands

export class Project {
  readonly folder: string
  readonly env: NodeJS.ProcessEnv

  constructor() {
    const parent = temporaryFolder()
    onTestFinished(() => rmSync(parent, { recursive: true, force: true }))
    this.folder = join(parent, 'project')
    mkdirSync(this.folder)
    this.env = bareEnvironment(parent)
    this.write('package.json', JSON.stringify({ name: 'project', version: '1.0.0', private: true }))
  }

  write(file: string, text: string): string {
    const path = join(this.folder, file)
    writeFileSync(path, text)
    return path
  }

  run(command: Command, ...args: string[]): Outcome {
    const [file = '', ...first] = commands[command]
    return run(this.folder, file, [...first, ...args], this.env)
  }

  /** Installs the tarball, which must succeed without a word of complaint, but for `allowed` ones. */
  install(command: Command = 'npm', args: string[] = [], tarball = inject('tarball'), allowed = /^$/): void {
    const verb = command === 'npm' ? 'install' : 'add'
    const target = command === 'yarn' ? `edgewire@file:${tarball}` : tarball
    const { code, output } = this.run(command, verb, ...args, target)
    expect(code, output).toBe(0)
    const complaints = output.split('\n').filter((line) => COMPLAINT.test(line) && !allowed.test(line))
    expect(complaints).toEqual([])
  }

  /** Starts a program of the project with Node. */
  start(args: string[]): Program {
    return new Program(args, this.env as Record<string, string>, this.folder)
  }

  /** Runs it to its end. */
  node(...args: string[]): Outcome {
    return run(this.folder, process.execPath, args, this.env)
  }
}

/** The program says nothing but where it listens, and serves an echo. */
export async function expectEchoFrom(program: Program): Promise<void> {
  const client = await Client.connect(await program.port())
  await client.expectEcho(ECHO_BYTES)
  client.finish()
  expect(await client.rest()).toBe('')
  program.interrupt()
  expect((await program.ended).stderr).toBe('')
}

const readme = readFileSync(join(root, 'README.md'), 'utf8')

/** README's code blocks of a language, in order. */
export function samples(language: 'js' | 'ts'): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map((match) => match[1] ?? '')
}

/** README's first example: an echo server. 7000 may be in use here. */
export function echoServer(): string {
  const [first = ''] = samples('js')
  expect(first).toContain('port: 7000')
  return first.replace('port: 7000', 'port: 0')
}
