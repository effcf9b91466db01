// The process runs out of descriptors: who is connected is served on, who comes too late is turned away at once and
// does not hang, waiting costs nothing, and when descriptors are free again, so is the way in.

import net from 'node:net'
import { describe, expect, test } from 'vitest'
import { atEnd, expectBytes, KiB, randomBytes, sleep, until, within } from '../e2e/harness.ts'
import { exchange, Server } from './server.ts'

const DESCRIPTORS = 64
const CLIENTS = 120
// The longest pause between two attempts to accept is a second; then comes the attempt itself.
const RESUME_MS = 4_000
// In a second at the limit there is at most one attempt to accept for each step of the growing pause.
const IDLE_TURNS_MAX = 12
const IDLE_POLLS_MAX = 40

const program = `
import { createInterface } from 'node:readline'
import { dial, listen, stats } from 'edgewire'
const warnings = []
process.on('warning', ({ code }) => warnings.push(code))
const listener = await listen({ host: '127.0.0.1', port: 0 }, { data(conn, chunk) { conn.write(chunk) } })
const answers = {
  stats: () => ({
    ...stats(),
    listenerErrors: listener.stats().acceptErrors,
    open: listener.stats().open,
    warnings: warnings.filter((code) => code === 'EDGEWIRE_ACCEPT').length,
    otherWarnings: warnings.filter((code) => code !== 'EDGEWIRE_ACCEPT').length,
  }),
  dial: () => dial({ host: '127.0.0.1', port: listener.port }).then(() => ({ dialed: 1 }), ({ code }) => ({ code })),
}
createInterface({ input: process.stdin }).on('line', async (line) => console.log(JSON.stringify(await answers[line]())))
process.once('SIGTERM', async () => {
  process.stdin.destroy()
  await listener.shutdown()
})
console.log(listener.port)
`

/** A client that sends one byte and remembers what became of it. */
class Client {
  readonly socket: net.Socket
  state: 'waiting' | 'served' | 'turned away' = 'waiting'

  constructor(port: number) {
    this.socket = net.connect({ port, host: '127.0.0.1', noDelay: true })
    atEnd(() => this.socket.destroy())
    this.socket.on('error', () => {})
    this.socket.once('data', () => {
      this.state = 'served'
    })
    this.socket.once('close', () => {
      if (this.state === 'waiting') this.state = 'turned away'
    })
    this.socket.write('?')
  }

  async echo(payload: Buffer): Promise<Buffer> {
    const parts: Buffer[] = []
    let bytes = 0
    const all = new Promise<void>((resolve) => {
      this.socket.on('data', (part) => {
        parts.push(part)
        bytes += part.length
        if (bytes >= payload.length) resolve()
      })
    })
    this.socket.write(payload)
    await within('the echo of a connection that was there before', all)
    this.socket.removeAllListeners('data')
    return Buffer.concat(parts)
  }
}

// Node is told the limit by the shell: hard and soft, since importing edgewire raises the one to the other.
const limited = `ulimit -n ${DESCRIPTORS}; exec "$0" --input-type=module -e "$1"`

async function start() {
  const server = new Server('/bin/sh', ['-c', limited, process.execPath, program])
  return { server, port: Number(await server.line()) }
}

async function fill(port: number, count = CLIENTS): Promise<{ served: Client[]; turnedAway: Client[] }> {
  const clients = Array.from({ length: count }, () => new Client(port))
  const of = (state: Client['state']) => clients.filter((client) => client.state === state)
  await until(
    'every client is served or turned away',
    () => of('waiting').length === 0,
    () => `(${of('waiting').length} wait, ${of('served').length} are served)`,
  )
  return { served: of('served'), turnedAway: of('turned away') }
}

