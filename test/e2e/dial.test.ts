// dial(): names, failures, deadlines and signals; always with servers of node:net or on addresses of this machine.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { type Conn, dial, NetError } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { finish, silentPort, theirs } from './dial_targets.ts'
import {
  deferred,
  descriptorCount,
  expectBytes,
  freshPath,
  MiB,
  randomBytes,
  rejection,
  sleep,
  until,
  within,
} from './harness.ts'
import { Program, run } from './programs.ts'
import { isNode, moduleArguments } from './runtime.ts'

describe.each([
  ['127.0.0.1', { host: '127.0.0.1' }],
  ['::1', { host: '::1' }],
  ['localhost', { host: 'localhost' }],
  ['the default host', {}],
])('%s', (_, where) => {
  test('connects to node:net, and every byte comes back', async () => {
    const { port } = await theirs({ port: 0 })
    const conn = await dial({ ...where, port })
    expect(conn.state).toBe('open')
    expect(conn.remotePort).toBe(port)
    expect(conn.listener).toBeUndefined()
    const payload = randomBytes(2 * MiB)
    conn.write(payload)
    conn.closeWrite()
    const parts: Buffer[] = []
    for await (const chunk of conn) parts.push(chunk)
    expectBytes(Buffer.concat(parts), payload)
    expect(await within('it ends', conn.closed)).toBeUndefined()
  })
})

test('handlers: `open` comes before dial() resolves, then data, end and close', async () => {
  const { port } = await theirs({ port: 0, host: '127.0.0.1' })
  const seen: string[] = []
  const closed = deferred<unknown>()
  const conn = await dial(
    { host: '127.0.0.1', port },
    {
      open: () => seen.push('open'),
      data(it, chunk) {
        seen.push(`data ${chunk}`)
        it.closeWrite()
      },
      end: () => seen.push('end'),
      close: (_, error) => closed.resolve(error),
    },
  )
  seen.push('resolved')
  conn.write('hello')
  expect(await within('it ends', closed.promise)).toBeUndefined()
  expect(seen).toEqual(['open', 'resolved', 'data hello', 'end'])
})

test('handlers: `open` comes first, also when connection, greeting and FIN arrive together', async () => {
  const program = new Program(
    moduleArguments(`import net from 'node:net'
     const server = net.createServer((socket) => socket.on('error', () => {}).end('220 hello'))
     server.listen(0, '127.0.0.1', () => process.stdout.write(server.address().port + '\\n'))`),
  )
  const port = Number(await program.line())
  for (let i = 0; i < 5; i++) {
    const seen: string[] = []
    const closed = deferred()
    const dialed = dial(
      { host: '127.0.0.1', port },
      {
        open: () => seen.push('open'),
        data: (_, chunk) => seen.push(`data ${chunk}`),
        end(conn) {
          seen.push('end')
          conn.close()
        },
        close: () => closed.resolve(),
      },
    )
    for (let tick = 0; tick < 10; tick++) await null // until connect(2) has been called
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30) // until everything lies in the kernel
    await within('it connects', dialed)
    await within('it ends', closed.promise)
    expect(seen).toEqual(['open', 'data 220 hello', 'end'])
  }
})

test('a Unix socket', async () => {
  const path = freshPath()
  await theirs({ path })
  const conn = await dial({ path })
  expect(conn).toMatchObject({ remoteAddress: path, remoteFamily: 'unix' })
  conn.write('hello')
  expect(await within('the echo', conn.read(new Uint8Array(9)))).toBe(5)
  await finish(conn)
})

/** Dials from a port that was free a moment ago; another process may have taken it, and then from the next. */
async function dialFromFreePort(port: number): Promise<Conn> {
  for (let tries = 0; ; tries++) {
    // Of a listener nothing is left; a closed connection's port may be in TIME_WAIT.
    const { server, port: localPort } = await theirs({ port: 0, host: '127.0.0.1' })
    await new Promise((resolve) => server.close(resolve))
    try {
      const conn = await dial({ host: '127.0.0.1', port, localPort })
      expect(conn.localPort).toBe(localPort)
      return conn
    } catch (error) {
      if ((error as NetError).code !== 'EADDRINUSE' || tries === 20) throw error
    }
  }
}

