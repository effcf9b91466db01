// Memory is bounded by construction: in a process of its own, with a small pool and its RSS under watch.

import { expect, test } from 'vitest'
import { run } from './programs.ts'
import { isDeno } from './runtime.ts'

const budget = 8 * 1024 * 1024
const places = [
  ['tcp4', `{ host: '127.0.0.1', port: 0 }`],
  ['tcp6', `{ host: '::1', port: 0 }`],
  ['unix', `{ path: tmp + '/s' }`],
]

const frame = (body: string) => `
  import { createHash } from 'node:crypto'
  import { mkdtempSync, rmSync } from 'node:fs'
  const tmp = mkdtempSync('/tmp/edgewire-')
  process.on('exit', () => rmSync(tmp, { recursive: true }))
  configure({ slabBudgetBytes: ${budget} })
  const MiB = 1024 * 1024
  const place = (l) => l.family === 'unix' ? { path: l.address } : { host: l.address, port: l.port }
  let peakRss = 0, peakSlab = 0
  const look = () => {
    peakRss = Math.max(peakRss, process.memoryUsage.rss())
    peakSlab = Math.max(peakSlab, stats().slabMappedBytes, stats().slabInUseBytes)
  }
  const watch = setInterval(look, 5)
  const total = 50 * MiB
  // The same bytes on both sides, never all in memory: block i is filled from its number.
  const block = (i) => { const b = Buffer.alloc(65536); for (let k = 0; k < b.length; k += 4) b.writeUInt32LE((i * 2654435761 + k * 40503) >>> 0, k); return b }
  const wanted = createHash('sha1')
  for (let i = 0; i < total / 65536; i++) wanted.update(block(i))
  const wantedHash = wanted.digest('hex')
  gc(); look()
  const baseRss = process.memoryUsage.rss(); peakRss = baseRss
  ${body}
  clearInterval(watch)
  print({ grownMiB: Math.round((peakRss - baseRss) / MiB), peakSlab, budget: stats().slabBudgetBytes, same, stalledAt, ...extra })
`

// What the kernel's buffers are filled from, the reader's Node buffers and V8's garbage are in it as well.
// Deno's node:net, the peer here, takes up to 25 MiB more for itself.
const grownMiBMax = isDeno ? 80 : 40

/** 50 MiB for a client that reads nothing for a while: how far the server got meanwhile is what `counter` counts. */
async function expectBounded(serve: string, { send, counter }: { send: string; counter: string }) {
  const end = await run(
    frame(`
      const server = await listen(${serve})
      const client = net.connect(place(server))
      const hash = createHash('sha1')
      let got = 0
      client.on('data', (chunk) => { hash.update(chunk); got += chunk.length })
      await once(client, 'connect')
      client.pause()
      const sending = (async () => { ${send} })()
      await sleep(300)
      const stalledAt = stats().${counter}
      client.resume()
      await sending
      await once(client, 'close')
      const same = got === total && hash.digest('hex') === wantedHash
      const extra = {}
      await server.shutdown()
    `),
  )
  expect(end.code, end.stderr).toBe(0)
  const result = JSON.parse(end.stdout)
  expect(result).toMatchObject({ same: true, budget })
  expect(result.stalledAt).toBeLessThan(20 * 1024 * 1024)
  expect(result.peakSlab).toBeLessThanOrEqual(budget)
  expect(result.grownMiB).toBeLessThan(grownMiBMax)
}

test.each(places)(
  '%s: 50 MiB for a reader that stalls stay within the budget and arrive byte for byte',
  async (_, place) => {
    const serve = `${place}, async (conn) => {
      for (let i = 0; i < total / 65536; i++) {
        if (!conn.write(block(i))) await conn.drained()
      }
    }`
    await expectBounded(serve, { send: '', counter: 'bytesWritten' })
  },
)

test.each(places)(
  '%s: 50 MiB echoed to a reader that stalls stay within the budget and arrive byte for byte',
  async (_, place) => {
    const serve = `${place}, {
      data(conn, chunk) { if (!conn.write(chunk)) conn.pause() },
      drain(conn) { conn.resume() },
    }`
    const send = `
      for (let i = 0; i < total / 65536; i++) if (!client.write(block(i))) await once(client, 'drain')
      client.end()`
    await expectBounded(serve, { send, counter: 'bytesRead' })
  },
)

test.each(places)(
  '%s: chunks that are retained up to the budget stop reading, and released go on',
  async (_, place) => {
    const end = await run(
      frame(`
      const kept = []
      let read = 0, sum = createHash('sha1')
      const server = await listen(${place}, {
        data(conn, chunk) { kept.push([conn, conn.retain(chunk)]); read += chunk.length; sum.update(chunk) },
      })
      const clients = []
      const client = net.connect(place(server))
      const sending = (async () => {
        for (let i = 0; i < total / 65536; i++) if (!client.write(block(i))) await once(client, 'drain')
        client.end()
      })()
      for (let i = 0; i < 500 && stats().starvedReads === 0; i++) await sleep(10)
      await sleep(50)
      const stalledAt = read
      const starved = stats().starvedReads
      const release = () => { for (const [conn, chunk] of kept.splice(0)) conn.release(chunk) }
      while (read < total) { release(); await sleep(1) }
      release()
      await sending
      const same = sum.digest('hex') === wantedHash
      const extra = { starved }
      await server.shutdown()
    `),
    )
    expect(end.code, end.stderr).toBe(0)
    const result = JSON.parse(end.stdout)
    expect(result).toMatchObject({ same: true, budget })
    expect(result.starved).toBeGreaterThan(0)
    expect(result.stalledAt).toBeLessThanOrEqual(budget)
    expect(result.peakSlab).toBeLessThanOrEqual(budget)
  },
)

