// dial() with names: several addresses raced, their failures in one error, giving up in every phase, and real DNS.

import { AsyncLocalStorage } from 'node:async_hooks'
import net from 'node:net'
import { type Conn, createResolver, type DialOptions, dial, type LookupFn, NetError } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { finish, silentPort, theirs } from './dial_targets.ts'
import { a, aaaa, DnsServer, Rcode, type Respond, records } from './dns_server.ts'
import { atEnd, deferred, descriptorCount, rejection, sleep, until, within } from './harness.ts'
import { run } from './programs.ts'
import { isDeno, isNode } from './runtime.ts'

/** A look-up that gives these addresses. */
const giving =
  (...addresses: string[]): LookupFn =>
  async () =>
    addresses.map((address) => ({ address, family: net.isIPv6(address) ? 6 : 4 }))

/** connect(2) answers ENETUNREACH at once: a broadcast address. */
const Unreachable = '127.255.255.255'

/** A server of node:net on one address, and its connections: `open` now, `total` ever. */
async function counting(host: string, port = 0) {
  const sockets = new Set<net.Socket>()
  const counts = { port, total: 0, reset: 0, sockets }
  const server = net.createServer((socket) => {
    counts.total++
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => counts.reset++)
    socket.resume()
  })
  server.listen(port, host)
  await within('node:net listens', new Promise((resolve) => server.once('listening', resolve)))
  counts.port = (server.address() as net.AddressInfo).port
  atEnd(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return counts
}

/** A port on which 127.0.0.2 never answers, and 127.0.0.3 has a server. */
async function silentAndLive() {
  const live = await counting('127.0.0.3')
  await silentPort('127.0.0.2', live.port)
  return live
}

/** Handlers that note what they are told. */
function noting() {
  const seen: string[] = []
  const note = (what: string) => (conn: Conn) => void seen.push(`${what} ${conn.remoteAddress}`)
  return { seen, handlers: { open: note('open'), data: note('data'), end: note('end'), close: note('close') } }
}

