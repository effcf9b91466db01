// Bytes in are bytes out: in any pieces, over every transport, in both styles.

import { type Conn, dial } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  allClosed,
  connect,
  deferred,
  echoStyles,
  expectBytes,
  KiB,
  MiB,
  mainTransports,
  type Peer,
  pieces,
  placeOf,
  randomBytes,
  randomInt,
  serve,
  tcp4,
  transports,
  turn,
  until,
  within,
} from './harness.ts'

const cases = transports.flatMap((transport) => echoStyles.map(([style, echo]) => ({ transport, style, echo })))
const title = ({ transport, style }: { transport: { name: string }; style: string }) => `${transport.name}, ${style}`
const named = cases.map((each) => [title(each), each] as const)

describe.each(named)('%s', (_, { transport, echo }) => {
  test('1 MiB in random pieces comes back byte for byte', async () => {
    const peer = await connect(await serve(transport, echo))
    const payload = randomBytes(MiB)
    for (const piece of pieces(payload, 20 * KiB)) {
      peer.socket.write(piece)
      if (randomInt(0, 3) === 0) await turn()
    }
    peer.finish()
    await within('the server answers FIN with FIN', peer.ended)
    expectBytes(peer.received, payload)
  })

  test('single bytes come back in order', async () => {
    const peer = await connect(await serve(transport, echo))
    const payload = randomBytes(500)
    for (const byte of pieces(payload, 1)) {
      await peer.send(byte)
      await turn()
    }
    expectBytes(await peer.bytes(payload.length), payload)
  })

  test('all that was sent before FIN is answered before FIN', async () => {
    const peer = await connect(await serve(transport, echo))
    const payload = randomBytes(300 * KiB + 1)
    peer.socket.end(payload)
    await within('the server answers FIN with FIN', peer.ended)
    expectBytes(peer.received, payload)
    peer.socket.destroy()
    expect(await within('the peer closes', peer.closed)).toBeUndefined()
  })
})

describe.each(mainTransports.map((transport) => [transport.name, transport] as const))('%s', (_, transport) => {
  test('the data before FIN comes before the one `end`', async () => {
    const seen: string[] = []
    const bytes: Buffer[] = []
    const listener = await serve(transport, {
      open: () => seen.push('open'),
      data(_, chunk) {
        bytes.push(Buffer.from(chunk))
        if (seen.at(-1) !== 'data') seen.push('data')
      },
      end(conn) {
        seen.push('end', conn.state)
        conn.close()
        expect(conn.state).toBe('closing')
      },
      close: (conn, error) => seen.push('close', conn.state, String(error)),
    })
    const peer = await connect(listener)
    const payload = randomBytes(200 * KiB)
    peer.socket.end(payload)
    await within('the server closes', peer.ended)
    peer.socket.destroy()
    await allClosed(listener)
    expectBytes(Buffer.concat(bytes), payload)
    expect(seen).toEqual(['open', 'data', 'end', 'read-closed', 'close', 'closed', 'undefined'])
  })

  test('after the peer has finished, the server can go on writing', async () => {
    const payload = randomBytes(400 * KiB)
    const ended = deferred<Conn>()
    const listener = await serve(transport, { end: ended.resolve })
    const peer = await connect(listener)
    peer.finish()
    const conn = await within('the server hears of FIN', ended.promise)
    expect(conn.state).toBe('read-closed')
    conn.write(payload)
    await within('everything is sent', conn.flushed())
    conn.close()
    await within('the server finishes', peer.ended)
    expectBytes(peer.received, payload)
    expect(await within('the connection ends', conn.closed)).toBeUndefined()
  })

  test('after closeWrite() the server still hears everything the peer sends', async () => {
    const parts: Buffer[] = []
    const states: string[] = []
    const listener = await serve(transport, async (conn) => {
      conn.write('bye')
      conn.closeWrite()
      states.push(conn.state)
      for await (const chunk of conn) parts.push(chunk)
      states.push(conn.state)
    })
    const peer = await connect(listener, { allowHalfOpen: true })
    await within('the server finishes', peer.ended)
    expect(peer.received.toString()).toBe('bye')
    const payload = randomBytes(MiB)
    await peer.send(payload)
    peer.finish()
    await within('the peer closes', peer.closed)
    await allClosed(listener)
    expectBytes(Buffer.concat(parts), payload)
    expect(states[0]).toBe('write-closed')
    expect(['closing', 'closed']).toContain(states[1])
  })

  test('handlers: after closeWrite() data and end still come, and both FINs close', async () => {
    const seen: string[] = []
    const listener = await serve(transport, {
      open: (conn) => conn.closeWrite(),
      data: (_, chunk) => seen.push(chunk.toString()),
      end: () => seen.push('end'),
      close: (_, error) => seen.push(`close ${error}`),
    })
    const peer = await connect(listener, { allowHalfOpen: true })
    await within('the server finishes', peer.ended)
    peer.socket.end('late')
    await within('the peer closes', peer.closed)
    await allClosed(listener)
    expect(seen).toEqual(['late', 'end', 'close undefined'])
  })

  test('dial() and listen() speak to each other, in both styles at once', async () => {
    const listener = await serve(transport, echoStyles[0]![1])
    const conn = await dial(placeOf(listener))
    const payload = randomBytes(600 * KiB)
    const got: Buffer[] = []
    const reading = (async () => {
      for await (const chunk of conn) got.push(chunk)
    })()
    for (const piece of pieces(payload, 50 * KiB)) {
      if (!conn.write(Buffer.from(piece))) await within('the connection drains', conn.drained())
    }
    conn.closeWrite()
    await within('the echo ends', reading)
    expectBytes(Buffer.concat(got), payload)
    expect(conn.bytesRead).toBe(payload.length)
    expect(conn.bytesWritten).toBe(payload.length)
    await within('the connection ends', conn.closed)
  })

  test('1,000 connections at once are all served', async () => {
    const count = 1000
    const listener = await serve(transport, echoStyles[0]![1])
    const all: Peer[] = []
    for (let i = 0; i < count; i++) {
      all.push(await connect(listener))
    }
    await until('all are accepted', () => listener.stats().open === count)
    expect([...listener.connections].length).toBe(count)
    const messages = all.map((_, i) => Buffer.from(`${i}:`.padEnd(200, String(i))))
    all.forEach((peer, i) => void peer.socket.write(messages[i]!))
    await Promise.all(all.map(async (peer, i) => expectBytes(await peer.bytes(200), messages[i]!)))
    for (const peer of all) peer.finish()
    await within('all are answered with FIN', Promise.all(all.map((peer) => peer.ended)))
  })
})

test('a connection that is opened, used and closed leaves the others alone, a thousand times', async () => {
  const listener = await serve(tcp4, echoStyles[1]![1])
  const steady = await connect(listener)
  for (let round = 0; round < 100; round++) {
    const batch = await Promise.all(Array.from({ length: 10 }, () => connect(listener)))
    for (const peer of batch) peer.socket.end(`round ${round}`)
    await within('the batch is answered', Promise.all(batch.map((peer) => peer.ended)))
    for (const peer of batch) expect(peer.received.toString()).toBe(`round ${round}`)
    for (const peer of batch) peer.socket.destroy()
    steady.socket.write('.')
  }
  expectBytes(await steady.bytes(100), Buffer.alloc(100, '.'))
})
