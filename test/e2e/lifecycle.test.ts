// How connections end: from inside every handler, by the peer, by an exception; each exactly once, none unnoticed.

import { type Conn, type Handlers, type Listener, NetError } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  allClosed,
  connect,
  deferred,
  echoHandlers,
  expectBytes,
  KiB,
  MiB,
  mainTransports,
  type Peer,
  randomBytes,
  rejection,
  serve,
  sleep,
  tcp4,
  turn,
  until,
  within,
} from './harness.ts'

const named = mainTransports.map((transport) => [transport.name, transport] as const)

/** What a handler may do to its own connection. */
const acts: Record<string, (conn: Conn) => void> = {
  close: (conn) => conn.close(),
  abort: (conn) => conn.abort(),
  'abort with a reason': (conn) => conn.abort(new Error('enough')),
  closeWrite: (conn) => conn.closeWrite(),
  'write and close': (conn) => {
    if (conn.state === 'open' || conn.state === 'read-closed') conn.write('bye')
    conn.close()
  },
  'close twice': (conn) => {
    conn.close()
    conn.close()
  },
  'close and abort': (conn) => {
    conn.close()
    conn.abort()
  },
  'abort and close': (conn) => {
    conn.abort()
    conn.close()
  },
  'pause and close': (conn) => {
    if (conn.state === 'closed') return
    conn.pause()
    conn.close()
  },
}

const places = ['open', 'data', 'end', 'drain', 'timeout', 'close'] as const
type Place = (typeof places)[number]

describe.each(named)('%s: from inside a handler', (_, transport) => {
  const matrix = places.flatMap((place) => Object.keys(acts).map((act) => [place, act] as const))

  test.each(matrix)('%s: %s ends it exactly once, and its neighbour lives on', async (place, act) => {
    const seen: string[] = []
    let victim: Conn | undefined
    const note = (conn: Conn, what: Place) => {
      if (conn !== victim) return
      seen.push(what)
      if (what === place) acts[act]!(conn)
    }
    const listener = await serve(
      transport,
      {
        open(conn) {
          if (victim === undefined && neighbour !== undefined) victim = conn
          note(conn, 'open')
          if (conn !== victim || conn.state !== 'open') return
          if (place === 'drain') conn.write(Buffer.alloc(4 * MiB))
          if (place === 'timeout') conn.setReadDeadline(Date.now() + 5)
        },
        data(conn, chunk) {
          if (conn !== victim) conn.write(chunk)
          note(conn, 'data')
        },
        end(conn) {
          note(conn, 'end')
          conn.close()
        },
        drain: (conn) => note(conn, 'drain'),
        timeout(conn) {
          note(conn, 'timeout')
          conn.close()
        },
        close: (conn) => note(conn, 'close'),
      },
      { maxBufferedBytes: 64 * MiB },
    )
    let neighbour: Peer | undefined
    const first = await connect(listener)
    await until('the neighbour is accepted', () => listener.stats().accepted === 1)
    neighbour = first
    const peer = await connect(listener)
    peer.socket.write('hello')
    await turn()
    if (place !== 'timeout' && place !== 'drain') peer.finish()
    await within(
      'the victim closes',
      peer.closed.then(() => undefined),
    )
    await until('the victim is told of its close', () => seen.includes('close'))
    await until('only the neighbour is open', () => listener.stats().open === 1)
    await turn()
    expect(seen.filter((what) => what === 'close')).toEqual(['close'])
    expect(seen.at(-1)).toBe('close')
    expect(seen, `reached ${place}`).toContain(place)
    expect(victim!.state).toBe('closed')
    neighbour.socket.write('still there?')
    await neighbour.bytes(12)
  })

  test('nothing comes after close() or abort() but `close`', async () => {
    for (const act of ['close', 'abort', 'pause and close']) {
      const seen: string[] = []
      const listener = await serve(transport, {
        data(conn) {
          seen.push('data')
          acts[act]!(conn)
        },
        end: () => seen.push('end'),
        drain: () => seen.push('drain'),
        close: () => seen.push('close'),
      })
      const peer = await connect(listener)
      peer.socket.end(randomBytes(500 * KiB))
      await until('it has been served', () => seen.includes('data'))
      await allClosed(listener)
      await turn()
      expect(seen, act).toEqual(['data', 'close'])
    }
  })

  test('one handler may close all other connections of its batch', async () => {
    const conns: Conn[] = []
    const seen: string[] = []
    const listener = await serve(transport, {
      open: (conn) => conns.push(conn),
      data(conn) {
        seen.push(`data ${conns.indexOf(conn)}`)
        for (const other of conns) if (other !== conn) other.abort()
      },
      close: (conn) => seen.push(`close ${conns.indexOf(conn)}`),
    })
    const peers = [await connect(listener), await connect(listener), await connect(listener)]
    await until('all are accepted', () => conns.length === 3)
    for (const peer of peers) peer.socket.write('x')
    await until('two are closed', () => listener.stats().closed === 2)
    await turn()
    expect(seen.filter((what) => what.startsWith('data')).length).toBe(1)
    expect(seen.filter((what) => what.startsWith('close')).length).toBe(2)
  })

  test('close() sends everything that was written before it', async () => {
    const payload = randomBytes(6 * MiB)
    const listener = await serve(transport, {
      open(conn) {
        conn.write(payload)
        conn.close()
      },
    })
    const peer = await connect(listener)
    await within('the server finishes', peer.ended)
    expectBytes(peer.received, payload)
    peer.finish()
    await allClosed(listener)
  })
})

