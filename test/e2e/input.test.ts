// Bad input: a NetError with code, op and the offending value, before anything is opened or changed.

import { runInNewContext } from 'node:vm'
import { type Conn, configure, dial, type Listener, listen, NetError } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { connect, deferred, descriptorCount, freshPath, rejection, serve, tcp4, until, within } from './harness.ts'

const handlers = { data() {} }
const tcp = { host: '127.0.0.1', port: 0 }
const dialTcp = { host: '127.0.0.1', port: 1 }
type Bad = [what: string, options: unknown, value: unknown, code?: string]

/** What neither listen() nor dial() takes. */
function bothOf(good: object): Bad[] {
  const wrongNumbers = [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 31, '10', null, true, {}]
  const numeric = ['highWaterMark', 'lowWaterMark', 'maxBufferedBytes', 'idleTimeoutMs', 'lingerMs']
  return [
    ['no options', undefined, undefined],
    ['null', null, null],
    ['a number', 7000, 7000],
    ['a string', 'localhost:7000', 'localhost:7000'],
    ['an array', [good], expect.any(Array)],
    ['an unknown option', { ...good, prot: 1 }, 'prot'],
    ['no place', {}, undefined],
    ['a host without port', { host: '127.0.0.1' }, undefined],
    ...[-1, 65_536, 1.5, Number.NaN, '80', null, true, 80n].map(
      (port): Bad => [`port ${String(port)}`, { ...good, port }, port],
    ),
    ...['', 7, null, 'a\0b', {}].map((host): Bad => [`host ${JSON.stringify(host)}`, { ...good, host }, host]),
    ...['', 7, null, 'a\0b', {}].map((path): Bad => [`path ${JSON.stringify(path)}`, { path }, path]),
    ['path and port', { path: '/tmp/s', port: 1 }, expect.anything()],
    ['path and host', { path: '/tmp/s', host: '::1' }, expect.anything()],
    ['an overlong path', { path: `/tmp/${'x'.repeat(103)}` }, `/tmp/${'x'.repeat(103)}`, 'ENAMETOOLONG'],
    ['an overlong path in bytes', { path: `/tmp/${'ü'.repeat(52)}` }, `/tmp/${'ü'.repeat(52)}`, 'ENAMETOOLONG'],
    ['an overlong abstract name', { path: `\0${'x'.repeat(108)}` }, `\0${'x'.repeat(108)}`],
    ...numeric.flatMap((key) =>
      wrongNumbers.map((value): Bad => [`${key} ${String(value)}`, { ...good, [key]: value }, value]),
    ),
    ['lowWaterMark above highWaterMark', { ...good, highWaterMark: 10, lowWaterMark: 11 }, 11],
    ['maxBufferedBytes below highWaterMark', { ...good, highWaterMark: 1000, maxBufferedBytes: 999 }, 999],
    ...['ignore', '', 1, null].map((overflow): Bad => [`overflow ${overflow}`, { ...good, overflow }, overflow]),
    ...[1, 'yes', null].map((noDelay): Bad => [`noDelay ${noDelay}`, { ...good, noDelay }, noDelay]),
    ...[{}, null, 'signal'].map((signal): Bad => [`signal ${signal}`, { ...good, signal }, signal]),
  ]
}

/** Values that stand for "not given" in one option only. */
const isNull = ([what]: Bad) => !what.startsWith('overflow null')

const listenOnly: Bad[] = [
  ...[1, 'yes', null].map((ipv6Only): Bad => [`ipv6Only ${ipv6Only}`, { ...tcp, ipv6Only }, ipv6Only]),
  ...[1, 'yes', null].map((reusePort): Bad => [`reusePort ${reusePort}`, { ...tcp, reusePort }, reusePort]),
  ...[-1, 1.5, '5', null].map((backlog): Bad => [`backlog ${backlog}`, { ...tcp, backlog }, backlog]),
  ...[-1, 1.5, '3', null].map((fd): Bad => [`fd ${fd}`, { fd }, fd]),
  ['fd and port', { fd: 3, port: 0 }, expect.anything()],
  ['fd and path', { fd: 3, path: '/tmp/s' }, expect.anything()],
  ...[{}, 'log', null].map((onError): Bad => [`onError ${onError}`, { ...tcp, onError }, onError]),
  ["dial's options", { ...tcp, timeoutMs: 5 }, 'timeoutMs'],
]