test.each([5000, 65536])('stalled peers that echo chunks of %i bytes do not stop a healthy one', async (bytes) => {
  const end = await run(
    `
    configure({ slabBudgetBytes: 1 << 20 })
    const server = await listen({ host: '127.0.0.1', port: 0 }, { data(conn, chunk) { conn.write(chunk) } })
    const stalled = []
    for (let i = 0; i < 20; i++) {
      const client = net.connect(server.port, '127.0.0.1').on('error', () => {})
      await once(client, 'connect')
      client.pause()
      stalled.push(client)
    }
    // Until nothing moves: every peer's answers fill the kernel, and what comes then waits here.
    const piece = Buffer.alloc(${bytes}, 's')
    const flood = setInterval(() => {
      for (const client of stalled) for (let i = 0; i < 20 && client.writableLength < 1e5; i++) client.write(piece)
    }, 1)
    for (let before = -1; before !== stats().bytesRead; await sleep(300)) before = stats().bytesRead
    const healthy = net.connect(server.port, '127.0.0.1')
    let got = ''
    healthy.on('data', (text) => { got += text })
    for (let i = 0; i < 20; i++) { healthy.write('hello '); while (got.length < 6 * (i + 1)) await sleep(1) }
    clearInterval(flood)
    print({ got: got === 'hello '.repeat(20), evictions: stats().evictions, peak: stats().slabPeakBytes })
    process.exit()
  `,
  )
  expect(end.code, end.stderr).toBe(0)
  const result = JSON.parse(end.stdout)
  expect(result.got).toBe(true)
  expect(result.evictions).toBeGreaterThan(0)
  expect(result.peak).toBeLessThanOrEqual(1024 * 1024)
})

test('a full pool costs the connection with the most queued, and no other', async () => {
  const end = await run(
    `
    configure({ slabBudgetBytes: 1 << 20 })
    const closes = []
    const conns = {}
    const server = await listen({ host: '127.0.0.1', port: 0 }, {
      data(conn, chunk) { conn.data = chunk.toString(); conns[conn.data] = conn },
      close(conn, error) { closes.push(conn.data + ' ' + error?.code + ' ' + error?.op) },
    })
    const clients = {}
    const client = async (name) => {
      const socket = clients[name] = net.connect(server.port, '127.0.0.1').on('error', () => {})
      socket.write(name)
      while (conns[name] === undefined) await sleep(1)
      socket.pause()
      return conns[name]
    }
    let sent = {}
    const queue = async (name, bytes) => {
      const conn = conns[name]
      sent[name] ??= 0
      while (conn.state === 'open' && conn.bufferedAmount < bytes) {
        for (let i = 0; i < 8; i++) { conn.write(Buffer.alloc(3000, sent[name]++)) }
        await sleep(0)
      }
    }
    for (const name of ['first', 'large', 'second', 'last']) await client(name)
    await queue('first', 120000)
    await queue('large', 300000)
    await queue('second', 120000)
    const before = [...closes]
    await queue('last', 250000)
    // The flush that gave it up may have come outside of a turn; the next one tells.
    for (let i = 0; i < 500 && closes.length === 0; i++) await sleep(1)
    const after = [...closes]
    const received = {}
    for (const name of ['first', 'second', 'last']) {
      let wrong = 0, bytes = 0
      clients[name].on('data', (chunk) => { for (const byte of chunk) if (byte !== (Math.floor(bytes++ / 3000) & 255)) wrong++ })
      clients[name].resume()
      while (bytes < sent[name] * 3000) await sleep(1)
      received[name] = wrong
    }
    print({ before, after, received, evictions: stats().evictions, open: server.stats().open })
    process.exit()
  `,
  )
  expect(end.code, end.stderr).toBe(0)
  expect(JSON.parse(end.stdout)).toEqual({
    before: [],
    after: ['large ENOBUFS write'],
    received: { first: 0, second: 0, last: 0 },
    evictions: 1,
    open: 3,
  })
})

test('many stalled readers with small messages cannot take the whole pool: others are still served', async () => {
  const end = await run(
    frame(`
      const server = await listen({ host: '127.0.0.1', port: 0 }, {
        data(conn, chunk) {
          if (chunk.toString() !== 'flood') return void conn.write(chunk)
          const timer = setInterval(() => {
            try { for (let i = 0; i < 200; i++) conn.write(Buffer.alloc(3000, 1)) } catch { clearInterval(timer) }
          }, 1)
          conn.data = timer
        },
        close(conn) { clearInterval(conn.data) },
      })
      const flooded = []
      for (let i = 0; i < 8; i++) {
        const client = net.connect(place(server)).on('error', () => {})
        client.write('flood')
        await once(client, 'connect')
        client.pause()
        flooded.push(client)
      }
      await sleep(500)
      const stalledAt = stats().bytesWritten
      const good = net.connect(place(server))
      good.write('hello')
      const [answer] = await once(good, 'data')
      const same = answer.toString() === 'hello'
      const extra = { open: server.stats().open }
      for (const client of [good, ...flooded]) client.destroy()
      await server.shutdown()
    `),
  )
  expect(end.code, end.stderr).toBe(0)
  const result = JSON.parse(end.stdout)
  expect(result.same).toBe(true)
  expect(result.peakSlab).toBeLessThanOrEqual(budget)
})
