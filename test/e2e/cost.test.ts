// What a message costs beyond the kernel, in counters: no call into JavaScript, no allocation in native code and no
// garbage that stays, per message.

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Stats } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { start } from './programs.ts'
import { looksItself } from './runtime.ts'

const load = fileURLToPath(new URL('../../build/Release/edgewire-load', import.meta.url))
/** kRoundsPerTurn in native/core/reactor.h. */
const roundsPerTurn = 16
const messageBytes = 64
const connections = 64
const windowSeconds = 1.5

const MessagesPerDispatchMin = 24
const SharingMin = 1.25

type Report = Omit<Stats, 'driver'> & { heapUsed: number; external: number; arrayBuffers: number }

/** An echo server that reports its counters and, after a collection, its memory, for every line it is sent. */
const server = (style: string) => `
  const server = await listen({ host: '127.0.0.1', port: 0 }, ${style})
  print(String(server.port))
  process.stdin.setEncoding('utf8').on('data', async () => {
    for (let i = 0; i < 3; i++) { gc(); await sleep(5) }
    const { heapUsed, external, arrayBuffers } = process.memoryUsage()
    print({ ...stats(), heapUsed, external, arrayBuffers })
  })
  process.stdin.on('end', () => process.exit(0))
`

const styles = [
  ['handlers', `{ data(conn, chunk) { conn.write(chunk) } }`],
  [
    'task',
    `async (conn) => {
      const buffer = new Uint8Array(4096)
      for (let n; (n = await conn.read(buffer)) !== null; ) if (!conn.write(buffer.subarray(0, n))) await conn.drained()
    }`,
  ],
] as const

async function drive(port: number, depth: number): Promise<void> {
  const options = { port, connections, size: messageBytes, depth, seconds: windowSeconds, warmup: 0 }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
  await promisify(execFile)(load, args, { timeout: 20_000 })
}

describe.runIf(existsSync(load))('a million messages over 64 connections', () => {
  test.each(styles)('%s: one dispatch a round, and no memory that stays', async (_, style) => {
    const program = start(server(style))
    const port = Number(await program.line())
    const report = async (): Promise<Report> => {
      program.child.stdin!.write('\n')
      return JSON.parse(await program.line())
    }
    const depth = 16
    await drive(port, depth)
    const before = await report()
    let after = before
    const messages = () => (after.bytesRead - before.bytesRead) / messageBytes
    for (let window = 0; window < 8 && messages() < 1e6; window++) {
      await drive(port, depth)
      after = await report()
    }
    const grown = (name: keyof Report) => after[name] - before[name]
    const shown = JSON.stringify({ messages: messages(), before, after }, null, 1)

    expect(messages(), shown).toBeGreaterThan(1e6)
    expect(grown('dispatches'), shown).toBeLessThanOrEqual(grown('turns') * roundsPerTurn)
    // Whatever a look finds is told at once: none of them brings two calls into JavaScript. (A waiter's thread looks, too.)
    if (looksItself) expect(grown('dispatches'), shown).toBeLessThanOrEqual(grown('polls'))
    // A dispatch for each read would be one for 16 messages. How many reads share one is the scheduler's affair: the less
    // the server has to wait for its core, the fewer are there at once.
    expect(grown('dispatches'), shown).toBeLessThan(messages() / MessagesPerDispatchMin)
    expect(grown('reads'), shown).toBeLessThan(messages() / 4)
    expect(grown('flushes'), shown).toBeLessThan(messages() / 4)
    expect(grown('midTurnFlushes'), shown).toBe(0)
    expect(after.slabMappedBytes, shown).toBe(before.slabMappedBytes)
    expect(after.slabInUseBytes, shown).toBe(0)
    expect(after.open, shown).toBe(0)
    // A byte of garbage that stayed for every second message would be more than this.
    expect(grown('heapUsed'), shown).toBeLessThan(500_000)
    expect(grown('arrayBuffers'), shown).toBeLessThanOrEqual(0)
    expect(grown('growths'), shown).toBe(0)
    program.child.stdin!.end()
    expect((await program.end()).code).toBe(0)
  })

  test('one message in flight each: completions share their dispatch', async () => {
    const program = start(server(styles[0][1]))
    const port = Number(await program.line())
    await drive(port, 1)
    program.child.stdin!.write('\n')
    const counters: Stats = JSON.parse(await program.line())
    expect(counters.completionsPerTurn).toBeGreaterThan(SharingMin)
    expect(counters.dispatches).toBeLessThanOrEqual(counters.turns * roundsPerTurn)
    expect(counters.dispatches).toBeLessThan(counters.bytesRead / messageBytes / SharingMin)
    program.child.stdin!.end()
    expect((await program.end()).code).toBe(0)
  })
})
