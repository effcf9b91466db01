// A connection that floods does not delay the others: counted in turns of the reactor and in bytes of the flood that go
// by meanwhile, never in time.
//
// The bounds follow from the budgets in native/core/reactor.h. A round takes at most 128 KiB of one connection, a turn
// has at most 16 rounds, and an iteration of libuv at most two turns (one for the poller, one for work left over).

import { stat } from 'node:fs/promises'
import net from 'node:net'
import { type Conn, dial, type Handlers, type Listener, stats, type Task } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  atEnd,
  KiB,
  MiB,
  mainTransports,
  placeOf,
  serve,
  type Transport,
  tcp4,
  turn,
  unix,
  until,
} from '../e2e/harness.ts'
import { start } from '../e2e/programs.ts'
import { isTsfn } from '../e2e/runtime.ts'
import './pipes.ts'

const Rounds = 60
const PerConnAndRound = 128 * KiB
const PerTurn = 16 * PerConnAndRound
const TurnsPerIteration = 2
/** What a thread of libuv's pool may take to be scheduled, on a machine whose cores are busy: the system's to say. */
const ThreadTurns = 400
const piece = Buffer.alloc(64 * KiB, 'f')

interface Flood {
  listener: Listener
  /** Read of the flood so far. */
  bytes(): number
  /** Is called whenever some of it has been read. */
  onRead: () => void
}

/** Pings are short, and are answered. */
function receiver(style: 'handlers' | 'task', took: (bytes: number) => void): Handlers | Task {
  const isPing = (bytes: number) => bytes < 8
  if (style === 'handlers') {
    return {
      data(conn, chunk) {
        if (isPing(chunk.length)) conn.write(chunk)
        else took(chunk.length)
      },
    }
  }
  return async (conn) => {
    const into = new Uint8Array(64 * KiB)
    for (;;) {
      const count = await conn.read(into)
      if (count === null) return
      if (isPing(count)) conn.write(into.slice(0, count))
      else took(count)
    }
  }
}

/** Both ends in this process: whenever there is room the senders fill it, and the receivers read all. */
async function flood(transport: Transport, style: 'handlers' | 'task', senders = 1): Promise<Flood> {
  let read = 0
  const running: Flood = { bytes: () => read, onRead: () => {}, listener: undefined as unknown as Listener }
  running.listener = await serve(
    transport,
    receiver(style, (bytes) => {
      read += bytes
      running.onRead()
    }),
  )
  const fill = (conn: Conn) => {
    while (conn.write(piece));
  }
  for (let i = 0; i < senders; i++) {
    const sender = await dial(placeOf(running.listener), { drain: fill })
    atEnd(() => sender.abort())
    fill(sender)
  }
  await until('the flood runs', () => read > 4 * MiB)
  return running
}

/** A connection beside the flood that sends a byte and waits for it to come back. */
async function pinger(listener: Listener): Promise<() => Promise<void>> {
  const conn = await dial(placeOf(listener))
  atEnd(() => conn.abort())
  const into = new Uint8Array(8)
  return async () => {
    conn.write('p')
    await conn.read(into)
  }
}

/** The same through net.Server and net.Socket, in this process. */
async function socketPinger(): Promise<() => Promise<void>> {
  const server = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const socket = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
  await new Promise((resolve) => socket.once('connect', resolve))
  atEnd(() => {
    socket.destroy()
    server.close()
  })
  return () =>
    new Promise((resolve) => {
      socket.once('data', () => resolve())
      socket.write('p')
    })
}

interface Passed {
  turns: number
  bytes: number
}

/** What goes by until `act` is done: the most of many times. */
async function passing(running: Flood, act: () => Promise<unknown>): Promise<Passed> {
  const most = { turns: 0, bytes: 0 }
  // Some of the flood must have gone by: if its thread had no core so far, longer.
  for (let round = 0; round < Rounds || (most.bytes === 0 && round < 100 * Rounds); round++) {
    const [turns, bytes] = [stats().turns, running.bytes()]
    await act()
    most.turns = Math.max(most.turns, stats().turns - turns)
    most.bytes = Math.max(most.bytes, running.bytes() - bytes)
  }
  expect(most.bytes).toBeGreaterThan(0)
  return most
}