describe.each(named)('%s: the peer', (_, transport) => {
  const isTcp = transport.isTcp

  /** Accepts one connection with `style` and tells how it ends. */
  async function ending(
    style: Handlers,
    options = {},
  ): Promise<{ listener: Listener; peer: Peer; closed: Promise<NetError | undefined>; conn: Conn }> {
    const opened = deferred<Conn>()
    const closed = deferred<NetError | undefined>()
    const listener = await serve(
      transport,
      { ...style, open: opened.resolve, close: (_, error) => closed.resolve(error) },
      options,
    )
    const peer = await connect(listener)
    const conn = await within('the server accepts', opened.promise)
    return { listener, peer, closed: closed.promise, conn }
  }

  test('RST while a write is under way ends the connection with the error', async () => {
    const { peer, closed, conn } = await ending({}, { maxBufferedBytes: 64 * MiB })
    peer.socket.pause()
    conn.write(randomBytes(16 * MiB))
    const flushed = rejection(conn.flushed(), 'flushed() to fail')
    const drained = rejection(conn.drained(), 'drained() to fail')
    await until('a part is sent', () => conn.bytesWritten > 0)
    await sleep(20)
    peer.reset()
    const error = await within('the server notices', closed)
    expect(error).toBeInstanceOf(NetError)
    expect(['ECONNRESET', 'EPIPE']).toContain(error!.code)
    expect(await flushed).toBe(error)
    expect(await drained).toBe(error)
    expect(await conn.closed).toBe(error)
    expect(conn.bufferedAmount).toBe(0)
  })

  test('RST ends a connection without `data` handler', async () => {
    const { peer, closed } = await ending({})
    peer.reset()
    const error = await within('the server notices', closed)
    expect(error?.code).toBe(isTcp ? 'ECONNRESET' : undefined)
  })

  test('FIN ends a connection without `data` and `end` handlers', async () => {
    const { peer, closed } = await ending({})
    await peer.send(randomBytes(100 * KiB))
    peer.finish()
    expect(await within('the server closes', closed)).toBeUndefined()
    await within('the peer gets FIN', peer.ended)
  })

  test.runIf(isTcp)('RST ends a paused connection', async () => {
    const { peer, closed, conn } = await ending({ data() {} })
    conn.pause()
    await peer.send('unread')
    await turn()
    peer.reset()
    expect(await within('the server notices', closed)).toMatchObject({ code: 'ECONNRESET', op: 'read' })
  })

  test.runIf(isTcp)(
    'bytes and RST at once: the handler of the bytes may set options, and `close` says why',
    async () => {
      const thrown: unknown[] = []
      const { peer, closed } = await ending({
        data(conn) {
          try {
            conn
              .setNoDelay(false)
              .setKeepAlive(true, 1000)
              .setRecvBufferSize(64 * KiB)
          } catch (error) {
            thrown.push(error)
          }
        },
      })
      // Both lie in the kernel before this thread looks: the connection is over when its bytes are told.
      peer.socket.write('last words')
      peer.reset()
      expect(await within('the server notices', closed)).toMatchObject({ code: 'ECONNRESET', op: 'read' })
      expect(thrown).toEqual([])
    },
  )

  test('close() of a paused connection ends it', async () => {
    const { peer, closed, conn } = await ending({ data() {} })
    conn.pause()
    conn.close()
    await within('the peer goes', peer.closed)
    expect(await within('`close` is called', closed)).toBeUndefined()
    expect(await within('`closed` resolves', conn.closed)).toBeUndefined()
  })

  test('a paused connection whose peer is gone delivers everything when it is resumed', async () => {
    const got: Buffer[] = []
    const { peer, closed, conn } = await ending({ data: (_, chunk) => got.push(Buffer.from(chunk)) })
    conn.pause()
    const payload = randomBytes(100 * KiB)
    await peer.send(payload)
    peer.finish()
    await until(
      'the hangup is noticed',
      () => conn.state === 'read-closed',
      () => conn.state,
    )
    expect(got).toEqual([])
    conn.resume()
    expect(await within('the server closes', closed)).toBeUndefined()
    expectBytes(Buffer.concat(got), payload)
  })

  test('the close of a connection that a task never reads is noticed', async () => {
    const opened = deferred<Conn>()
    const release = deferred()
    const listener = await serve(transport, async (conn) => {
      opened.resolve(conn)
      await release.promise
    })
    const peer = await connect(listener)
    const conn = await within('the server accepts', opened.promise)
    await peer.send('unread')
    peer.finish()
    await until(
      'the state is read-closed',
      () => conn.state === 'read-closed',
      () => conn.state,
    )
    release.resolve()
    await allClosed(listener)
  })

  test.runIf(isTcp)('RST to a connection that a task never reads resolves `closed`', async () => {
    const opened = deferred<Conn>()
    const listener = await serve(transport, async (conn) => {
      opened.resolve(conn)
      await conn.closed
    })
    const peer = await connect(listener)
    const conn = await within('the server accepts', opened.promise)
    peer.reset()
    expect(await within('`closed` resolves', conn.closed)).toMatchObject({ code: 'ECONNRESET', op: 'read' })
    expect(conn.state).toBe('closed')
    expect(await rejection(conn.read(new Uint8Array(1)))).toMatchObject({ code: 'ECONNRESET' })
  })

  test.runIf(isTcp)('abort() is RST to the peer, close() is not', async () => {
    const aborted = await ending({})
    aborted.conn.abort()
    expect((await within('the peer notices', aborted.peer.closed))?.code).toBe('ECONNRESET')
    const closed = await ending({})
    closed.conn.close()
    await within('the peer gets FIN', closed.peer.ended)
    closed.peer.finish()
    expect(await within('the peer closes', closed.peer.closed)).toBeUndefined()
    expect(await within('the server closes', closed.closed)).toBeUndefined()
  })

  test.runIf(isTcp)('close() with unread input sends FIN, not RST', async () => {
    const { peer, conn, closed } = await ending({ data() {} })
    conn.pause()
    await peer.send(randomBytes(64 * KiB))
    await sleep(20)
    conn.write('answer')
    conn.close()
    await within('the peer gets FIN', peer.ended)
    expect(peer.received.toString()).toBe('answer')
    peer.finish()
    expect(await within('the peer closes', peer.closed)).toBeUndefined()
    expect(await within('the server closes', closed)).toBeUndefined()
  })

  test('a peer that never takes what is queued is reset when lingerMs is over', async () => {
    const { peer, conn, closed } = await ending({}, { lingerMs: 50, maxBufferedBytes: 64 * MiB })
    peer.socket.pause()
    conn.write(randomBytes(16 * MiB))
    conn.close()
    expect(await within('the server gives up', closed)).toMatchObject({ code: 'ETIMEDOUT', op: 'close', timeout: true })
    peer.socket.resume()
    await within('the peer closes', peer.closed)
  })

  test('garbage of any kind and size is bytes like any other', async () => {
    const listener = await serve(transport, echoHandlers)
    const peers: Peer[] = []
    for (let i = 0; i < 40; i++) peers.push(await connect(listener))
    for (const [i, peer] of peers.entries()) {
      peer.socket.write(randomBytes(1 + (i % 7) * 9000))
      if (i % 4 === 0) peer.reset()
      else if (i % 4 === 1) peer.socket.destroy()
      else peer.finish()
    }
    await within('all go', Promise.all(peers.map((peer) => peer.closed)))
    await allClosed(listener)
  })
})

test('asyncDispose closes in order and waits until it is over', async () => {
  const opened = deferred<Conn>()
  const listener = await serve(tcp4, { open: opened.resolve })
  const peer = await connect(listener, { allowHalfOpen: true })
  const conn = await within('the server accepts', opened.promise)
  conn.write('bye')
  const disposed = conn[Symbol.asyncDispose]()
  await within('the peer gets FIN', peer.ended)
  expect(peer.received.toString()).toBe('bye')
  expect(conn.state).toBe('closing')
  peer.finish()
  await within('it is disposed', disposed)
  expect(conn.state).toBe('closed')
  await conn[Symbol.asyncDispose]()
})