describe.skipIf(process.platform !== 'linux')('no descriptor is left', () => {
  test('who is too late is turned away, and counted; one warning tells', async () => {
    const { server, port } = await start()
    const { served, turnedAway } = await fill(port)
    expect(served.length).toBeGreaterThan(10)
    expect(served.length).toBeLessThan(DESCRIPTORS)
    expect(turnedAway.length).toBe(CLIENTS - served.length)

    const { shed, acceptErrors, listenerErrors, open, warnings, otherWarnings } = await server.ask('stats')
    expect(shed).toBe(turnedAway.length)
    expect(open).toBe(served.length)
    expect(acceptErrors).toBeGreaterThanOrEqual(1)
    expect(listenerErrors).toBe(acceptErrors)
    expect([warnings, otherWarnings]).toEqual([1, 0])

    // Whoever comes while it lasts fares the same.
    const late = await fill(port, 10)
    expect(late.turnedAway.length).toBe(10)
    const after = await server.ask('stats')
    expect(after.shed).toBe(turnedAway.length + 10)
    expect(after.warnings).toBe(1)
    expect(await server.ask('dial')).toMatchObject({ code: 'EMFILE' })
    expect(await server.stop()).toEqual({ code: 0, signal: null })
  })

  test('who is connected is served on', async () => {
    const { port } = await start()
    const { served } = await fill(port)
    const echoes = served.map(async (client) => {
      const payload = randomBytes(64 * KiB)
      expectBytes(await client.echo(payload), payload)
    })
    await Promise.all(echoes)
    expect(served.filter(({ socket }) => socket.destroyed)).toEqual([])
  })

  test('waiting costs nothing', async () => {
    const { server, port } = await start()
    await fill(port)
    await sleep(1_000) // the pauses have grown
    const before = await server.ask('stats')
    await sleep(1_000)
    const after = await server.ask('stats')
    expect(after.turns! - before.turns!).toBeLessThanOrEqual(IDLE_TURNS_MAX)
    expect(after.polls! - before.polls!).toBeLessThanOrEqual(IDLE_POLLS_MAX)
    expect(after.acceptErrors! - before.acceptErrors!).toBeLessThanOrEqual(IDLE_TURNS_MAX)
  })

  test('accepting resumes by itself when connections leave', async () => {
    const { server, port } = await start()
    const { served } = await fill(port)
    for (const { socket } of served.slice(0, 10)) socket.end()
    await sleep(RESUME_MS)
    for (let i = 0; i < 20; i++) {
      const payload = randomBytes(16 * KiB)
      const { received, orderly } = await exchange(port, payload)
      expect(orderly).toBe(true)
      expectBytes(received, payload)
    }
    const stayed = served.slice(10)
    expect(stayed.filter(({ socket }) => socket.destroyed)).toEqual([])
    const { open } = await server.ask('stats')
    expect(open).toBeGreaterThanOrEqual(stayed.length)
    expect(await server.stop()).toEqual({ code: 0, signal: null })
  })

  test('who comes before the pause is over waits for it, and is served', async () => {
    const { port } = await start()
    const { served } = await fill(port)
    for (const { socket } of served.slice(0, 10)) socket.end()
    await until('the server has noticed', () => served.slice(0, 10).every(({ socket }) => socket.destroyed))
    const { turnedAway } = await fill(port, 5)
    expect(turnedAway).toEqual([])
  })

  test('the first listen() says so, whatever it lacked, and a later one works', async () => {
    const first = `
      import { closeSync, openSync } from 'node:fs'
      import net from 'node:net'
      import { listen } from 'edgewire'
      const listening = () => listen({ host: '127.0.0.1', port: 0 }, { data(conn, chunk) { conn.write(chunk) } })
      const taken = []
      try { for (;;) taken.push(openSync('/dev/null')) } catch {}
      const codes = []
      let listener
      while (listener === undefined) {
        listener = await listening().catch(({ name, code }) => void codes.push(name + ' ' + code))
        closeSync(taken.pop())
      }
      for (const fd of taken) closeSync(fd)
      console.log(JSON.stringify(codes))
      const client = net.connect(listener.port, '127.0.0.1').end('served')
      for await (const chunk of client) console.log(JSON.stringify(String(chunk)))
      await listener.shutdown()
    `
    const server = new Server('/bin/sh', ['-c', limited, process.execPath, first])
    const codes = JSON.parse(await server.line()) as string[]
    // The poller, the timer of the driver prepare, and the socket: each was the one that was missing.
    expect(codes.length).toBeGreaterThanOrEqual(2)
    expect(new Set(codes)).toEqual(new Set(['NetError EMFILE']))
    expect(JSON.parse(await server.line())).toBe('served')
    expect(await server.ended).toEqual({ code: 0, signal: null })
  })
})