describe('several addresses', () => {
  test('one that refuses is passed over at once, whatever the delay', async () => {
    const live = await counting('127.0.0.3')
    const lookup = giving('127.0.0.2', '::1', '127.0.0.3')
    const conn = await within('a connection', dial({ host: 'x.test', port: live.port, lookup, attemptDelayMs: 60_000 }))
    expect(conn.remoteAddress).toBe('127.0.0.3')
    await until('the server has it', () => live.total === 1)
    await finish(conn)
  })

  test.runIf(isNode)(
    'the next one is tried while one is silent, which is then given up and heard of no more',
    async () => {
      const live = await silentAndLive()
      const before = descriptorCount()
      const { seen, handlers } = noting()
      const lookup = giving('127.0.0.2', '127.0.0.3')
      const conn = await dial({ host: 'x.test', port: live.port, lookup, attemptDelayMs: 10 }, handlers)
      expect(conn.remoteAddress).toBe('127.0.0.3')
      // One end here, the other at the server.
      await until('the silent one is gone', () => descriptorCount() === before + 2)
      await finish(conn)
      expect(seen).toEqual(['open 127.0.0.3', 'close 127.0.0.3'])
    },
  )

  test.runIf(isNode)('attemptTimeoutMs gives up on one of them', async () => {
    const live = await silentAndLive()
    const lookup = giving('127.0.0.2', '127.0.0.3')
    const options = { port: live.port, attemptTimeoutMs: 30, attemptDelayMs: 60_000 }
    const conn = await within('a connection', dial({ ...options, host: 'x.test', lookup }))
    expect(conn.remoteAddress).toBe('127.0.0.3')
    await finish(conn)
    const error = await rejection(dial({ ...options, host: '127.0.0.2' }))
    expect(error).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', timeout: true, errors: [] })
    expect(error.message).toBe(`dial tcp 127.0.0.2:${live.port}: no connection within 30 ms`)
  })

  test.runIf(isNode)('two that connect in the same turn: one is told, the other is reset', async () => {
    const first = await counting('127.0.0.2')
    const second = await counting('127.0.0.3', first.port)
    const { seen, handlers } = noting()
    const lookup = giving('127.0.0.2', '127.0.0.3')
    const dialed = dial({ host: 'x.test', port: first.port, lookup, attemptDelayMs: 10 }, handlers)
    for (let tick = 0; tick < 50; tick++) await null // until the first one has been tried
    // The loop looks at its timers before it looks at sockets: the second one is tried before the first is seen to stand.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 40)
    const conn = await within('a connection', dialed)
    const address = conn.remoteAddress
    await until('both were connected', () => first.total + second.total === 2)
    await until('one is left', () => first.sockets.size + second.sockets.size === 1)
    expect(first.reset + second.reset).toBe(1)
    await finish(conn)
    expect(seen).toEqual([`open ${address}`, `close ${address}`])
  })

  test('family and localAddress choose among them', async () => {
    const { port } = await theirs({ port: 0 })
    for (const [options, address] of [
      [{}, '::1'],
      [{ family: 6 }, '::1'],
      [{ family: 4 }, '127.0.0.1'],
      [{ localAddress: '127.0.0.2' }, '127.0.0.1'],
    ] as [Partial<DialOptions>, string][]) {
      const conn = await dial({ host: 'localhost', port, ...options })
      expect(conn.remoteAddress).toBe(address)
      await finish(conn)
    }
    const literal = await dial({ host: '::1', port, family: 6, localAddress: '::1' })
    await finish(literal)
  })

  test('fastOpen, where it cannot be had, changes nothing', async () => {
    const { port } = await theirs({ port: 0, host: '127.0.0.1' })
    for (let i = 0; i < 3; i++) {
      const conn = await dial({ host: '127.0.0.1', port, fastOpen: true })
      conn.write('hello')
      expect(await within('the echo', conn.read(new Uint8Array(9)))).toBe(5)
      await finish(conn)
    }
  })
})

describe('when all have failed', () => {
  /** A port that nobody has on these addresses. */
  async function freePort(): Promise<number> {
    const server = net.createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as net.AddressInfo
    await new Promise((resolve) => server.close(resolve))
    return port
  }

  test('one error with the code of all, and each address in it', async () => {
    const port = await freePort()
    const before = descriptorCount()
    const { seen, handlers } = noting()
    const lookup = giving('127.0.0.2', '127.0.0.3')
    const error = await rejection(dial({ host: 'x.test', port, lookup }, handlers))
    expect(error).toBeInstanceOf(NetError)
    expect(error).toMatchObject({ code: 'ECONNREFUSED', op: 'dial', timeout: false, remoteAddress: `x.test:${port}` })
    const errors = error.errors as NetError[]
    expect(errors.map(({ code, remoteAddress }) => `${code} ${remoteAddress}`)).toEqual([
      `ECONNREFUSED 127.0.0.2:${port}`,
      `ECONNREFUSED 127.0.0.3:${port}`,
    ])
    expect(error.cause).toBe(errors[0])
    expect(error.message).toBe(
      `dial tcp x.test:${port}: no address could be reached ` +
        `(127.0.0.2:${port}: connection refused; 127.0.0.3:${port}: connection refused)`,
    )
    expect(descriptorCount()).toBe(before)
    expect(seen).toEqual([])
  })

  test('the code is that of an address to which there is a way', async () => {
    const port = await freePort()
    const lookup = giving(Unreachable, '127.0.0.2')
    const error = await rejection(dial({ host: 'x.test', port, lookup }))
    expect(error).toMatchObject({ code: 'ECONNREFUSED', cause: { remoteAddress: `127.0.0.2:${port}` } })
    expect((error.errors as NetError[]).map(({ code }) => code)).toEqual(['ENETUNREACH', 'ECONNREFUSED'])
    const nowhere = await rejection(dial({ host: 'x.test', port, lookup: giving(Unreachable, '127.255.255.255') }))
    expect(nowhere).toMatchObject({ code: 'ENETUNREACH', errors: [] })
  })

  test('many: the message names the first eight, `errors` has all', async () => {
    const port = await freePort()
    const lookup = giving(...Array.from({ length: 20 }, (_, i) => `127.0.1.${i}`))
    const error = await rejection(dial({ host: 'x.test', port, lookup }))
    expect(error.errors).toHaveLength(20)
    expect(error.message).toContain('127.0.1.7:')
    expect(error.message).not.toContain('127.0.1.8:')
    expect(error.message).toMatch(/; 12 more\)$/)
  })

  test.runIf(isNode)('timeoutMs: what has failed by then, and what was still silent', async () => {
    const port = await silentPort('127.0.0.2')
    const lookup = giving('127.0.0.3', '127.0.0.2')
    const error = await rejection(dial({ host: 'x.test', port, lookup, timeoutMs: 1_000 }))
    expect(error).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', timeout: true })
    expect((error.errors as NetError[]).map(({ code }) => code)).toEqual(['ECONNREFUSED', 'ERR_DEADLINE_EXCEEDED'])
    expect(error.message).toBe(
      `dial tcp x.test:${port}: no connection within 1000 ms (127.0.0.3:${port}: connection refused; 127.0.0.2:${port}: no answer)`,
    )
  })
})

