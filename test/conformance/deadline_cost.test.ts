// Deadlines cost nothing: not while they wait, and not when they are set anew for every message. Shown with counters.

import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type Conn, dial, type Handlers, type Stats, stats } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { atEnd, freshPath, placeOf, serve, sleep, unix, until, within } from '../e2e/harness.ts'
import { looksForLibuv, moduleArguments } from '../e2e/runtime.ts'
import './pipes.ts'

const Pairs = 4000
const IdleMs = 1000
/** The wheel looks at its upper levels a few times a minute; the pool trims itself every five seconds. */
const IdleLooksMax = 6
const Messages = 1_000_000
const MessageBytes = 64
/** As many come in one read. */
const MessagesPerChunk = 4
const strace = '/usr/bin/strace'

type Counter = 'turns' | 'dispatches' | 'completions' | 'commands' | 'polls' | 'reads' | 'flushes'

/** How much a counter grows while `act` runs; of the polls, those that libuv was not the reason for. */
async function growth(act: () => Promise<unknown>): Promise<(counter: Counter) => number> {
  const own = (): Stats => {
    const now = stats()
    return { ...now, polls: now.polls - looksForLibuv() }
  }
  const before = own()
  await act()
  const after = own()
  return (counter) => after[counter] - before[counter]
}

async function manyConns(): Promise<Conn[]> {
  const conns: Conn[] = []
  const listener = await serve(unix, async (conn) => {
    conns.push(conn)
    await conn.closed
  })
  while (conns.length < 2 * Pairs) {
    const dialed = await Promise.all(Array.from({ length: 200 }, () => dial(placeOf(listener))))
    conns.push(...dialed)
    await until('all are accepted', () => conns.length % 400 === 0)
  }
  atEnd(async () => {
    for (const conn of conns) conn.abort()
    await within('all are over', Promise.all(conns.map((conn) => conn.closed)))
  })
  return conns
}

async function expectIdle(what: string): Promise<void> {
  const grown = await growth(() => sleep(IdleMs))
  expect(grown('polls'), `polls in an idle second, ${what}`).toBeLessThanOrEqual(IdleLooksMax)
  for (const counter of ['turns', 'dispatches', 'completions', 'commands', 'reads', 'flushes'] as const) {
    expect(grown(counter), `${counter} in an idle second, ${what}`).toBe(0)
  }
}

describe('while they wait', () => {
  test('100,000 deadlines set on 8,000 connections cost no turn, no poll and no dispatch', async () => {
    const conns = await manyConns()
    let sets = 0
    const setAll = async (inMs: number) => {
      for (const conn of conns) {
        conn.setReadDeadline(Date.now() + inMs + (sets % 5000))
        conn.setWriteDeadline(new Date(Date.now() + inMs + (sets % 7000)))
        sets += 2
      }
      await sleep(20)
    }
    for (const conn of conns) conn.setIdleTimeout(3600_000)
    await setAll(60_000)
    await expectIdle('after they were set once')
    const grown = await growth(async () => {
      for (let round = 0; round < 6; round++) await setAll(70_000 + round * 10_000)
    })
    expect(sets).toBeGreaterThanOrEqual(100_000)
    expect(grown('commands'), 'commands for 96,000 deadlines that are moved ahead').toBe(0)
    await expectIdle('after they were moved ahead')
  })

  test('deadlines that were near and are moved ahead wake the loop once, not once each', async () => {
    const conns = await manyConns()
    const at = Date.now() + 200
    for (const conn of conns) conn.setReadDeadline(at)
    await sleep(10)
    for (const conn of conns) conn.setReadDeadline(Date.now() + 60_000)
    const grown = await growth(() => sleep(at + 100 - Date.now()))
    expect(grown('polls')).toBeLessThanOrEqual(IdleLooksMax)
    expect(grown('completions')).toBe(0)
    await expectIdle('after they were moved ahead')
  })
})

describe('set anew for every message', () => {
  test('a million messages, two deadlines each: no command, so no native call, for any of them', async () => {
    const pairs = 250
    const batch = Buffer.alloc(MessagesPerChunk * MessageBytes, 'x')
    let messages = 0
    let writes = pairs
    let timeouts = 0
    const play: Handlers = {
      data(conn, chunk) {
        for (let at = 0; at < chunk.length; at += MessageBytes) {
          conn.setReadDeadline(Date.now() + 20_000)
          conn.setWriteDeadline(Date.now() + 20_000)
          messages++
        }
        if (messages >= Messages) return
        conn.write(chunk)
        writes++
      },
      timeout: () => timeouts++,
    }
    const listener = await serve(unix, play)
    const clients = await Promise.all(Array.from({ length: pairs }, () => dial(placeOf(listener), play)))
    atEnd(() => clients.map((client) => client.abort()))
    const grown = await growth(async () => {
      for (const client of clients) client.write(batch)
      await until(
        'a million messages',
        () => messages >= Messages,
        () => `(${messages})`,
        25_000,
      )
    })
    expect(timeouts).toBe(0)
    // Beside a command per write: each end arms its deadlines once, with the first that it sets. A second time, if the
    // clock's offset moved by a hair meanwhile.
    const ends = 2 * pairs
    expect(grown('commands') - writes).toBeLessThanOrEqual(2 * ends)
  })

  test.runIf(existsSync(strace))('strace sees the same system calls with and without deadlines', async () => {
    const messages = 5000
    const program = (deadlines: boolean) => `
      import { dial, listen } from 'edgewire'
      const path = process.argv.at(-1) // the program, too, has its place before it in Deno
      let left = ${messages}
      const play = { data(conn, chunk) {
        if (${deadlines}) { conn.setDeadline(Date.now() + 60000) }
        if (left-- > 0) conn.write(chunk); else conn.close()
      }, end(conn) { conn.close() } }
      const listener = await listen({ path }, play)
      const conn = await dial({ path }, play)
      conn.write('x'.repeat(64))
      await conn.closed
      await listener.shutdown()
    `
    const count = async (deadlines: boolean) => {
      const summary = freshPath('strace')
      const calls = ['-f', '-c', '-o', summary, process.execPath, ...moduleArguments(program(deadlines))]
      await promisify(execFile)(strace, [...calls, freshPath()], {
        cwd: fileURLToPath(new URL('../..', import.meta.url)),
        timeout: 25_000,
      })
      const lines = readFileSync(summary, 'utf8').matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$/gm)
      return new Map([...lines].map(([, calls, name]) => [name as string, Number(calls)]))
    }
    const without = await count(false)
    const withThem = await count(true)
    // How often a loop and a thread look that wait for each other is chance, and so is how often an alarm is set.
    const polls = stats().driver === 'uv_poll' ? ['epoll_wait', 'epoll_pwait', 'timerfd_settime'] : []
    const ofSockets = ['recvfrom', 'sendto', 'sendmsg', ...polls, 'epoll_ctl']
    for (const name of ofSockets) {
      const grown = (withThem.get(name) ?? 0) - (without.get(name) ?? 0)
      expect(Math.abs(grown), `${name}: ${without.get(name)} without, ${withThem.get(name)} with`).toBeLessThan(
        messages / 20,
      )
    }
    expect(without.get('recvfrom')).toBeGreaterThanOrEqual(messages)
  })
})