const dialOnly: Bad[] = [
  ['port 0', { ...dialTcp, port: 0 }, 0],
  ...['', 7, 'localhost', '1.2.3', {}].map(
    (localAddress): Bad => [`localAddress ${localAddress}`, { ...dialTcp, localAddress }, localAddress],
  ),
  ...[-1, 65_536, '5', null].map((localPort): Bad => [`localPort ${localPort}`, { ...dialTcp, localPort }, localPort]),
  ...[-1, 1.5, '5', null, 2 ** 31].map(
    (timeoutMs): Bad => [`timeoutMs ${timeoutMs}`, { ...dialTcp, timeoutMs }, timeoutMs],
  ),
  ['a path with localAddress', { path: '/tmp/s', localAddress: '127.0.0.1' }, '127.0.0.1'],
  ['a path with localPort', { path: '/tmp/s', localPort: 5 }, 5],
  ["listen's options", { ...dialTcp, backlog: 5 }, 'backlog'],
  ['a local address of the other family', { ...dialTcp, localAddress: '::1' }, undefined, 'EAFNOSUPPORT'],
]

const notHandlers: [string, unknown, unknown][] = [
  ['an object without any handler', {}, expect.anything()],
  ['an object with other names', { onData() {} }, expect.anything()],
  ['a handler that is no function', { data: 'x' }, 'x'],
  ['one good and one bad handler', { data() {}, close: 5 }, 5],
  ['a number', 5, 5],
  ['null', null, null],
  ['a string', 'echo', 'echo'],
]

async function refused(promise: Promise<unknown>, op: string, code: string, value: unknown, before: number) {
  const error = await rejection(promise)
  expect(error, String(error)).toBeInstanceOf(NetError)
  expect(error).toMatchObject({ name: 'NetError', code, op })
  if (code === 'ERR_INVALID_ARG' || code === 'ENAMETOOLONG') expect(error.value).toEqual(value)
  expect(String(error.message).startsWith(op)).toBe(true)
  expect(descriptorCount()).toBe(before)
}

describe('listen()', () => {
  test.each([...bothOf(tcp), ...listenOnly].filter(isNull))(
    '%s',
    async (_, options, value, code = 'ERR_INVALID_ARG') => {
      const before = descriptorCount()
      await refused(listen(options as never, handlers), 'listen', code, value, before)
    },
  )

  test.each(notHandlers)('serve: %s', async (_, style, value) => {
    const before = descriptorCount()
    await refused(listen(tcp, style as never), 'listen', 'ERR_INVALID_ARG', value, before)
  })
})

describe('dial()', () => {
  test.each([...bothOf(dialTcp), ...dialOnly].filter(isNull))(
    '%s',
    async (_, options, value, code = 'ERR_INVALID_ARG') => {
      const before = descriptorCount()
      await refused(dial(options as never), 'dial', code, value, before)
    },
  )

  test.each([...notHandlers, ['a task', async () => {}, expect.any(Function)] as const])(
    'handlers: %s',
    async (_, style, value) => {
      const before = descriptorCount()
      await refused(dial(dialTcp, style as never), 'dial', 'ERR_INVALID_ARG', value, before)
    },
  )
})

describe('configure()', () => {
  test.each([
    [undefined, undefined],
    [null, null],
    [5, 5],
    [{ slabBudget: 1 }, 'slabBudget'],
    [{ slabBudgetBytes: 1 }, 1],
    [{ slabBudgetBytes: -1 }, -1],
    [{ slabBudgetBytes: 2 ** 33 }, 2 ** 33],
    [{ slabBudgetBytes: '1000000' }, '1000000'],
  ])('%j', (configuration, value) => {
    expect(() => configure(configuration as never)).toThrow(
      expect.objectContaining({ name: 'NetError', code: 'ERR_INVALID_ARG', op: 'configure', value }),
    )
  })
})

/** One connection in each style. */
async function conns(): Promise<{ eventful: Conn; task: Conn; listener: Listener }> {
  const opened = deferred<Conn>()
  const listener = await serve(tcp4, { open: opened.resolve })
  await connect(listener)
  const taken = deferred<Conn>()
  const other = await serve(tcp4, async (conn) => {
    taken.resolve(conn)
    await conn.closed
  })
  await connect(other)
  return { eventful: await opened.promise, task: await taken.promise, listener }
}

