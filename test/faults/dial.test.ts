// What dial() asks of the kernel for its sockets, seen with strace; and that a kernel which has none of it is no error.

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { theirs } from '../e2e/dial_targets.ts'
import { freshPath } from '../e2e/harness.ts'
import { Program } from '../e2e/programs.ts'
import { obstacle } from './strace.ts'

const TEST_MS = 60_000

/** A program that dials once, with these options, and prints what came back. */
async function dialing(options: object, ...inject: string[]): Promise<{ echo: string; options: string[] }> {
  const { port } = await theirs({ port: 0, host: '127.0.0.1' })
  const log = freshPath('strace.log')
  const source = `import { dial } from 'edgewire'
    const conn = await dial(${JSON.stringify({ host: '127.0.0.1', port, ...options })})
    conn.write('hello')
    const into = Buffer.alloc(5)
    await conn.read(into)
    console.log(into.toString())
    conn.abort()`
  const strace = ['-D', '-f', '-qq', '-o', log, '-e', 'trace=setsockopt', '-e', 'signal=none', ...inject]
  const program = new Program([...strace, process.execPath, '--input-type=module', '-e', source], {}, 'strace')
  const { code, stderr, stdout } = await program.end()
  expect(code, stderr).toBe(0)
  const calls = readFileSync(log, 'utf8').matchAll(/setsockopt\(\d+, \w+, (\w+), \[1\], 4\) += (-?\d+)/g)
  return { echo: stdout.trim(), options: [...calls].map(([, name, result]) => `${name} ${result}`) }
}

const reason = obstacle('test/faults/dial.test.ts')

describe.skipIf(reason !== undefined)(`with strace${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  test.each<[object, string[]]>([
    [{}, ['TCP_NODELAY 0']],
    [{ noDelay: false }, []],
    [{ fastOpen: true }, ['TCP_NODELAY 0', 'TCP_FASTOPEN_CONNECT 0']],
    [{ localAddress: '127.0.0.2', noDelay: false }, ['IP_BIND_ADDRESS_NO_PORT 0']],
  ])('%j', { timeout: TEST_MS }, async (given, options) => {
    expect(await dialing(given)).toEqual({ echo: 'hello', options })
  })

  test('a kernel without the options', { timeout: TEST_MS }, async () => {
    const given = { localAddress: '127.0.0.2', fastOpen: true, noDelay: false }
    expect(await dialing(given, '--inject=setsockopt:error=ENOPROTOOPT')).toEqual({
      echo: 'hello',
      options: ['IP_BIND_ADDRESS_NO_PORT -1', 'TCP_FASTOPEN_CONNECT -1'],
    })
  })
})
