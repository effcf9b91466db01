// listen(): where it listens, what it leaves behind, and accepting by iteration.

import { existsSync, rmSync, statSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { type Conn, dial, type Handlers, type Listener, listen, NetError } from 'edgewire'
import { describe, expect, test } from 'vitest'
import {
  allClosed,
  connect,
  deferred,
  descriptorCount,
  echoHandlers,
  freshPath,
  Peer,
  placeOf,
  rejection,
  serve,
  tcp4,
  track,
  transports,
  turn,
  unix,
  until,
  within,
} from './harness.ts'
import { run } from './programs.ts'
import { isNode } from './runtime.ts'

const ignore = { data() {} }

describe('addresses', () => {
  test.each(transports.map((transport) => [transport.name, transport] as const))(
    '%s: listener and connection name the same addresses as net.Socket',
    async (_, transport) => {
      const opened = deferred<Conn>()
      const listener = await serve(transport, { open: opened.resolve })
      const { socket } = await connect(listener)
      const conn = await within('the server accepts', opened.promise)
      expect(listener.listening).toBe(true)
      if (!transport.isTcp) {
        expect(listener).toMatchObject({ family: 'unix', port: 0 })
        expect(conn).toMatchObject({ remoteFamily: 'unix', localAddress: listener.address })
        expect(conn.listener).toBe(listener)
        return
      }
      expect(listener.port).toBe(socket.remotePort)
      expect(listener.address).toBe(socket.remoteAddress)
      expect(listener.family).toBe(socket.remoteFamily)
      expect({
        remoteAddress: conn.remoteAddress,
        remotePort: conn.remotePort,
        remoteFamily: conn.remoteFamily,
        localAddress: conn.localAddress,
        localPort: conn.localPort,
      }).toEqual({
        remoteAddress: socket.localAddress,
        remotePort: socket.localPort,
        remoteFamily: socket.localFamily,
        localAddress: socket.remoteAddress,
        localPort: socket.remotePort,
      })
      expect(conn.listener).toBe(listener)
    },
  )

  test('addresses that were asked for stay known after the close', async () => {
    const opened = deferred<Conn>()
    const listener = await serve(tcp4, { open: opened.resolve })
    const peer = await connect(listener)
    const conn = await within('the server accepts', opened.promise)
    const { remotePort, remoteAddress } = conn
    peer.finish()
    await within('it ends', conn.closed)
    expect(conn.remotePort).toBe(remotePort)
    expect(conn.remoteAddress).toBe(remoteAddress)
  })

  test('without a host both families are served, and IPv4 clients look as they do to Node', async () => {
    const opened: Conn[] = []
    const listener = track(await listen({ port: 0 }, { ...echoHandlers, open: (conn) => opened.push(conn) }))
    const theirs = net.createServer().listen(0)
    const seen: (string | undefined)[] = []
    theirs.on('connection', (socket) => {
      seen.push(socket.remoteAddress)
      socket.destroy()
    })
    await new Promise((resolve) => theirs.once('listening', resolve))
    const { port } = theirs.address() as net.AddressInfo
    for (const host of ['127.0.0.1', '::1']) {
      const peer = await connect(listener, { host })
      peer.socket.write('x')
      await peer.bytes(1)
      net.connect({ host, port }).on('error', () => {})
      await until('node sees it', () => seen.length === opened.length)
    }
    expect(opened.map((conn) => conn.remoteAddress)).toEqual(seen)
    theirs.close()
  })

  test('ipv6Only refuses IPv4 clients', async () => {
    const listener = track(await listen({ host: '::', port: 0, ipv6Only: true }, ignore))
    await connect(listener, { host: '::1' })
    await expect(connect(listener, { host: '127.0.0.1' })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('a host name is resolved', async () => {
    const listener = track(await listen({ host: 'localhost', port: 0 }, ignore))
    expect(['127.0.0.1', '::1']).toContain(listener.address)
    await connect(listener)
  })

  test('reusePort lets two listeners share a port', async () => {
    const first = track(await listen({ host: '127.0.0.1', port: 0, reusePort: true }, ignore))
    const second = track(await listen({ host: '127.0.0.1', port: first.port, reusePort: true }, ignore))
    for (let i = 0; i < 20; i++) await connect(first)
    await until('all are accepted', () => first.stats().accepted + second.stats().accepted === 20)
  })

  test('backlog: connections wait there until they are accepted', async () => {
    const listener = track(await listen({ host: '127.0.0.1', port: 0, backlog: 3 }, ignore))
    for (let i = 0; i < 10; i++) await connect(listener)
    await until('all are accepted', () => listener.stats().accepted === 10)
  })
})

describe('failures leave nothing open', () => {
  async function failing(options: Parameters<typeof listen>[0]) {
    const before = descriptorCount()
    const error = await rejection(listen(options, ignore))
    expect(error).toBeInstanceOf(NetError)
    expect(descriptorCount()).toBe(before)
    return error
  }

  test('a busy port is EADDRINUSE', async () => {
    const listener = await serve(tcp4, ignore)
    const error = await failing({ host: '127.0.0.1', port: listener.port })
    expect(error).toMatchObject({ code: 'EADDRINUSE', op: 'listen', localAddress: `127.0.0.1:${listener.port}` })
    expect(error.message).toBe(`listen tcp 127.0.0.1:${listener.port}: address already in use`)
  })

  test('a port that is busy for net.Server is EADDRINUSE, without a host as well', async () => {
    const theirs = net.createServer().listen(0)
    await new Promise((resolve) => theirs.once('listening', resolve))
    const { port } = theirs.address() as net.AddressInfo
    expect(await failing({ port })).toMatchObject({ code: 'EADDRINUSE', op: 'listen' })
    theirs.close()
  })

  test('an address that is not ours is EADDRNOTAVAIL', async () => {
    expect(await failing({ host: '192.0.2.1', port: 0 })).toMatchObject({ code: 'EADDRNOTAVAIL', op: 'listen' })
  })

  test('a path that exists is EADDRINUSE, though nobody listens there', async () => {
    const path = freshPath()
    writeFileSync(path, 'stale')
    const error = await failing({ path })
    expect(error).toMatchObject({ code: 'EADDRINUSE', op: 'listen', localAddress: path })
    expect(existsSync(path)).toBe(true)
  })

  test('a directory that is missing is ENOENT, one that is a file ENOTDIR', async () => {
    expect(await failing({ path: `${freshPath()}/missing/s` })).toMatchObject({ code: 'ENOENT', op: 'listen' })
    const file = freshPath()
    writeFileSync(file, '')
    expect(await failing({ path: `${file}/s` })).toMatchObject({ code: 'ENOTDIR', op: 'listen' })
  })

  test('a name without an address', async () => {
    const error = await failing({ host: 'no-such-host.invalid', port: 0 })
    expect(error).toMatchObject({ op: 'listen' })
    expect(['ENOTFOUND', 'EAI_AGAIN']).toContain(error.code)
  })

  test('a descriptor that is no listening socket', async () => {
    expect(await failing({ fd: 0xffff })).toMatchObject({ code: 'EBADF', op: 'listen' })
    expect(await failing({ fd: 2 })).toMatchObject({ op: 'listen' })
  })
})

describe('close()', () => {
  test.each(transports.map((transport) => [transport.name, transport] as const))(
    '%s: frees the address at once; connections stay',
    async (_, transport) => {
      const listener = await serve(transport, echoHandlers)
      const peer = await connect(listener)
      await until('it is accepted', () => listener.stats().accepted === 1)
      await listener.close()
      await listener.close()
      expect(listener.listening).toBe(false)
      const again = track(await listen(placeOf(listener), echoHandlers))
      peer.socket.write('old')
      await peer.bytes(3)
      const fresh = await connect(again)
      fresh.socket.write('new')
      await fresh.bytes(3)
      expect(again.stats().accepted).toBe(1)
    },
  )

  test('closed and opened again inside one dispatch: each listener keeps the connections it accepted', async () => {
    const owners: string[] = []
    const reopened = deferred<Listener>()
    const styleOf = (name: string): Handlers => ({
      open(conn) {
        owners.push(`${name} ${conn.listener === old}`)
        if (owners.length > 1) return
        void old.close()
        // A path needs no lookup: it is open, with an index of its own, when listen() has returned its promise.
        void listen({ path: freshPath() }, styleOf('new')).then(reopened.resolve, reopened.reject)
      },
      data: (conn, chunk) => void conn.write(`${name} ${conn.listener === old} ${chunk}`),
    })
    const old = await serve(unix, styleOf('old'))
    // All of them in the kernel's queue before the loop looks: one batch.
    const peers = Array.from({ length: 8 }, () => new Peer({ path: old.address }))
    for (const peer of peers) peer.socket.write('hello')
    const fresh = track(await within('it opens again', reopened.promise))
    for (const peer of peers) expect((await peer.bytes(14)).toString()).toBe('old true hello')
    expect(owners).toEqual(Array(8).fill('old true'))
    expect(old.stats()).toMatchObject({ accepted: 8, open: 8 })
    expect(fresh.stats()).toMatchObject({ accepted: 0, open: 0 })
    const late = await connect(fresh)
    late.socket.write('hello')
    expect((await late.bytes(15)).toString()).toBe('new false hello')
  })

  test('removes its socket file, and only its own', async () => {
    const own = await serve(unix, ignore)
    expect(statSync(own.address).isSocket()).toBe(true)
    await own.close()
    expect(existsSync(own.address)).toBe(false)

    const replaced = await serve(unix, ignore)
    rmSync(replaced.address)
    const heir = track(await listen({ path: replaced.address }, ignore))
    await replaced.close()
    expect(existsSync(replaced.address)).toBe(true)
    await connect(heir)
  })

  test('a file that stands where the socket was is not removed', async () => {
    const listener = await serve(unix, ignore)
    rmSync(listener.address)
    writeFileSync(listener.address, 'precious')
    await listener.close()
    expect(existsSync(listener.address)).toBe(true)
  })

  test('shutdown() closes every connection and waits for it', async () => {
    const listener = await serve(tcp4, { ...echoHandlers, end: (conn) => conn.close() })
    const peers = await Promise.all(Array.from({ length: 20 }, () => connect(listener)))
    await until('all are accepted', () => listener.stats().accepted === 20)
    await within('it shuts down', Promise.all([listener.shutdown(), listener.shutdown()]))
    expect(listener.stats()).toMatchObject({ accepted: 20, closed: 20, open: 0 })
    expect([...listener.connections]).toEqual([])
    await within('all peers go', Promise.all(peers.map((peer) => peer.closed)))
    await listener[Symbol.asyncDispose]()
  })

  test('a signal closes it; one that has aborted already prevents it', async () => {
    const controller = new AbortController()
    const listener = await serve(tcp4, ignore, { signal: controller.signal })
    controller.abort()
    expect(listener.listening).toBe(false)
    await expect(connect(listener)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    const before = descriptorCount()
    const reason = new Error('changed my mind')
    const options = { host: '127.0.0.1', port: 0, signal: AbortSignal.abort(reason) }
    expect(await rejection(listen(options, ignore))).toBe(reason)
    expect(descriptorCount()).toBe(before)
  })

  test('a signal that aborts while the host is looked up prevents it', async () => {
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    const pending = rejection(listen({ host: 'localhost', port: 0, signal: controller.signal }, ignore))
    controller.abort(reason)
    expect(await pending).toBe(reason)
  })
})

describe('accepting by iteration', () => {
  const echoOne = async (conn: Conn) => {
    for await (const chunk of conn) conn.write(chunk)
    conn.close()
  }

  test('gets every connection, until the listener is closed', async () => {
    const listener = await serve(tcp4)
    const accepted: Conn[] = []
    const loop = (async () => {
      for await (const conn of listener) {
        accepted.push(conn)
        void echoOne(conn)
      }
    })()
    for (let i = 0; i < 20; i++) {
      const peer = await connect(listener)
      peer.socket.end(`hello ${i}`)
      await within('the echo ends', peer.ended)
      expect(peer.received.toString()).toBe(`hello ${i}`)
    }
    await listener.close()
    await within('the loop ends', loop)
    expect(accepted.length).toBe(20)
  })

  test('leaving the loop closes the listener', async () => {
    const listener = await serve(tcp4)
    const peer = await connect(listener)
    for await (const conn of listener) {
      conn.close()
      break
    }
    expect(listener.listening).toBe(false)
    await within('the peer gets FIN', peer.ended)
  })

  test('leaving the loop closes those that nobody has taken, and the process may end', async () => {
    const listener = await serve(tcp4)
    const peers = await Promise.all(Array.from({ length: 20 }, () => connect(listener)))
    await until('all are accepted', () => listener.stats().accepted === 20)
    for (const peer of peers) peer.socket.write('unread')
    for await (const conn of listener) {
      conn.close()
      break
    }
    for (const peer of peers) await within('the peer gets FIN', peer.ended)
    await allClosed(listener)
    for (const peer of peers) expect(await within('the peer closes', peer.closed)).toBeUndefined()
  })

  test('connections that nobody takes wait in the kernel, and none is lost', async () => {
    const listener = await serve(tcp4)
    const peers: Peer[] = []
    for (let i = 0; i < 600; i++) peers.push(await connect(listener))
    await turn()
    expect(listener.stats().accepted).toBeLessThan(600)
    for (const [i, peer] of peers.entries()) peer.socket.end(`${i}`)
    let taken = 0
    for await (const conn of listener) {
      void echoOne(conn)
      if (++taken === 600) break
    }
    await within('all are answered', Promise.all(peers.map((peer) => peer.ended)))
    for (const [i, peer] of peers.entries()) expect(peer.received.toString()).toBe(`${i}`)
    await allClosed(listener)
  })

  test('several loops share the connections', async () => {
    const listener = await serve(tcp4)
    const counts = [0, 0, 0]
    const loops = counts.map(async (_, i) => {
      for await (const conn of listener) {
        counts[i] = counts[i]! + 1
        conn.close()
      }
    })
    const peers = await Promise.all(Array.from({ length: 30 }, () => connect(listener)))
    await within('all are closed', Promise.all(peers.map((peer) => peer.ended)))
    await listener.close()
    await within('the loops end', Promise.all(loops))
    expect(counts.reduce((sum, count) => sum + count)).toBe(30)
  })

  test('with handlers or a task there is no iteration', async () => {
    for (const style of [ignore, async () => {}]) {
      const listener = await serve(tcp4, style)
      expect(() => listener[Symbol.asyncIterator]()).toThrow(expect.objectContaining({ code: 'ERR_WRONG_STYLE' }))
    }
  })
})

// Only Node hands a server's socket to a child process (Bun: oven-sh/bun#39220).
test.runIf(isNode)(
  'an inherited descriptor is taken over: net.Server, edgewire in a child, and edgewire from edgewire',
  async () => {
    const end = await run(`
    import { spawn } from 'node:child_process'
    const child = \`
      import { listen } from 'edgewire'
      const server = await listen({ fd: 3 }, { data(conn, chunk) { conn.write(chunk) } })
      process.stdout.write(server.port + ' ' + server.address + ' ' + server.family + '\\\\n')
      process.stdin.on('end', () => server.shutdown()).resume()
    \`
    const theirs = net.createServer(() => print('the parent accepted it')).listen(0, '127.0.0.1')
    await once(theirs, 'listening')
    const { port } = theirs.address()
    const kid = spawn(process.execPath, ['--input-type=module', '-e', child], { stdio: ['pipe', 'pipe', 'inherit', theirs._handle] })
    const [line] = await once(kid.stdout, 'data')
    print(String(line).trim() === port + ' 127.0.0.1 IPv4')
    theirs.close()
    const client = net.connect(port, '127.0.0.1')
    client.write('hello')
    print(String(await once(client, 'data')))
    client.destroy()
    kid.stdin.end()
    print(await once(kid, 'exit'))
  `)
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: 'true\nhello\n[0,null]\n' })
  },
)

test('every style of serving can be dialed by edgewire itself', async () => {
  const listeners: Listener[] = [await serve(tcp4, echoHandlers), await serve(unix, echoHandlers)]
  for (const listener of listeners) {
    const conn = await dial(placeOf(listener))
    conn.write('ping')
    const into = new Uint8Array(10)
    expect(await within('the echo', conn.read(into))).toBe(4)
    await within('it is disposed', conn[Symbol.asyncDispose]())
  }
})