test('localAddress and localPort are used', async () => {
  const { port } = await theirs({ port: 0, host: '127.0.0.1' })
  const conn = await dial({ host: '127.0.0.1', port, localAddress: '127.0.0.2' })
  expect(conn.localAddress).toBe('127.0.0.2')
  await finish(conn)
  const again = await dialFromFreePort(port)
  await finish(again)
  const error = await rejection(dial({ host: '127.0.0.1', port, localAddress: '192.0.2.1' }))
  expect(error).toMatchObject({ code: 'EADDRNOTAVAIL', op: 'dial' })
})

test('socket options are accepted on an open connection', async () => {
  const { port } = await theirs({ port: 0, host: '127.0.0.1' })
  const conn = await dial({ host: '127.0.0.1', port, noDelay: false })
  expect(conn.setNoDelay().setNoDelay(false).setKeepAlive(true, 5000).setKeepAlive(false).ref().unref().ref()).toBe(
    conn,
  )
  await finish(conn)
})

test.runIf(existsSync('/proc/net/tcp'))('setKeepAlive(true, ms): the first probe after so long', async () => {
  const { port } = await theirs({ port: 0, host: '127.0.0.1' })
  const conn = await dial({ host: '127.0.0.1', port })
  // proc_pid_net(5): `tr` is 02 for the keep-alive timer, `tm->when` what is left of it, in hundredths of a second.
  const timer = () => {
    // Two connections to different places may have one local port.
    const [local, remote] = [conn.localPort!, port].map(
      (each) => `:${each.toString(16).toUpperCase().padStart(4, '0')}`,
    )
    const row = readFileSync('/proc/net/tcp', 'latin1')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .find((words) => words[1]?.endsWith(local!) && words[2]?.endsWith(remote!))
    const [running, when] = row![5]!.split(':') as [string, string]
    return running === '02' ? Number.parseInt(when, 16) / 100 : undefined
  }
  expect(timer()).toBeUndefined()
  // Counted from when the connection was last heard of: some seconds may have gone by.
  conn.setKeepAlive(true, 30_000)
  expect(timer()).toBeGreaterThan(15)
  expect(timer()).toBeLessThanOrEqual(30)
  conn.setKeepAlive(true, 90_000)
  expect(timer()).toBeGreaterThan(80)
  conn.setKeepAlive(false)
  expect(timer()).toBeUndefined()
  await finish(conn)
})

