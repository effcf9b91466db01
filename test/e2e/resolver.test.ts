// The resolver against a DNS server of the test's own: what it asks, when, and what it makes of the answers.

import { setServers } from 'node:dns'
import { writeFileSync } from 'node:fs'
import { createResolver, NetError, type Resolver, type ResolverOptions } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { a, aaaa, cname, DnsServer, Rcode, type Reply, type Respond, records } from './dns_server.ts'
import { atEnd, deferred, freshPath, rejection, until, within } from './harness.ts'
import { isBun, isDeno, isNode } from './runtime.ts'

async function start(respond: Respond, options: ResolverOptions = {}): Promise<{ dns: DnsServer; resolver: Resolver }> {
  const dns = await DnsServer.start(respond)
  const resolver = createResolver({ servers: [dns.server], hostsFile: false, ...options })
  atEnd(() => resolver.close())
  return { dns, resolver }
}

const addressesOf = async (resolver: Resolver, host: string, options = {}) =>
  (await within(host, resolver.resolve(host, options))).addresses.map(({ address }) => address)

describe('asking', () => {
  test('A and AAAA are asked for at the same time; IPv6 comes first', async () => {
    const both = deferred()
    const { dns, resolver } = await start(async (question) => {
      if (dns.asked.length === 2) both.resolve()
      await both.promise // neither is answered before both have been asked for
      return records(a('x.test', '192.0.2.1'), a('x.test', '192.0.2.2'), aaaa('x.test', '2001:db8::1'))(question)
    })
    const before = Date.now()
    const found = await within('the answer', resolver.resolve('x.test'))
    expect(found).toMatchObject({ host: 'x.test', stale: false })
    expect(found.addresses.map(({ family }) => family)).toEqual([6, 4, 4])
    expect(found.addresses[0]!.address).toBe('2001:db8::1')
    expect(found.expiresAt).toBeGreaterThan(before + 60_000 - 1)
    expect(found.expiresAt).toBeLessThanOrEqual(Date.now() + 60_000)
    expect(resolver.stats()).toMatchObject({ names: 1, pending: 0, queries: 2, misses: 1, hits: 0, failures: 0 })
    expect(await resolver.resolve('X.test.')).toMatchObject({ host: 'X.test.', addresses: found.addresses })
    expect(dns.asked).toHaveLength(2)
    expect(resolver.stats().hits).toBe(1)
    expect(resolver.peek('x.TEST')?.addresses).toEqual(found.addresses)
    expect(resolver.stats().hits).toBe(1)
  })

  test('one family only: its query only, and the other when it is wanted', async () => {
    const { dns, resolver } = await start(records(a('x.test', '192.0.2.1'), aaaa('x.test', '2001:db8::1')))
    expect(await addressesOf(resolver, 'x.test', { family: 4 })).toEqual(['192.0.2.1'])
    expect(dns.asked.map(({ type }) => type)).toEqual(['A'])
    expect(resolver.peek('x.test')).toBeUndefined()
    expect(await addressesOf(resolver, 'x.test')).toEqual(['2001:db8::1', '192.0.2.1'])
    expect(dns.asked.map(({ type }) => type)).toEqual(['A', 'AAAA'])
    expect(await addressesOf(resolver, 'x.test', { family: 6 })).toEqual(['2001:db8::1'])
    expect(dns.asked).toHaveLength(2)
  })

  test('a chain of CNAMEs is followed', async () => {
    const { resolver } = await start(({ type }) => ({
      answers: [
        cname('www.test', 'edge.test', 30),
        cname('edge.test', 'host.test', 7),
        ...(type === 'A' ? [a('host.test', '192.0.2.7', 300)] : [aaaa('host.test', '2001:db8::7', 300)]),
      ],
    }))
    const { addresses, expiresAt } = await within('the answer', resolver.resolve('www.test'))
    expect(addresses.map(({ address }) => address)).toEqual(['2001:db8::7', '192.0.2.7'])
    // The shortest TTL of the chain counts, but for Deno, which looks at the addresses only.
    if (!isDeno) expect(expiresAt).toBeLessThanOrEqual(Date.now() + 7_000)
  })

  test('a truncated answer is asked for again over TCP; it may be huge', async () => {
    const addresses = Array.from({ length: 1_500 }, (_, i) => `10.1.${i >> 8}.${i & 255}`)
    const many = addresses.map((address) => a('x.test', address))
    const { dns, resolver } = await start(({ type }) => ({
      answers: type === 'A' ? many : [],
      truncated: type === 'A',
    }))
    const found = await addressesOf(resolver, 'x.test')
    expect([...found].sort()).toEqual([...addresses].sort())
    expect(dns.asked.filter(({ type }) => type === 'A').map(({ tcp }) => tcp)).toEqual([false, true])
  })

  test('an address that is there twice is given once', async () => {
    const { resolver } = await start(({ type }) => ({
      answers:
        type === 'A' ? [a('x.test', '192.0.2.1', 60), a('x.test', '192.0.2.2'), a('x.test', '192.0.2.1', 50)] : [],
    }))
    expect((await addressesOf(resolver, 'x.test')).sort()).toEqual(['192.0.2.1', '192.0.2.2'])
  })

  test('an international name is asked for in its ASCII form', async () => {
    const { resolver } = await start(records(a('xn--bcher-kva.test', '192.0.2.9')))
    expect(await addressesOf(resolver, 'B\u00fccher.test')).toEqual(['192.0.2.9'])
  })

  test('the servers of dns.setServers() are not this resolver\u2019s', async () => {
    const { resolver } = await start(records(a('x.test', '192.0.2.1')))
    setServers(['127.0.0.1:9'])
    expect(await addressesOf(resolver, 'x.test')).toEqual(['192.0.2.1'])
  })
})