test('a resolver of the caller\u2019s may answer anything, and dial() has an end', async () => {
  const answers: [() => unknown, string][] = [
    [() => Promise.reject(null), 'ENOTFOUND'],
    [() => Promise.reject(Object.assign(new Error('x'), { code: 'EMINE' })), 'EMINE'],
    [
      () => {
        throw new Error('x')
      },
      'ENOTFOUND',
    ],
    [async () => undefined, 'ENOTFOUND'],
    [async () => ({ addresses: [] }), 'ENODATA'],
    [async () => ({ addresses: [{ address: 'nonsense', family: 4 }] }), 'ERR_INVALID_ARG'],
  ]
  for (const [resolve, code] of answers) {
    const resolver = { resolve } as never
    expect(await rejection(dial({ host: 'a name: mine', port: 1, resolver }))).toMatchObject({ code, op: 'dial' })
  }
})

const junk: unknown[] = [5, {}, { addresses: 7 }, { addresses: [null] }, { addresses: [{ address: 5, family: 4 }] }]
junk.push({ addresses: [{ address: 'here', family: 4 }] })

test.each(junk)('a resolver that gives %j fails the dial', async (found) => {
  const resolver = { resolve: async () => found } as never
  const error = await within('it fails', rejection(dial({ host: 'x.test', port: 1, resolver })))
  expect(error).toMatchObject({ name: 'NetError', op: 'dial' })
})

