// Whose async context handlers and promises have, and when ticks and microtasks run.

import { AsyncLocalStorage } from 'node:async_hooks'
import { type Conn, dial, type Handlers, listen, stats } from 'edgewire'
import { expect, test } from 'vitest'
import {
  allClosed,
  connect,
  deferred,
  MiB,
  placeOf,
  serve,
  sleep,
  tcp4,
  track,
  turn,
  until,
  within,
} from './harness.ts'
import { looksItself } from './runtime.ts'

const collectGarbage = (globalThis as { gc?: () => void }).gc as () => void
const storage = new AsyncLocalStorage<string>()

test('handlers run in the context of the call of listen()', async () => {
  const seen = new Map<string, string | undefined>()
  const note = (what: string) => void seen.set(what, storage.getStore())
  const handlers: Handlers = {
    open(conn) {
      note('open')
      conn.setReadDeadline(Date.now() + 1)
      conn.write(Buffer.alloc(4 * MiB))
    },
    data: () => note('data'),
    end(conn) {
      note('end')
      conn.close()
    },
    drain: () => note('drain'),
    timeout: () => note('timeout'),
    close: () => note('close'),
  }
  const listener = track(await storage.run('mine', () => listen(tcp4.place(), handlers)))
  const peer = await storage.run('theirs', () => connect(listener))
  storage.run('theirs', () => peer.socket.write('x'))
  await until('all but the end has happened', () => seen.size === 4)
  peer.finish()
  await allClosed(listener)
  expect(Object.fromEntries(seen)).toEqual({
    open: 'mine',
    data: 'mine',
    end: 'mine',
    drain: 'mine',
    timeout: 'mine',
    close: 'mine',
  })
})

test('a task and what it awaits run in the context of the call of listen()', async () => {
  const seen: (string | undefined)[] = []
  const listener = track(
    await storage.run('mine', () =>
      listen(tcp4.place(), async (conn) => {
        seen.push(storage.getStore())
        await conn.read(new Uint8Array(10))
        seen.push(storage.getStore())
        for await (const _ of conn) seen.push(storage.getStore())
        seen.push(storage.getStore())
      }),
    ),
  )
  const peer = await storage.run('theirs', () => connect(listener))
  await peer.send('x')
  await sleep(5)
  await peer.send('y')
  await sleep(5)
  peer.finish()
  await allClosed(listener)
  expect(seen).toEqual(Array(4).fill('mine'))
})

test('handlers of dial() run in its context, and each listener has its own in one batch', async () => {
  const seen: string[] = []
  const note = (who: string) => (_: Conn, chunk: Buffer) => void seen.push(`${who} ${storage.getStore()} ${chunk}`)
  const first = track(await storage.run('first', () => listen(tcp4.place(), { data: note('first') })))
  const second = track(await storage.run('second', () => listen(tcp4.place(), { data: note('second') })))
  const server = await serve(tcp4, {
    data: (conn, chunk) => void conn.write(chunk),
  })
  const conn = await storage.run('dialed', () => dial(placeOf(server), { data: note('dialed') }))
  const peers = [await connect(first), await connect(second)]
  conn.write('a')
  for (const peer of peers) peer.socket.write('b')
  await until('all have come', () => seen.length === 3)
  expect(seen.sort()).toEqual(['dialed dialed a', 'first first b', 'second second b'])
  conn.close()
})

test("a promise's continuation keeps its caller's context", async () => {
  const opened = deferred<Conn>()
  const listener = track(
    await storage.run('listener', () =>
      listen(tcp4.place(), async (conn) => {
        opened.resolve(conn)
        await conn.closed
      }),
    ),
  )
  const peer = await connect(listener)
  const conn = await within('the server accepts', opened.promise)
  const seen: (string | undefined)[] = []
  const each = (name: string, wait: () => Promise<unknown>) =>
    storage.run(name, async () => {
      await wait()
      seen.push(storage.getStore())
    })
  const waits = [
    each('reader', () => conn.read(new Uint8Array(1))),
    each('flusher', () => {
      conn.write(Buffer.alloc(4 * MiB))
      return conn.flushed()
    }),
    each('closer', () => conn.closed),
  ]
  peer.socket.write('x')
  await within('read and flushed', Promise.all(waits.slice(0, 2)))
  conn.close()
  await within('closed', waits[2]!)
  expect(seen.slice(0, 2).sort()).toEqual(['flusher', 'reader'])
  expect(seen[2]).toBe('closer')
})