describe('failures', () => {
  // Bun and Deno do not tell the two apart.
  test.runIf(isNode)('no such name; a name without addresses: both are remembered', async () => {
    const { dns, resolver } = await start(({ name }) => (name === 'none.test' ? { rcode: Rcode.NxDomain } : {}))
    const missing = await rejection(resolver.resolve('none.test'))
    expect(missing).toBeInstanceOf(NetError)
    expect(missing).toMatchObject({
      code: 'ENOTFOUND',
      op: 'resolve',
      timeout: false,
      message: 'resolve none.test: there is no such name',
    })
    expect(await rejection(resolver.resolve('empty.test'))).toMatchObject({ code: 'ENODATA' })
    for (const name of ['none.test', 'empty.test']) {
      await rejection(resolver.resolve(name))
      expect(resolver.peek(name)).toBeUndefined()
      expect(dns.count(name)).toBe(2)
    }
    expect(resolver.stats()).toMatchObject({ hits: 2, failures: 0 })
  })

  // Deno calls every failure ENOTFOUND.
  test.skipIf(isDeno)('SERVFAIL is remembered only briefly, and one family is enough', async () => {
    const { dns, resolver } = await start(({ name, type }) =>
      name === 'half.test' && type === 'A' ? { answers: [a(name, '192.0.2.1', 60)] } : { rcode: Rcode.ServFail },
    )
    expect(await rejection(resolver.resolve('broken.test'))).toMatchObject({ code: 'ESERVFAIL' })
    const asked = dns.count('broken.test')
    expect(await rejection(resolver.resolve('broken.test'))).toMatchObject({ code: 'ESERVFAIL' })
    expect(dns.count('broken.test')).toBe(asked)
    expect(resolver.stats().failures).toBe(2)
    const { addresses, expiresAt } = await within('the half', resolver.resolve('half.test'))
    expect(addresses).toEqual([{ address: '192.0.2.1', family: 4 }])
    // The other half may be asked for again soon.
    expect(expiresAt).toBeLessThanOrEqual(Date.now() + 1_000)
  })

  test('a server that does not answer: ETIMEOUT, after as many tries as were asked for', async () => {
    const { dns, resolver } = await start(() => undefined, { timeoutMs: 20, tries: 3 })
    const error = await rejection(resolver.resolve('silent.test', { family: 4 }))
    expect(error).toMatchObject({ code: 'ETIMEOUT', op: 'resolve', timeout: true })
    expect(dns.count('silent.test')).toBe(3)
  })

  test('the second try is answered', async () => {
    let asked = 0
    const { resolver } = await start(({ name }) => (asked++ === 0 ? undefined : { answers: [a(name, '192.0.2.1')] }), {
      timeoutMs: 400,
    })
    expect(await addressesOf(resolver, 'slow.test', { family: 4 })).toEqual(['192.0.2.1'])
  })

  test('close(): those that wait are told, and later calls too', async () => {
    const { resolver } = await start(() => undefined)
    const waiting = rejection(resolver.resolve('silent.test'))
    resolver.close()
    expect(await waiting).toMatchObject({ code: 'ERR_RESOLVER_CLOSED', op: 'resolve' })
    expect(await rejection(resolver.resolve('other.test'))).toMatchObject({ code: 'ERR_RESOLVER_CLOSED' })
    resolver.close()
    expect(resolver.stats().names).toBe(0)
  })
})

