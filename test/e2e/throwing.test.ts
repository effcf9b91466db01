// A handler or task that throws loses its own connection only, and its error is never lost.

import { type Conn, type Handlers, NetError, type Task } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  allClosed,
  connect,
  deferred,
  MiB,
  mainTransports,
  type Peer,
  serve,
  sleep,
  tcp4,
  until,
  within,
} from './harness.ts'
import { run } from './programs.ts'

const boom = new Error('boom')
const places = ['open', 'data', 'end', 'drain', 'timeout', 'close'] as const
const ways: Record<string, () => unknown> = {
  throws: () => {
    throw boom
  },
  rejects: async () => {
    await sleep(1)
    throw boom
  },
  'rejects at once': () => Promise.reject(boom),
}

describe.each(mainTransports.map((transport) => [transport.name, transport] as const))('%s', (_, transport) => {
  test.each(places.flatMap((place) => Object.keys(ways).map((way) => [place, way] as const)))(
    'a handler `%s` that %s: its connection is reset, onError gets it, the others are served',
    async (place, way) => {
      const errors: [unknown, Conn][] = []
      const closes: unknown[] = []
      let victim: Conn | undefined
      const act = (conn: Conn, what: string) => (conn === victim && what === place ? ways[way]!() : undefined)
      const handlers: Handlers = {
        open(conn) {
          if (neighbour !== undefined && victim === undefined) victim = conn
          if (conn === victim && place === 'drain') conn.write(Buffer.alloc(4 * MiB))
          if (conn === victim && place === 'timeout') conn.setDeadline(Date.now() + 1)
          return act(conn, 'open')
        },
        data(conn, chunk) {
          if (conn !== victim) conn.write(chunk)
          return act(conn, 'data')
        },
        end(conn) {
          if (place !== 'end') conn.close()
          return act(conn, 'end')
        },
        drain: (conn) => act(conn, 'drain'),
        timeout: (conn) => act(conn, 'timeout'),
        close(conn, error) {
          if (conn === victim) closes.push(error)
          return act(conn, 'close')
        },
      }
      let neighbour: Peer | undefined
      const listener = await serve(transport, handlers, { onError: (error, conn) => void errors.push([error, conn]) })
      const first = await connect(listener)
      await until('the neighbour is accepted', () => listener.stats().accepted === 1)
      neighbour = first
      const peer = await connect(listener)
      if (place !== 'open' && place !== 'drain') {
        peer.socket.write('hello')
      }
      if (place === 'end' || place === 'close') peer.finish()
      await within(
        'the victim goes',
        peer.closed.then(() => undefined),
      )
      await until('onError is called', () => errors.length > 0)
      await until('only the neighbour is open', () => listener.stats().open === 1)
      expect(errors[0]![0]).toBe(boom)
      expect(errors[0]![1]).toBe(victim)
      expect(errors.length).toBe(place === 'timeout' ? errors.length : 1)
      expect(closes.length).toBe(1)
      expect(listener.stats().handlerErrors).toBe(errors.length)
      neighbour.socket.write('still there?')
      await neighbour.bytes(12)
    },
  )

  test('a throwing handler in the middle of a batch: everybody else in it is served', async () => {
    const errors: unknown[] = []
    const listener = await serve(
      transport,
      {
        data(conn, chunk) {
          if (chunk[0] === 0x78) throw boom
          conn.write(chunk)
        },
      },
      { onError: (error) => void errors.push(error) },
    )
    const peers: Peer[] = []
    for (let i = 0; i < 30; i++) peers.push(await connect(listener))
    for (const [i, peer] of peers.entries()) peer.socket.write(i % 3 === 0 ? 'x' : 'o')
    for (const [i, peer] of peers.entries()) {
      if (i % 3 === 0) await within('the victim goes', peer.closed)
      else await peer.bytes(1)
    }
    expect(errors).toEqual(Array(10).fill(boom))
    expect(listener.stats()).toMatchObject({ open: 20, closed: 10, handlerErrors: 10 })
  })

  const tasks: [string, Task][] = [
    [
      'throws before its first await',
      () => {
        throw boom
      },
    ],
    ['rejects', () => Promise.reject(boom)],
    [
      'throws after a read',
      async (conn) => {
        await conn.read(new Uint8Array(10))
        throw boom
      },
    ],
  ]

  test.each(tasks)('a task that %s loses its connection, and onError gets it', async (_, task) => {
    const errors = deferred<[unknown, Conn]>()
    const listener = await serve(transport, task, { onError: (error, conn) => errors.resolve([error, conn]) })
    const peer = await connect(listener)
    peer.socket.write('x')
    const [error, conn] = await within('onError is called', errors.promise)
    expect(error).toBe(boom)
    await within('the peer goes', peer.closed)
    await allClosed(listener)
    expect(conn.state).toBe('closed')
    const reason = await conn.closed
    expect(reason).toBeInstanceOf(NetError)
    expect(reason!.cause).toBe(boom)
    expect(listener.stats().handlerErrors).toBe(1)
  })

  test('a task that lets a failure of the network through is no bug to report', async () => {
    const errors: unknown[] = []
    const listener = await serve(
      transport,
      async (conn) => {
        conn.setReadDeadline(Date.now() + 1)
        await conn.read(new Uint8Array(1))
      },
      { onError: (error) => void errors.push(error) },
    )
    const peer = await connect(listener)
    await within('the peer goes', peer.closed)
    await allClosed(listener)
    await sleep(5)
    expect(errors).toEqual([])
    expect(listener.stats().handlerErrors).toBe(0)
  })
})

