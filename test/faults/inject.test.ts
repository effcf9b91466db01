// A whole server, built as its users get it, while strace makes the system calls of its reactor fail. The server lives;
// a connection that is not hit is exact to the byte, one that is hit ends early and with nothing wrong in what came;
// afterwards all is well again.
//
// Not injected: EAGAIN. strace answers instead of the kernel, and an edge-triggered kernel that says EAGAIN promises a
// new edge, which this one does not know of. The core's own tests and test/fuzz have kernels that keep the promise.
//
// epoll_ctl is libuv's as well, which aborts when it fails: the first calls, until the server listens, are left alone.

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { expectBytes, freshPath, KiB, randomBytes, randomInt } from '../e2e/harness.ts'
import { converse, exchange, type Fate, Server } from './server.ts'
import { obstacle } from './strace.ts'

const CLIENTS = 30
const PAYLOAD_BYTES_MAX = 600 * KiB
// Node's start under strace takes longer than without.
const TEST_MS = 60_000

interface Injection {
  call: string
  error: string
  /** Which calls fail, in strace's words: FIRST..LAST+STEP. */
  when: string
  /** Nobody may notice. */
  harmless?: boolean
  /** Those who wait at that moment are turned away. */
  shedding?: boolean
}

const injections: Injection[] = [
  { call: 'accept4', error: 'EINTR', when: '2..40+2', harmless: true },
  { call: 'accept4', error: 'ECONNABORTED', when: '2..40+2', harmless: true },
  { call: 'accept4', error: 'EPROTO', when: '3..40+3', harmless: true },
  { call: 'accept4', error: 'ENOBUFS', when: '5..15+5', harmless: true },
  { call: 'accept4', error: 'ENOMEM', when: '5..15+5', harmless: true },
  { call: 'accept4', error: 'EMFILE', when: '5..20+5', shedding: true },
  { call: 'accept4', error: 'ENFILE', when: '5..20+5', shedding: true },
  { call: 'recvfrom', error: 'EINTR', when: '2..400+2', harmless: true },
  { call: 'recvfrom', error: 'ECONNRESET', when: '20..80+20' },
  { call: 'recvfrom', error: 'ETIMEDOUT', when: '20..80+20' },
  { call: 'recvfrom', error: 'ENOMEM', when: '20..80+20' },
  { call: 'sendto', error: 'EINTR', when: '2..400+2', harmless: true },
  { call: 'sendto', error: 'EPIPE', when: '10..40+10' },
  { call: 'sendto', error: 'ECONNRESET', when: '10..40+10' },
  { call: 'sendto', error: 'ENOBUFS', when: '10..40+10' },
  { call: 'sendmsg', error: 'EINTR', when: '1..200+2', harmless: true },
  { call: 'sendmsg', error: 'EPIPE', when: '2..6+2' },
  { call: 'sendmsg', error: 'ENOBUFS', when: '2..6+2' },
  { call: 'epoll_wait', error: 'EINTR', when: '2..400+2', harmless: true },
]

class Traced extends Server {
  readonly log: string

  constructor(call: string, inject: string[] = []) {
    const log = freshPath('strace.log')
    // -D: the child is the server itself, and its end the server's.
    const strace = ['-D', '-f', '-qq', '-o', log, '-e', `trace=${call}`, '-e', 'signal=none', ...inject]
    super('strace', [...strace, process.execPath, 'dist/cli/main.js', 'echo', '--port', '0'])
    this.log = log
  }

  async port(): Promise<number> {
    return Number((await this.line()).split(':').at(-1))
  }
  calls = () =>
    readFileSync(this.log, 'utf8')
      .split('\n')
      .filter((line) => line.includes('(')).length
  injected = () => readFileSync(this.log, 'utf8').split('(INJECTED)').length - 1
}

const payload = () => randomBytes(randomInt(1, randomInt(0, 3) === 0 ? PAYLOAD_BYTES_MAX : 2 * KiB))