describe('sharing', () => {
  test('concurrent calls for one name share its queries; a signal stops its own call only', async () => {
    const gate = deferred()
    const { dns, resolver } = await start(async ({ name, type }) => {
      await gate.promise
      return { answers: type === 'A' ? [a(name, '192.0.2.1')] : [] }
    })
    const controller = new AbortController()
    const reason = new Error('not interested')
    const stopped = rejection(resolver.resolve('x.test', { signal: controller.signal }))
    const others = Array.from({ length: 50 }, (_, i) => addressesOf(resolver, i % 2 ? 'X.test' : 'x.test.'))
    await until('it is asked', () => dns.count('x.test') === 2)
    controller.abort(reason)
    expect(await stopped).toBe(reason)
    expect(resolver.stats()).toMatchObject({ pending: 2, misses: 51, coalesced: 50 })
    gate.resolve()
    expect(await Promise.all(others)).toEqual(others.map(() => ['192.0.2.1']))
    expect(dns.count('x.test')).toBe(2)
    expect(resolver.stats()).toMatchObject({ pending: 0, queries: 2 })
  })

  test('a query that nobody waits for any more is kept all the same', async () => {
    const gate = deferred()
    const { dns, resolver } = await start(async (question) => {
      await gate.promise
      return records(a('x.test', '192.0.2.1'))(question)
    })
    expect(await rejection(resolver.resolve('x.test', { signal: AbortSignal.timeout(5) }))).toMatchObject({
      name: 'TimeoutError',
    })
    gate.resolve()
    await until('the answer is kept', () => resolver.peek('x.test') !== undefined)
    expect(await addressesOf(resolver, 'x.test')).toEqual(['192.0.2.1'])
    expect(dns.count('x.test')).toBe(2)
  })

  test('clear() while it is asked: the call gets its answer, which is not kept', async () => {
    const gate = deferred<Reply>()
    const { resolver } = await start(() => gate.promise)
    const waiting = addressesOf(resolver, 'x.test', { family: 4 })
    resolver.clear('X.test.')
    gate.resolve({ answers: [a('x.test', '192.0.2.1')] })
    expect(await waiting).toEqual(['192.0.2.1'])
    expect(resolver.stats().names).toBe(0)
  })

  test('maxNames: the name that was asked for least recently goes', async () => {
    const { dns, resolver } = await start(
      ({ name, type }) => ({ answers: type === 'A' ? [a(name, '192.0.2.1')] : [] }),
      {
        maxNames: 3,
      },
    )
    for (const name of ['a.test', 'b.test', 'c.test', 'a.test']) await addressesOf(resolver, name)
    expect(resolver.peek('b.test'), 'a look is no use').toBeDefined()
    await addressesOf(resolver, 'd.test')
    expect(resolver.stats()).toMatchObject({ names: 3, evictions: 1 })
    for (const name of ['a.test', 'c.test', 'd.test']) expect(resolver.peek(name), name).toBeDefined()
    expect(resolver.peek('b.test')).toBeUndefined()
    await addressesOf(resolver, 'b.test')
    // Bun remembers answers below node:dns.
    if (!isBun) expect(dns.count('b.test')).toBe(4)
  })
})