describe('failures', () => {
  async function failing(options: Parameters<typeof dial>[0]) {
    const before = descriptorCount()
    const error = await rejection(dial(options))
    await until('no descriptor is left', () => descriptorCount() === before)
    return error
  }

  test.each([
    ['127.0.0.1', '127.0.0.1:1'],
    ['::1', '[::1]:1'],
  ])('nobody listens on %s: ECONNREFUSED with both addresses', async (host, remote) => {
    const error = await failing({ host, port: 1 })
    expect(error).toBeInstanceOf(NetError)
    expect(error).toMatchObject({ code: 'ECONNREFUSED', op: 'dial', timeout: false, remoteAddress: remote })
    expect(error.message).toMatch(/^dial tcp .*: connection refused$/)
  })

  test('every address of a name refuses: ECONNREFUSED', async () => {
    expect(await failing({ host: 'localhost', port: 1 })).toMatchObject({ code: 'ECONNREFUSED', op: 'dial' })
  })

  test('a name without an address', async () => {
    const error = await failing({ host: 'no-such-host.invalid', port: 1 })
    expect(error).toMatchObject({ op: 'dial' })
    expect(['ENOTFOUND', 'EAI_AGAIN']).toContain(error.code)
  })

  test('a path that nobody listens on, or that is missing', async () => {
    const path = freshPath()
    expect(await failing({ path })).toMatchObject({ code: 'ENOENT', op: 'dial', remoteAddress: path })
    writeFileSync(path, '')
    expect(await failing({ path })).toMatchObject({ code: 'ECONNREFUSED', op: 'dial' })
  })

  test.runIf(isNode)('timeoutMs: ERR_DEADLINE_EXCEEDED when nobody answers', async () => {
    const port = await silentPort()
    const error = await failing({ host: '127.0.0.1', port, timeoutMs: 50 })
    expect(error).toBeInstanceOf(NetError)
    expect(error).toMatchObject({
      code: 'ERR_DEADLINE_EXCEEDED',
      op: 'dial',
      timeout: true,
      remoteAddress: `127.0.0.1:${port}`,
    })
  })

  test.runIf(isNode)('a signal that aborts while dialing rejects with its reason', async () => {
    const port = await silentPort()
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    const pending = failing({ host: '127.0.0.1', port, signal: controller.signal })
    setTimeout(() => controller.abort(reason), 20)
    expect(await pending).toBe(reason)
    expect(await failing({ host: '127.0.0.1', port, signal: AbortSignal.timeout(20) })).toMatchObject({
      name: 'TimeoutError',
    })
  })

  test('a signal that has aborted prevents it; one that aborts during the lookup too', async () => {
    const { port } = await theirs({ port: 0, host: '127.0.0.1' })
    const reason = new Error('changed my mind')
    expect(await failing({ host: '127.0.0.1', port, signal: AbortSignal.abort(reason) })).toBe(reason)
    const controller = new AbortController()
    const pending = failing({ host: 'localhost', port, signal: controller.signal })
    controller.abort(reason)
    expect(await pending).toBe(reason)
  })

  test('a signal that aborts after dialing changes nothing', async () => {
    const { port } = await theirs({ port: 0, host: '127.0.0.1' })
    const controller = new AbortController()
    const conn = await dial({ host: '127.0.0.1', port, signal: controller.signal, timeoutMs: 30 })
    controller.abort()
    await sleep(50)
    expect(conn.state).toBe('open')
    await finish(conn)
  })

  test('handlers of a connection that never came are never called', async () => {
    const seen: string[] = []
    const note = (what: string) => () => void seen.push(what)
    const handlers = { open: note('open'), data: note('data'), end: note('end'), close: note('close') }
    expect(await rejection(dial({ host: '127.0.0.1', port: 1 }, handlers))).toMatchObject({ code: 'ECONNREFUSED' })
    await sleep(5)
    expect(seen).toEqual([])
  })

  test.runIf(isNode)('nor those of a connection that was given up: no `close` without `open`', async () => {
    const port = await silentPort()
    const seen: string[] = []
    const note = (what: string) => () => void seen.push(what)
    const handlers = { open: note('open'), data: note('data'), end: note('end'), close: note('close') }
    const where = { host: '127.0.0.1', port }
    expect(await rejection(dial({ ...where, timeoutMs: 30 }, handlers))).toMatchObject({
      code: 'ERR_DEADLINE_EXCEEDED',
    })
    const signal = AbortSignal.timeout(30)
    expect(await rejection(dial({ ...where, signal }, handlers))).toMatchObject({ name: 'TimeoutError' })
    await sleep(20)
    expect(seen).toEqual([])
  })

  test('a handler that throws: an uncaught exception, the connection is reset', async () => {
    const end = await run(`
      process.on('uncaughtException', (error) => print(error.message))
      const server = net.createServer((s) => s.on('error', (e) => { print(e.code); server.close() }).write('x')).listen(0, '127.0.0.1')
      await once(server, 'listening')
      await dial({ host: '127.0.0.1', port: server.address().port }, { data() { throw new Error('boom') } })
    `)
    expect(end, end.stderr).toMatchObject({ code: 0 })
    expect(end.stdout.split('\n').filter(Boolean).sort()).toEqual(['ECONNRESET', 'boom'])
  })
})

test('a hundred dials at once', async () => {
  const { port } = await theirs({ port: 0, host: '127.0.0.1' })
  const conns = await within(
    'all connect',
    Promise.all(Array.from({ length: 100 }, () => dial({ host: '127.0.0.1', port }))),
  )
  await Promise.all(
    conns.map(async (conn, i) => {
      conn.write(`${i}`.padEnd(10))
      const into = Buffer.alloc(10)
      for (let at = 0; at < 10; ) at += (await within('the echo', conn.read(into.subarray(at))))!
      expect(into.toString().trim()).toBe(`${i}`)
      await conn[Symbol.asyncDispose]()
    }),
  )
})