describe('calls on an open connection', () => {
  test.each([
    undefined,
    null,
    5,
    true,
    {},
    [],
    [1, 2],
    Symbol.iterator,
    5n,
    () => {},
    new Date(),
    new SharedArrayBuffer(4),
  ])('write(%s) throws, and the connection lives on', async (data) => {
    const { eventful } = await conns()
    expect(() => eventful.write(data as never)).toThrow(
      expect.objectContaining({ name: 'NetError', code: 'ERR_INVALID_ARG', op: 'write', value: data }),
    )
    expect(eventful.state).toBe('open')
    expect(eventful.bufferedAmount).toBe(0)
  })

  test.each([
    undefined,
    null,
    5,
    'text',
    {},
    new Uint8Array(0),
    new ArrayBuffer(8),
    new Uint16Array(4),
    new DataView(new ArrayBuffer(8)),
  ])('read(%s) rejects', async (into) => {
    const { task } = await conns()
    expect(await rejection(task.read(into as never))).toMatchObject({
      code: 'ERR_INVALID_ARG',
      op: 'read',
      value: into,
    })
  })

  test.each([undefined, Number.NaN, 'tomorrow', {}, true, new Date(Number.NaN), 5n])(
    'a deadline %s throws',
    async (deadline) => {
      const { task } = await conns()
      for (const set of ['setDeadline', 'setReadDeadline', 'setWriteDeadline'] as const) {
        expect(() => task[set](deadline as never)).toThrow(
          expect.objectContaining({ name: 'NetError', code: 'ERR_INVALID_ARG', value: deadline }),
        )
      }
      expect(task.write('x')).toBe(true)
    },
  )

  test.each([undefined, -1, 1.5, '5', null, Number.NaN, 2 ** 31])('numbers: %s throws', async (value) => {
    const { task } = await conns()
    const bad = expect.objectContaining({ name: 'NetError', code: 'ERR_INVALID_ARG', value })
    expect(() => task.setIdleTimeout(value as never)).toThrow(bad)
    expect(() => {
      task.maxBufferedBytes = value as never
    }).toThrow(bad)
    if (value !== undefined) expect(() => task.setKeepAlive(true, value as never)).toThrow(bad)
    expect(() => task.setRecvBufferSize(value as never)).toThrow(bad)
    expect(() => task.setSendBufferSize(value as never)).toThrow(bad)
  })

  test('what belongs to the other style throws ERR_WRONG_STYLE', async () => {
    const { eventful, task } = await conns()
    const wrong = expect.objectContaining({ name: 'NetError', code: 'ERR_WRONG_STYLE', op: 'read' })
    expect(await rejection(eventful.read(new Uint8Array(1)))).toEqual(wrong)
    expect(await rejection(eventful[Symbol.asyncIterator]().next())).toEqual(wrong)
    expect(() => task.pause()).toThrow(wrong)
    expect(() => task.resume()).toThrow(wrong)
    expect([eventful.state, task.state]).toEqual(['open', 'open'])
  })

  test('writes after closeWrite() throw ERR_WRITE_CLOSED', async () => {
    const { task } = await conns()
    task.closeWrite()
    task.closeWrite()
    expect(() => task.write('x')).toThrow(expect.objectContaining({ code: 'ERR_WRITE_CLOSED', op: 'write' }))
    await task.flushed()
  })
})