describe('without a query', () => {
  const resolver = createResolver({ lookup: () => Promise.reject(new Error('nobody may ask')), hostsFile: false })

  test.each([
    ['127.0.0.1', 4],
    ['::1', 6],
    ['fe80::1%eth0', 6],
  ])('a literal: %s', async (host, family) => {
    const only = [{ address: host, family }]
    expect(await resolver.resolve(host)).toEqual({ host, addresses: only, expiresAt: Infinity, stale: false })
    expect(resolver.peek(host)?.addresses).toEqual(only)
    const other = family === 4 ? 6 : 4
    expect(await rejection(resolver.resolve(host, { family: other }))).toMatchObject({ code: 'ENODATA' })
  })

  test.each(['localhost', 'LocalHost.', 'app.localhost'])('%s is this machine', async (host) => {
    expect(await addressesOf(resolver, host)).toEqual(['::1', '127.0.0.1'])
    expect(await addressesOf(resolver, host, { family: 4 })).toEqual(['127.0.0.1'])
  })

  test.each(['no.invalid', 'x.onion'])('%s is nowhere', async (host) => {
    expect(await rejection(resolver.resolve(host))).toMatchObject({ code: 'ENOTFOUND' })
    expect(resolver.peek(host)).toBeUndefined()
  })

  test.each([
    '',
    'a b',
    'a..b',
    '.',
    '-a.test',
    'a-.test',
    'http://a.test/',
    'a.test:80',
    '[::1]',
    '127.1',
    '0x7f000001',
    'a.1',
    '\uff11\uff12\uff17.0.0.1',
    'a%41.test',
    `${'x'.repeat(64)}.test`,
    `${'x.'.repeat(127)}test`,
    'a\0.test',
    '1.2.3.4%eth0',
    'fe80::1%',
    undefined,
    7,
  ])('%j is refused', async (host) => {
    expect(await rejection(resolver.resolve(host as string))).toMatchObject({ code: 'ERR_INVALID_ARG', op: 'resolve' })
    expect(() => resolver.clear(host === undefined ? '' : (host as string))).toThrow(NetError)
  })

  test('an address that has been given cannot be changed for the others', async () => {
    const { addresses } = await resolver.resolve('localhost')
    expect(() => Object.assign(addresses[0] as object, { address: '127.0.0.9' })).toThrow(TypeError)
  })

  test('nothing was asked', () => expect(resolver.stats()).toMatchObject({ queries: 0, names: 0 }))
})

describe('the hosts file', () => {
  test('its names need no query; comments, aliases and families', async () => {
    const hostsFile = freshPath('hosts')
    writeFileSync(
      hostsFile,
      `# 192.0.2.9 not.this
192.0.2.1\tMain.test alias.test. # db.test
2001:db8::1 main.test
192.0.2.1 main.test
garbage main.test
10.0.0.1 localhost
`,
    )
    const resolver = createResolver({ hostsFile, lookup: async () => [] })
    expect(await resolver.resolve('MAIN.test')).toEqual({
      host: 'MAIN.test',
      addresses: [
        { address: '2001:db8::1', family: 6 },
        { address: '192.0.2.1', family: 4 },
      ],
      expiresAt: Infinity,
      stale: false,
    })
    expect(await addressesOf(resolver, 'alias.test')).toEqual(['192.0.2.1'])
    expect(await rejection(resolver.resolve('alias.test', { family: 6 }))).toMatchObject({ code: 'ENODATA' })
    expect(await addressesOf(resolver, 'localhost')).toEqual(['::1', '127.0.0.1'])
    expect(resolver.stats().queries).toBe(0)
    for (const host of ['db.test', 'not.this']) await rejection(resolver.resolve(host))
    expect(resolver.stats().queries).toBe(2)
  })

  test('a file that is missing, or none, has no names', async () => {
    for (const hostsFile of [freshPath('none'), '/dev/zero']) {
      const resolver = createResolver({ hostsFile, lookup: async () => [{ address: '192.0.2.1', family: 4 }] })
      expect(await addressesOf(resolver, 'main.test')).toEqual(['192.0.2.1'])
    }
  })
})

describe('options', () => {
  test.each<[string, unknown]>([
    ['unknown', { ttl: 1 }],
    ['ttlMinMs', { ttlMinMs: -1 }],
    ['ttlMaxMs', { ttlMinMs: 5, ttlMaxMs: 4 }],
    ['maxNames', { maxNames: 0 }],
    ['servers', { servers: [] }],
    ['servers', { servers: ['dns.test'] }],
    ['tries', { tries: 0 }],
    ['hostsFile', { hostsFile: true }],
    ['lookup', { lookup: 'dns' }],
    ['servers', { lookup: async () => [], servers: ['127.0.0.1'] }],
  ])('%s is checked', (name, options) => {
    let error: unknown
    try {
      createResolver(options as ResolverOptions)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARG', op: 'resolve' })
    expect((error as Error).message).toContain(name)
  })

  test.each([{ family: 5 }, { signal: {} }, { allowStale: 1 }, { stale: true }])('resolve(): %j', async (options) => {
    const resolver = createResolver({ lookup: async () => [], hostsFile: false })
    expect(await rejection(resolver.resolve('x.test', options as object))).toMatchObject({ code: 'ERR_INVALID_ARG' })
    expect(resolver.stats().queries).toBe(0)
  })
})