/** The turns between a timer's time and its call: the flood's receiver looks at the clock. */
async function timerTurns(running: Flood): Promise<number> {
  const due = performance.now() + 2
  let turnsAtDue = 0
  running.onRead = () => {
    if (turnsAtDue === 0 && performance.now() >= due) turnsAtDue = stats().turns
  }
  await new Promise((resolve) => setTimeout(resolve, 1))
  running.onRead = () => {}
  return turnsAtDue === 0 ? 0 : stats().turns - turnsAtDue
}

const places = mainTransports.flatMap((transport) =>
  (['handlers', 'task'] as const).map((style) => [transport.name, style, transport] as const),
)

// A thread-safe function may be served many times in one iteration of the loop: docs/runtimes.md.
describe.skipIf(isTsfn).each(places)('beside a flood over %s, read by %s,', (_, style, transport) => {
  test('a neighbour gets its answer in this turn or the next, after two rounds', async () => {
    const running = await flood(transport, style)
    const most = await passing(running, await pinger(running.listener))
    expect(most.turns).toBeLessThanOrEqual(2)
    expect(most.bytes).toBeLessThanOrEqual(4 * PerConnAndRound)
  })

  test('setImmediate and setTimeout wait for one iteration', async () => {
    const running = await flood(transport, style)
    const most = await passing(running, turn)
    expect(most.turns).toBeLessThanOrEqual(TurnsPerIteration)
    expect(most.bytes).toBeLessThanOrEqual(TurnsPerIteration * PerTurn)
    let worst = 0
    for (let round = 0; round < Rounds; round++) worst = Math.max(worst, await timerTurns(running))
    expect(worst).toBeLessThanOrEqual(TurnsPerIteration + 1)
  })

  test('a net.Socket waits for one iteration on each side', async () => {
    const running = await flood(transport, style)
    const most = await passing(running, await socketPinger())
    expect(most.turns).toBeLessThanOrEqual(2 * TurnsPerIteration + 1)
    expect(most.bytes).toBeLessThanOrEqual((2 * TurnsPerIteration + 1) * PerTurn)
  })

  test('an fs call waits for its thread and one iteration', async () => {
    const running = await flood(transport, style)
    const most = await passing(running, () => stat('/'))
    expect(most.turns).toBeLessThanOrEqual(ThreadTurns + TurnsPerIteration)
  })
})

test.skipIf(isTsfn)('beside 16 that flood, a neighbour waits for a round of each at most', async () => {
  const senders = 16
  const running = await flood(tcp4, 'handlers', senders)
  const most = await passing(running, await pinger(running.listener))
  expect(most.bytes).toBeLessThanOrEqual(4 * senders * PerConnAndRound)
  expect(most.turns).toBeLessThanOrEqual(4)
})

// Over TCP the kernel gives some connections larger windows than others.
test.each([
  ['unix', unix, 1.2],
  ['tcp4', tcp4, 3],
] as const)('of 16 that flood over %s none gets much more than another', async (_, transport, ratio) => {
  const listener = await serve(transport, { data() {} })
  const fill = (conn: Conn) => {
    while (conn.write(piece));
  }
  const senders = await Promise.all(Array.from({ length: 16 }, () => dial(placeOf(listener), { drain: fill })))
  atEnd(() => senders.map((sender) => sender.abort()))
  for (const sender of senders) fill(sender)
  const read = () => [...listener.connections].map((conn) => conn.bytesRead)
  await until('each has been read from', () => Math.min(...read()) > 20 * MiB)
  expect(Math.max(...read())).toBeLessThan(ratio * Math.min(...read()))
})

test.skipIf(isTsfn)('a flood from another process: a neighbour, an immediate and a net.Socket are served', async () => {
  let read = 0
  const listener = await serve(
    tcp4,
    receiver('handlers', (bytes) => {
      read += bytes
    }),
  )
  start(`
    const socket = net.connect(${listener.port}, '127.0.0.1')
    const piece = Buffer.alloc(65536, 'f')
    for (;;) if (!socket.write(piece)) await once(socket, 'drain')
  `)
  await until('the flood runs', () => read > 4 * MiB)
  const running: Flood = { listener, bytes: () => read, onRead: () => {} }
  const ping = await passing(running, await pinger(listener))
  expect(ping.turns).toBeLessThanOrEqual(8)
  const immediate = await passing({ ...running, bytes: () => read + 1 }, turn).catch(() => ({ turns: 0 }))
  expect(immediate.turns).toBeLessThanOrEqual(TurnsPerIteration)
  const socket = await passing(running, await socketPinger())
  expect(socket.turns).toBeLessThanOrEqual(2 * TurnsPerIteration + 4)
})
