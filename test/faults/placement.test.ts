// Where in memory the kernel is asked to put what it reads: at the beginning of a page, unless it is packed behind other
// bytes of the same round. native/node/env.cc says what it costs elsewhere. Seen by strace, since nothing else tells.

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { freshPath, KiB, randomBytes } from '../e2e/harness.ts'
import { exchange, Server } from './server.ts'
import { obstacle } from './strace.ts'

const PAGE_BYTES = 4096
const EXCHANGES = 20

const reason = obstacle('test/faults/placement.test.ts')

describe.skipIf(reason !== undefined)(`with strace${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  test('a read alone in its round begins at the beginning of a page', { timeout: 60_000 }, async () => {
    const log = freshPath('strace.log')
    const raw = ['-e', 'trace=recvfrom', '-e', 'raw=recvfrom', '-e', 'signal=none']
    const server = new Server('strace', [
      ...['-D', '-f', '-qq', '-o', log, ...raw],
      ...[process.execPath, 'dist/cli/main.js', 'echo', '--port', '0'],
    ])
    const port = Number((await server.line()).split(':').at(-1))
    for (let i = 0; i < EXCHANGES; i++) {
      const sent = randomBytes(1 * KiB)
      expect((await exchange(port, sent)).received.equals(sent)).toBe(true)
    }
    expect(await server.stop(), server.stderr).toEqual({ code: 0, signal: null })

    const reads = [...readFileSync(log, 'utf8').matchAll(/recvfrom\(0x\w+, (0x\w+), 0x\w+, 0, 0, 0\) = 0x[1-9a-f]/g)]
    expect(reads.length).toBeGreaterThanOrEqual(EXCHANGES)
    for (const [line, address] of reads) expect(Number(address) % PAGE_BYTES, line).toBe(0)
  })
})