// The waiter's thread may find the three one by one: then they are three batches.
test.runIf(looksItself)('ticks and microtasks run when the batch has been dispatched, ticks first', async () => {
  const seen: string[] = []
  const done = deferred()
  const listener = await serve(tcp4, {
    data(_, chunk) {
      seen.push(`data ${chunk}`)
      queueMicrotask(() => seen.push(`microtask ${chunk}`))
      process.nextTick(() => seen.push(`tick ${chunk}`))
      if (seen.filter((what) => what.startsWith('data')).length === 3) setImmediate(done.resolve)
    },
  })
  const peers = [await connect(listener), await connect(listener), await connect(listener)]
  await until('all are accepted', () => listener.stats().accepted === 3)
  // The kernel has all three before this thread looks again.
  for (const [i, peer] of peers.entries()) peer.socket.write(`${i}`)
  await within('all have come', done.promise)
  await turn()
  const kinds = seen.map((what) => what.split(' ')[0])
  expect(kinds.filter((kind) => kind === 'data').length).toBe(3)
  // Of one batch: no microtask of it before its last data, and its ticks before its microtasks.
  const firstMicrotask = kinds.indexOf('microtask')
  expect(kinds.indexOf('tick')).toBeLessThan(firstMicrotask)
  expect(kinds.slice(0, firstMicrotask)).toContain('data')
  expect(kinds).toEqual(['data', 'data', 'data', 'tick', 'tick', 'tick', 'microtask', 'microtask', 'microtask'])
})

// After a number of batches of one listener its context becomes the scope of the dispatch itself (lib/dispatch_scope.ts);
// nobody may see when.
test('the context is the same in every batch, of one listener and of two that take turns', async () => {
  const seen = new Map<string, Map<string | undefined, number>>()
  const served = async (name: string) => {
    const counts = new Map<string | undefined, number>()
    const count = () => void counts.set(storage.getStore(), (counts.get(storage.getStore()) ?? 0) + 1)
    seen.set(name, counts)
    const handlers: Handlers = {
      data(conn, chunk) {
        count()
        queueMicrotask(count)
        process.nextTick(count)
        conn.write(chunk)
      },
    }
    return track(await storage.run(name, () => listen(tcp4.place(), handlers)))
  }
  const peers = [await connect(await served('first')), await connect(await served('second'))]
  const answers = [0, 0]
  const ask = async (who: number) => {
    peers[who]?.socket.write('x')
    answers[who]++
    await peers[who]?.bytes(answers[who] as number)
  }
  const before = stats().dispatches
  for (let i = 0; i < 100; i++) await ask(0)
  for (let i = 0; i < 100; i++) await ask(i % 2)
  for (let i = 0; i < 100; i++) await ask(1)
  for (let i = 0; i < 10; i++) await ask(0)
  expect(stats().dispatches - before, 'each answer is a batch of its own').toBeGreaterThanOrEqual(310)
  expect(Object.fromEntries(seen.get('first') as Map<string, number>)).toEqual({ first: 3 * 160 })
  expect(Object.fromEntries(seen.get('second') as Map<string, number>)).toEqual({ second: 3 * 150 })
})

test("what a handler throws is told in its listener's context, whoever's the dispatch is", async () => {
  const busy = track(
    await storage.run('busy', () => listen(tcp4.place(), { data: (conn, chunk) => void conn.write(chunk) })),
  )
  const peer = await connect(busy)
  for (let i = 1; i <= 100; i++) {
    peer.socket.write('x')
    await peer.bytes(i)
  }
  const seen: (string | undefined)[] = []
  const onError = () => void seen.push(storage.getStore())
  const fail = () => {
    throw new Error('thrown by a handler')
  }
  for (const handlers of [{ open: fail }, { data: fail }, { data: async () => fail() }, { end: fail }]) {
    const failing = track(await storage.run('failing', () => listen({ ...tcp4.place(), onError }, handlers)))
    const other = await connect(failing)
    other.socket.end('x')
    await allClosed(failing)
  }
  await until('each is told', () => seen.length === 4)
  expect(seen).toEqual(Array(4).fill('failing'))
})

test('what a closed listener had in its context can be collected, also after many batches', async () => {
  const store = await serveOnce()
  await until('it is collected', () => {
    collectGarbage()
    return store.deref() === undefined
  })
})

/** Nothing of it is held by the caller. Answers with what listen() was called in. */
async function serveOnce(): Promise<WeakRef<object>> {
  const stored = new AsyncLocalStorage<object>()
  const store = { large: Buffer.alloc(64) }
  const listener = await stored.run(store, () =>
    listen(tcp4.place(), { data: (conn, chunk) => void conn.write(chunk) }),
  )
  const peer = await connect(listener)
  for (let i = 1; i <= 100; i++) {
    peer.socket.write('x')
    await peer.bytes(i)
  }
  peer.finish()
  await allClosed(listener)
  await listener.close()
  return new WeakRef(store)
}

test('what is written in a handler, a tick and a microtask goes out in that order', async () => {
  const listener = await serve(tcp4, {
    data(conn) {
      queueMicrotask(() => conn.write('c'))
      process.nextTick(() => conn.write('b'))
      conn.write('a')
    },
  })
  const peer = await connect(listener)
  peer.socket.write('x')
  expect((await peer.bytes(3)).toString()).toBe('abc')
})

test('writes from timers and immediates are flushed before the loop blocks', async () => {
  const opened = deferred<Conn>()
  const listener = await serve(tcp4, { open: opened.resolve })
  const peer = await connect(listener)
  const conn = await within('the server accepts', opened.promise)
  setTimeout(() => conn.write('timer'), 1)
  await peer.bytes(5)
  setImmediate(() => conn.write('immediate'))
  await peer.bytes(14)
  expect(peer.received.toString()).toBe('timerimmediate')
})
