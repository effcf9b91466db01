// Connected pairs over every transport, in every style, and what must hold when a test is over: each end was told its
// end exactly once. The harness adds that every connection is closed, every descriptor and every chunk is back.

import { once } from 'node:events'
import net from 'node:net'
import { type Conn, type ConnOptions, dial, stats } from 'edgewire'
import { afterAll, afterEach, expect } from 'vitest'
import { atEnd, deferred, placeOf, serve, type Transport, within } from '../e2e/harness.ts'
import { type End, EventEnd, type MakePipe, type Pipe, type Style } from './ends.ts'
import { SocketEnd } from './oracle.ts'

const ends: End[] = []

/** What is said of an end is said once: later ends of the same test are checked with it. */
function tracked(pipe: Pipe): Pipe {
  ends.push(pipe.a, pipe.b)
  return pipe
}

afterEach(async () => {
  const all = ends.splice(0)
  for (const end of all) end.abort()
  await within('every end is over', Promise.all(all.map((end) => end.closed)))
  for (const end of all) {
    if (end instanceof EventEnd) expect(end.closes, '`close` is told once').toBe(1)
    if (end.events !== undefined) expect(end.events.ends, '`end` is told at most once').toBeLessThanOrEqual(1)
  }
})

afterAll(() => {
  const { accepted, dialed, closed, slabInUseBytes } = stats()
  expect(closed, 'closed, of all that were opened in this file').toBe(accepted + dialed)
  expect(slabInUseBytes, 'bytes of the pool in use').toBe(0)
})

async function taskPipe(transport: Transport, options: ConnOptions): Promise<Pipe> {
  const accepted = deferred<Conn>()
  const listener = await serve(
    transport,
    async (conn) => {
      accepted.resolve(conn)
      await conn.closed
    },
    options,
  )
  const a = await dial({ ...placeOf(listener), ...options })
  const b = await within('the server accepts', accepted.promise)
  await listener.close()
  return { a, b }
}

async function eventPipe(transport: Transport, options: ConnOptions): Promise<Pipe> {
  const accepted = deferred<EventEnd>()
  const listener = await serve(transport, EventEnd.handlers(accepted.resolve), options)
  const dialed = deferred<EventEnd>()
  await dial({ ...placeOf(listener), ...options }, EventEnd.handlers(dialed.resolve))
  const [a, b] = await within('both ends open', Promise.all([dialed.promise, accepted.promise]))
  await listener.close()
  return { a, b }
}

async function oraclePipe(transport: Transport, options: ConnOptions): Promise<Pipe> {
  const server = net.createServer({ allowHalfOpen: true, noDelay: true })
  const place = transport.place()
  server.listen(place)
  await once(server, 'listening')
  const where = 'path' in place ? place : { ...place, port: (server.address() as net.AddressInfo).port }
  const socket = net.connect({ ...where, allowHalfOpen: true, noDelay: true } as net.NetConnectOpts)
  const [[accepted]] = await within('it connects', Promise.all([once(server, 'connection'), once(socket, 'connect')]))
  server.close()
  atEnd(() => server.close())
  return { a: new SocketEnd(socket, options), b: new SocketEnd(accepted as net.Socket, options) }
}

const makers = { task: taskPipe, events: eventPipe, oracle: oraclePipe }

export function pipeMaker(transport: Transport, style: Style): MakePipe {
  const make = async (options: ConnOptions = {}) => tracked(await makers[style](transport, options))
  return Object.assign(make, { style, isTcp: transport.isTcp })
}