describe('calls on a closed connection', () => {
  async function closed(): Promise<{ eventful: Conn; task: Conn; aborted: Conn }> {
    const { eventful, task } = await conns()
    const { task: aborted } = await conns()
    task.close()
    eventful.close()
    aborted.abort(new Error('enough'))
    await within('all end', Promise.all([eventful.closed, task.closed, aborted.closed]))
    return { eventful, task, aborted }
  }

  const calls: [string, string, (conn: Conn) => unknown][] = [
    ['write', 'write', (conn) => conn.write('x')],
    ['write bytes', 'write', (conn) => conn.write(Buffer.alloc(100_000))],
    ['read', 'read', (conn) => conn.read(new Uint8Array(1))],
    ['iteration', 'read', (conn) => conn[Symbol.asyncIterator]().next()],
    ['drained', 'write', (conn) => conn.drained()],
    ['flushed', 'write', (conn) => conn.flushed()],
    ['setDeadline', 'read', (conn) => conn.setDeadline(null)],
    ['setReadDeadline', 'read', (conn) => conn.setReadDeadline(Date.now() + 5)],
    ['setWriteDeadline', 'write', (conn) => conn.setWriteDeadline(5)],
    ['setIdleTimeout', 'configure', (conn) => conn.setIdleTimeout(5)],
    ['setNoDelay', 'option', (conn) => conn.setNoDelay()],
    ['setKeepAlive', 'option', (conn) => conn.setKeepAlive()],
    ['setRecvBufferSize', 'option', (conn) => conn.setRecvBufferSize(1000)],
    ['setSendBufferSize', 'option', (conn) => conn.setSendBufferSize(1000)],
  ]

  test.each(calls)('%s: ERR_CONN_CLOSED, or what ended it', async (_, op, call) => {
    const { task, aborted } = await closed()
    const failure = async (conn: Conn) => {
      try {
        await call(conn)
      } catch (error) {
        return error
      }
      return 'nothing'
    }
    expect(await failure(task)).toMatchObject({ name: 'NetError', code: 'ERR_CONN_CLOSED', op })
    expect(await failure(aborted)).toMatchObject({ name: 'NetError', code: 'ERR_CONN_ABORTED' })
  })

  test('pause() throws; what has nothing to do any more does nothing', async () => {
    const { eventful, task, aborted } = await closed()
    expect(() => eventful.pause()).toThrow(expect.objectContaining({ code: 'ERR_CONN_CLOSED' }))
    for (const conn of [eventful, task, aborted]) {
      conn.close()
      conn.closeWrite()
      conn.abort()
      expect(conn.ref().unref().ref()).toBe(conn)
      expect(conn.state).toBe('closed')
      expect(conn.bufferedAmount).toBe(0)
      await conn[Symbol.asyncDispose]()
    }
    eventful.resume()
    expect(await task.closed).toBeUndefined()
    expect(await aborted.closed).toMatchObject({ code: 'ERR_CONN_ABORTED' })
  })
})

test('calls on a closed listener', async () => {
  const { listener } = await conns()
  await listener.shutdown()
  await listener.close()
  await listener.shutdown()
  await listener[Symbol.asyncDispose]()
  expect(listener.ref().unref()).toBe(listener)
  expect(listener.listening).toBe(false)
  expect(listener.stats()).toMatchObject({ accepted: 1, closed: 1, open: 0 })
  expect([...listener.connections]).toEqual([])
  expect(listener.port).toBeGreaterThan(0)
  const iterating = await serve(tcp4)
  const earlier = iterating[Symbol.asyncIterator]()
  await iterating.close()
  expect(await earlier.next()).toEqual({ done: true, value: undefined })
  expect(() => iterating[Symbol.asyncIterator]()).toThrow(
    expect.objectContaining({ name: 'NetError', code: 'ERR_LISTENER_CLOSED', op: 'accept' }),
  )
})

test('a path of exactly the longest length works, and so does the longest abstract name', async () => {
  const folder = freshPath('')
  const path = folder.padEnd(process.platform === 'darwin' ? 103 : 107, 'x')
  const listener = await serve({ name: 'unix', isTcp: false, place: () => ({ path }) }, handlers)
  expect(listener.address).toBe(path)
  await connect(listener)
  await until('it is accepted', () => listener.stats().accepted === 1)
  if (process.platform !== 'linux') return
  for (const name of [`\0${'y'.repeat(107)}`, `\0short-${process.pid}`]) {
    const abstract = await serve({ name: 'abstract', isTcp: false, place: () => ({ path: name }) }, handlers)
    expect(abstract.address).toBe(name)
    const conn = await dial({ path: name })
    await conn[Symbol.asyncDispose]()
  }
})

test('bytes and dates of another realm (node:vm, test runners) are what they are', async () => {
  const listener = await serve(tcp4, { data: (conn, chunk) => void conn.write(chunk) })
  const conn = await dial({ host: '127.0.0.1', port: listener.port })
  const foreign = (source: string) => runInNewContext(source)
  conn.setReadDeadline(foreign('new Date(Date.now() + 60_000)'))
  conn.write(foreign('new Uint8Array([1, 2])'))
  conn.write(foreign('new Uint8Array([3, 4]).buffer'))
  conn.write(foreign('new Uint8Array(40_000).fill(5)'))
  const into = foreign('new Uint8Array(50_000)') as Uint8Array
  let bytes = 0
  while (bytes < 40_004) bytes += (await within('bytes', conn.read(into.subarray(bytes)))) as number
  expect([...into.subarray(0, 6), into[40_003], into[40_004]]).toEqual([1, 2, 3, 4, 5, 5, 5, 0])
  conn.close()
})
