// The command `edgewire`, as it is started from a shell.

import { existsSync, readFileSync } from 'node:fs'
import net from 'node:net'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { atEnd, expectBytes, freshPath, MiB, randomBytes, serve, tcp4, within } from './harness.ts'
import { Program } from './programs.ts'
import { isDeno } from './runtime.ts'

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
const edgewire = (...args: string[]) => new Program([main, ...args])

async function echoed(options: net.NetConnectOpts, payload: Buffer): Promise<Buffer> {
  const client = net.connect(options)
  atEnd(() => client.destroy())
  client.end(payload)
  const parts: Buffer[] = []
  const reading = (async () => {
    for await (const part of client) parts.push(part as Buffer)
  })()
  await within('the echo ends', reading)
  return Buffer.concat(parts)
}

/** Deno's child_process reports the signal that kill() sent as the end, whatever the program made of it. */
const orderly = (signal: string) =>
  isDeno ? { code: null, signal, stderr: '' } : { code: 0, signal: null, stderr: '' }

test.each(['handlers', 'task'])('echo --style %s says where it listens, and echoes', async (style) => {
  const program = edgewire('echo', '--port', '0', '--style', style)
  const line = await program.line()
  const [, port] = /^listening on 127\.0\.0\.1:(\d+)$/.exec(line) ?? []
  expect(port, line).toBeDefined()
  const payload = randomBytes(3 * MiB)
  expectBytes(await echoed({ host: '127.0.0.1', port: Number(port) }, payload), payload)
  program.child.kill('SIGINT')
  expect(await program.end()).toMatchObject(orderly('SIGINT'))
})

test('echo --host ::1 writes the address in brackets', async () => {
  const program = edgewire('echo', '--host', '::1', '--port', '0')
  expect(await program.line()).toMatch(/^listening on \[::1\]:\d+$/)
})

test('echo --path listens on a Unix socket, and removes it at the end', async () => {
  const path = freshPath()
  const program = edgewire('echo', '--path', path)
  expect(await program.line()).toBe(`listening on ${path}`)
  const payload = randomBytes(MiB)
  expectBytes(await echoed({ path }, payload), payload)
  program.child.kill('SIGTERM')
  expect(await program.end()).toMatchObject(orderly('SIGTERM'))
  expect(existsSync(path)).toBe(false)
})

test.each(['SIGINT', 'SIGTERM'] as const)(
  '%s with a client connected: it ends orderly, with exit code 0',
  async (signal) => {
    const program = edgewire('echo', '--port', '0')
    const port = Number((await program.line()).split(':').at(-1))
    const client = net.connect(port, '127.0.0.1')
    atEnd(() => client.destroy())
    let error: Error | undefined
    client.on('error', (failure) => {
      error = failure
    })
    client.write('hello')
    await within('the echo', new Promise((resolve) => client.once('data', resolve)))
    const ended = new Promise((resolve) => client.once('end', resolve))
    program.child.kill(signal)
    await within('the client gets FIN', ended)
    expect(await program.end()).toMatchObject(orderly(signal))
    expect(error).toBeUndefined()
  },
)

test.each([['--help'], ['echo', '--help'], ['help']])('%s %s prints the usage and exits with 0', async (...args) => {
  const end = await edgewire(...args.filter(Boolean)).end()
  expect(end).toMatchObject({ code: 0, stderr: '' })
  expect(end.stdout).toMatch(/^Usage: edgewire/)
})

test('--version prints the version of the package', async () => {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  expect(await edgewire('--version').end()).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' })
})

test.each([
  [['ecko']],
  [['echo', '--prot', '7000']],
  [['echo', '--port']],
  [['echo', '--port', 'http']],
  [['echo', '--port', '65536']],
  [['echo', '--port', '-1']],
  [['echo', '--port', '7e3']],
  [['echo', '--port', '']],
  [['echo', '--style', 'threads']],
  [['echo', 'surplus']],
  [['--nonsense']],
  [[]],
  [['echo', '--path', '']],
  [['echo', '--host', '']],
])('bad use %j: exit code 2, a message on stderr, nothing on stdout', async (args) => {
  const end = await edgewire(...args).end()
  expect(end).toMatchObject({ code: 2, signal: null, stdout: '' })
  expect(end.stderr).not.toBe('')
  expect(end.stderr).not.toMatch(/\n +at /)
})

test('a busy port: one line on stderr, exit code 1', async () => {
  const { port } = await serve(tcp4, { data() {} })
  const end = await edgewire('echo', '--port', String(port)).end()
  expect(end).toMatchObject({ code: 1, stdout: '' })
  expect(end.stderr).toBe(`edgewire: listen tcp 127.0.0.1:${port}: address already in use\n`)
})