describe('giving up', () => {
  const silence: LookupFn = () => new Promise(() => {})
  const phases: [string, Partial<DialOptions>][] = [
    ['while the name is looked up', { lookup: silence }],
    ['while one address is silent', { lookup: giving('127.0.0.2') }],
    ['when one has failed', { lookup: giving('127.0.0.3', '127.0.0.2') }],
  ]
  test.runIf(isNode).each(phases)('%s', async (_, options) => {
    const port = await silentPort('127.0.0.2')
    const before = descriptorCount()
    for (const how of ['signal', 'timeoutMs'] as const) {
      const { seen, handlers } = noting()
      const controller = new AbortController()
      const reason = new Error('changed my mind')
      const pending = rejection(
        dial(
          {
            host: 'x.test',
            port,
            ...options,
            ...(how === 'signal' ? { signal: controller.signal } : { timeoutMs: 30 }),
          },
          handlers,
        ),
      )
      await sleep(20)
      controller.abort(reason)
      if (how === 'signal') expect(await pending).toBe(reason)
      else expect(await pending).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' })
      await until('no descriptor is left', () => descriptorCount() === before)
      expect(seen).toEqual([])
    }
  })

  test('the look-up is told', async () => {
    const seen = deferred<AbortSignal>()
    const lookup: LookupFn = (_, { signal }) => {
      seen.resolve(signal!)
      return new Promise(() => {})
    }
    const controller = new AbortController()
    const pending = rejection(dial({ host: 'x.test', port: 1, lookup, signal: controller.signal }))
    const signal = await within('the look-up', seen.promise)
    expect(signal.aborted).toBe(false)
    controller.abort()
    await pending
    expect(signal.aborted).toBe(true)
  })

  test('while IPv4 addresses wait for IPv6 ones: nothing is tried', async () => {
    const live = await counting('127.0.0.1')
    const controller = new AbortController()
    const asked: number[] = []
    const resolver = {
      ...createResolver(),
      resolve: async (host: string, { family }: { family?: number } = {}) => {
        asked.push(family!)
        if (family === 6) await new Promise(() => {})
        setImmediate(() => controller.abort(new Error('changed my mind')))
        return { host, addresses: [{ address: '127.0.0.1', family: 4 as const }], expiresAt: 0, stale: false }
      },
    }
    const error = await rejection(dial({ host: 'x.test', port: live.port, resolver, signal: controller.signal }))
    expect(error.message).toBe('changed my mind')
    await sleep(60)
    expect(asked).toEqual([6, 4])
    expect(live.total).toBe(0)
  })
})