/** True: served to the end. What came to one who was not must be the beginning all the same. */
function check(sent: Buffer, { received, orderly }: Fate): boolean {
  expect(received.length).toBeLessThanOrEqual(sent.length)
  expectBytes(received, sent.subarray(0, received.length))
  return orderly && received.length === sent.length
}

/** Half of the clients one after the other, half at once. Returns how many were not served to the end. */
async function clients(port: number, count: number): Promise<number> {
  let hit = 0
  const client = async () => {
    const sent = payload()
    if (!check(sent, await exchange(port, sent))) hit++
  }
  for (let i = 0; i < count / 2; i++) await client()
  await Promise.all(Array.from({ length: count / 2 }, client))
  return hit
}

async function expectSurvival(server: Traced, port: number, { harmless = false, shedding = false }): Promise<void> {
  const hit = await clients(port, CLIENTS)
  const injected = server.injected()
  expect(injected, 'calls that failed').toBeGreaterThan(0)
  // A call that fails is one connection's; only where descriptors seem to run out, all who wait are turned away.
  expect(hit, 'connections that ended early').toBeLessThanOrEqual(harmless ? 0 : shedding ? CLIENTS / 2 : injected)

  // What is left of the schedule is used up, and then all is well.
  // One round without a failure may just lie between two failing calls: it takes several in a row.
  for (let round = 0, clean = 0; round < 30 && clean < 5; round++)
    clean = (await clients(port, 10)) === 0 ? clean + 1 : 0
  expect(await clients(port, 10), 'connections that ended early after the faults').toBe(0)
  expect(await server.stop(), server.stderr).toEqual({ code: 0, signal: null })
  // Only what is meant for the operator.
  expect(server.stderr.replace(/\(node:\d+\) \[EDGEWIRE_ACCEPT\].*\n(\(Use `node --trace-warnings.*\n)?/g, '')).toBe('')
}

const reason = obstacle('test/faults/inject.test.ts')

describe.skipIf(reason !== undefined)(`with strace${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  test.each(injections)('$call: $error ($when)', { timeout: TEST_MS }, async ({ call, error, when, ...kind }) => {
    const server = new Traced(call, [`--inject=${call}:error=${error}:when=${when}`])
    await expectSurvival(server, await server.port(), kind)
  })

  // recvmsg(2) reads messages that just fill a chunk, once one has been met (native/core/reactor_io.cc).
  test.each([
    ['EINTR', '1..60+2', true],
    ['ECONNRESET', '5..5+1', false],
  ] as const)('recvmsg: %s', { timeout: TEST_MS }, async (error, when, harmless) => {
    const server = new Traced('recvmsg', [`--inject=recvmsg:error=${error}:when=${when}`])
    const port = await server.port()
    const messages = Array.from({ length: 40 }, () => randomBytes(64 * KiB))
    const served = check(Buffer.concat(messages), await converse(port, messages))
    expect(server.injected()).toBeGreaterThan(0)
    expect(served).toBe(harmless)
    expect(check(Buffer.concat(messages), await converse(port, messages)), 'afterwards').toBe(true)
    expect(await server.stop(), server.stderr).toEqual({ code: 0, signal: null })
    expect(server.stderr).toBe('')
  })

  test.each(['ENOMEM', 'ENOSPC'])('epoll_ctl: %s', { timeout: TEST_MS }, async (error) => {
    // How many calls a start takes, and whose they are, is seen from one that nobody disturbs.
    const calm = new Traced('epoll_ctl')
    await calm.port()
    await sleep(200)
    const started = calm.calls()
    expect(await calm.stop()).toEqual({ code: 0, signal: null })

    const server = new Traced('epoll_ctl', [`--inject=epoll_ctl:error=${error}:when=${started + 4}..${started + 24}+5`])
    const port = await server.port()
    await sleep(200)
    await expectSurvival(server, port, {})
  })
})