test('what is thrown need not be an Error', async () => {
  const errors: unknown[] = []
  const listener = await serve(
    tcp4,
    {
      data() {
        // biome-ignore lint/style/useThrowOnlyError: that is the point
        throw undefined
      },
    },
    { onError: (error) => void errors.push(error) },
  )
  const peer = await connect(listener)
  peer.socket.write('x')
  await within('the peer goes', peer.closed)
  await until('onError is called', () => errors.length > 0)
  expect(errors).toEqual([undefined])
})

// Not even a prototype: it can be neither turned into text nor asked for anything.
test.each(places)('`%s` throws Object.create(null): the others of its batch get their bytes', async (place) => {
  const thrown: object = Object.create(null)
  const errors: unknown[] = []
  const act = (conn: Conn, what: string) => {
    if (conn.data === 'victim' && what === place) throw thrown
  }
  const listener = await serve(
    tcp4,
    {
      open(conn) {
        if (listener.stats().accepted === 11) conn.data = 'victim'
        if (conn.data === 'victim' && place === 'drain') conn.write(Buffer.alloc(4 * MiB))
        if (conn.data === 'victim' && place === 'timeout') conn.setReadDeadline(Date.now() + 1)
        act(conn, 'open')
      },
      data(conn, chunk) {
        act(conn, 'data')
        conn.write(chunk)
      },
      end(conn) {
        act(conn, 'end')
        conn.close()
      },
      drain: (conn) => act(conn, 'drain'),
      timeout: (conn) => act(conn, 'timeout'),
      close: (conn) => act(conn, 'close'),
    },
    { onError: (error) => void errors.push(error) },
  )
  const others: Peer[] = []
  const more = async () => others.push(await connect(listener))
  for (let i = 0; i < 10; i++) await more()
  await until('all are accepted', () => listener.stats().accepted === 10)
  const victim = await connect(listener)
  for (let i = 0; i < 5; i++) await more()
  for (const peer of others.slice(0, 8)) peer.socket.write('precious bytes')
  if (place === 'data' || place === 'end' || place === 'close') victim.socket.end('x')
  for (const peer of others.slice(8)) peer.socket.write('precious bytes')
  for (const peer of others) expect((await peer.bytes(14)).toString()).toBe('precious bytes')
  await until('onError is called', () => errors.length > 0)
  expect(errors[0]).toBe(thrown)
  await within('the victim goes', victim.closed)
  await until('only the others are open', () => listener.stats().open === others.length)
  for (const peer of others) peer.socket.write('!')
  for (const peer of others) await peer.bytes(15)
})

const fatal: [string, string][] = [
  ['a handler that throws', `{ data() { throw new Error('boom') } }`],
  ['a handler that rejects', `{ async data() { await sleep(1); throw new Error('boom') } }`],
  ['a task that throws', `async () => { throw new Error('boom') }`],
  ['a close handler that throws', `{ data(conn) { conn.close() }, close() { throw new Error('boom') } }`],
]

test.each(fatal)('%s, without onError: an uncaught exception that ends the process', async (_, style) => {
  const end = await run(`
    const server = await listen({ host: '127.0.0.1', port: 0 }, ${style})
    net.connect(server.port, '127.0.0.1').on('error', () => {}).end('x')
    setTimeout(() => process.exit(9), 5000)
  `)
  expect(end).toMatchObject({ code: 1, signal: null })
  expect(end.stderr).toMatch(/Error: boom/i)
})

test.each(fatal)(
  '%s, without onError: process.on(uncaughtException) gets it, and serving goes on',
  async (_, style) => {
    const end = await run(`
    let boomed = 0
    process.on('uncaughtException', (error) => { if (error.message === 'boom') boomed++ })
    const server = await listen({ host: '127.0.0.1', port: 0 }, ${style})
    for (let i = 1; i <= 3; i++) {
      net.connect(server.port, '127.0.0.1').on('error', () => {}).end('x')
      while (boomed < i) await sleep(2)
    }
    print({ boomed, ...server.stats() })
    await server.shutdown()
  `)
    expect(end, end.stderr).toMatchObject({ code: 0, signal: null })
    expect(JSON.parse(end.stdout)).toMatchObject({ boomed: 3, handlerErrors: 3 })
  },
)