describe('DNS', () => {
  async function resolving(respond: Respond) {
    const dns = await DnsServer.start(respond)
    const resolver = createResolver({ servers: [dns.server], hostsFile: false })
    atEnd(() => resolver.close())
    return { dns, resolver }
  }

  test('an AAAA that does not come holds nobody up', async () => {
    const gate = deferred()
    const { port } = await theirs({ port: 0 })
    const { dns, resolver } = await resolving(async (question) => {
      if (question.type === 'AAAA') await gate.promise
      return records(a('x.test', '127.0.0.1'), aaaa('x.test', '::1'))(question)
    })
    const conn = await within('a connection', dial({ host: 'x.test', port, resolver }))
    expect(conn.remoteAddress).toBe('127.0.0.1')
    await finish(conn)
    expect(dns.count('x.test')).toBe(2)
    gate.resolve()
    await until('both are known', () => resolver.peek('x.test') !== undefined)
    const next = await dial({ host: 'x.test', port, resolver })
    expect(next.remoteAddress).toBe('::1')
    await finish(next)
    expect(dns.count('x.test')).toBe(2)
  })

  test('nor does an A; and a late one is tried when the rest has failed', async () => {
    const gate = deferred()
    const { port } = await theirs({ port: 0 })
    const { resolver } = await resolving(async (question) => {
      if (question.type === 'A') await gate.promise
      return records(a('x.test', '127.0.0.1'), aaaa('x.test', '::1'))(question)
    })
    const conn = await within('a connection', dial({ host: 'x.test', port, resolver }))
    expect(conn.remoteAddress).toBe('::1')
    await finish(conn)
    const only4 = await counting('127.0.0.1')
    const pending = dial({ host: 'x.test', port: only4.port, resolver })
    await sleep(20)
    gate.resolve()
    const late = await within('a connection', pending)
    expect(late.remoteAddress).toBe('127.0.0.1')
    await finish(late)
  })

  // Deno calls every failure ENOTFOUND.
  test.skipIf(isDeno)('a failing server fails one family only; both failing is the error of dial()', async () => {
    const { port } = await theirs({ port: 0, host: '127.0.0.1' })
    const { resolver } = await resolving(({ name, type }) =>
      name === 'half.test' && type === 'A' ? { answers: [a(name, '127.0.0.1')] } : { rcode: Rcode.ServFail },
    )
    await finish(await dial({ host: 'half.test', port, resolver }))
    const error = await rejection(dial({ host: 'x.test', port, resolver }))
    expect(error).toMatchObject({ code: 'ESERVFAIL', op: 'dial', remoteAddress: `x.test:${port}`, errors: [] })
    expect(error.cause).toMatchObject({ code: 'ESERVFAIL', op: 'resolve' })
    expect(error.message).toBe(`dial tcp x.test:${port}: the DNS server failed`)
  })

  test('no such name: ENOTFOUND; a server that is silent: ETIMEOUT, which is a timeout', async () => {
    const { resolver } = await resolving(() => ({ rcode: Rcode.NxDomain }))
    expect(await rejection(dial({ host: 'x.test', port: 1, resolver }))).toMatchObject({
      code: 'ENOTFOUND',
      op: 'dial',
      message: 'dial tcp x.test:1: there is no such name',
    })
    const silent = await DnsServer.start(() => undefined)
    const impatient = createResolver({ servers: [silent.server], timeoutMs: 20, tries: 1 })
    const error = await rejection(dial({ host: 'x.test', port: 1, resolver: impatient }))
    expect(error).toMatchObject({ code: 'ETIMEOUT', op: 'dial', timeout: true })
  })

  test('handlers keep the context of the dial() call', async () => {
    const { port } = await theirs({ port: 0, host: '127.0.0.1' })
    const { resolver } = await resolving(records(a('x.test', '127.0.0.1')))
    const storage = new AsyncLocalStorage<string>()
    const told = deferred<string | undefined>()
    const conn = await storage.run('mine', () =>
      dial({ host: 'x.test', port, resolver }, { data: () => told.resolve(storage.getStore()) }),
    )
    conn.write('x')
    expect(await within('the echo', told.promise)).toBe('mine')
    await finish(conn)
  })

  test('the thread pool is not used: its only thread is busy', async () => {
    const { dns } = await resolving(records(a('x.test', '127.0.0.1')))
    const end = await run(
      `
      import { pbkdf2 } from 'node:crypto'
      import { createResolver } from 'edgewire'
      const server = net.createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
      await once(server, 'listening')
      const { port } = server.address()
      pbkdf2('x', 'y', 4_000_000, 64, 'sha512', () => print('pool'))
      const resolver = createResolver({ servers: [process.env.DNS_SERVER] })
      for (const options of [{ host: 'x.test', resolver }, { host: 'localhost' }]) {
        const conn = await dial({ ...options, port })
        print(options.host)
        conn.abort()
      }
      server.close()
    `,
      { UV_THREADPOOL_SIZE: '1', DNS_SERVER: dns.server },
    )
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: 'x.test\nlocalhost\npool\n' })
  })
})

test.each<[string, Partial<DialOptions>]>([
  ['family', { family: 5 as 4 }],
  ['IPv6', { host: '127.0.0.1', family: 6 }],
  ['localAddress', { localAddress: '::1', family: 4 }],
  ['attemptDelayMs', { attemptDelayMs: 9 }],
  ['attemptTimeoutMs', { attemptTimeoutMs: -1 }],
  ['fastOpen', { fastOpen: 1 as unknown as boolean }],
  ['lookup', { lookup: 1 as unknown as LookupFn }],
  ['resolver', { resolver: {} as never }],
  ['either', { lookup: giving(), resolver: createResolver({ lookup: giving() }) }],
  ['host', { host: 'a b' }],
  ['host', { host: '127.1' }],
])('a wrong %s is refused before anything is opened', async (word, options) => {
  const before = descriptorCount()
  const error = await rejection(dial({ host: 'x.test', port: 1, ...options }))
  expect(error).toMatchObject({ code: 'ERR_INVALID_ARG', op: 'dial' })
  expect(error.message).toContain(word)
  expect(descriptorCount()).toBe(before)
})
