// The slab budget is for all connections together: a thousand stalled writers and a thousand senders that nobody reads,
// at once, in a process of their own. Its peers are in another one.

import { expect, test } from 'vitest'
import { freshPath, MiB } from '../e2e/harness.ts'
import { start } from '../e2e/programs.ts'
import './pipes.ts'

const Budget = 32 * MiB
const Each = 1000
const BytesEach = 512 * 1024
/** Beside the pool: V8's young generation and garbage, the 4,000 promises, 1,000 buffers of 4 KiB. */
const ConstantMiB = 40
const PeerMs = 60_000

/** Byte `at` of connection `id`'s stream; the period divides no buffer's size. */
const common = `
  const period = 65_536 + 251
  const table = Buffer.alloc(2 * period)
  for (let at = 0; at < table.length; at++) table[at] = Math.imul(at % period, 0x9e3779b1) >>> 13
  const bytesAt = (id, at, count) => {
    const from = (id * 8191 + at) % period
    return table.subarray(from, from + count)
  }
  let wrong = 0
  const check = (id, at, bytes) => {
    if (Buffer.compare(bytes, bytesAt(id, at, bytes.length)) !== 0) wrong++
  }
  const total = ${BytesEach}
  const readAll = async (conn, id, into) => {
    let at = 0
    for (let n; (n = await conn.read(into)) !== null; at += n) check(id, at, into.subarray(0, n))
    if (at !== total) wrong++
  }
  const sendAll = async (conn, id) => {
    for (let at = 0; at < total; ) {
      const count = Math.min(1 + (at * 7 + id) % 4000, total - at)
      if (!conn.write(bytesAt(id, at, count))) await conn.drained()
      at += count
    }
    conn.closeWrite()
  }
  const line = () => new Promise((resolve) => process.stdin.once('data', resolve))
`

const server = (path: string) => `
  ${common}
  configure({ slabBudgetBytes: ${Budget} })
  let go, resume, done = 0, failures = 0
  const started = new Promise((resolve) => { go = resolve })
  const resumed = new Promise((resolve) => { resume = resolve })
  const marks = { highWaterMark: 8192, lowWaterMark: 4096 }
  const listener = await listen({ path: ${JSON.stringify(path)}, ...marks }, async (conn) => {
    const into = Buffer.alloc(4096)
    try {
      await conn.read(into.subarray(0, 1))
      const writes = into[0] === 87
      let at = 1
      while (at < 5) at += await conn.read(into.subarray(at, 5))
      const id = into.readUInt32LE(1)
      await started
      if (writes) {
        await sendAll(conn, id)
        await conn.read(into)
      } else {
        await resumed
        await readAll(conn, id, into)
      }
      done++
    } catch (error) {
      failures++
      if (failures < 3) console.error(error)
    }
  })
  print('listening')
  while (listener.stats().accepted < ${2 * Each}) await sleep(5)
  await sleep(50)
  gc()
  const base = process.memoryUsage.rss()
  let peak = base, peakSlab = 0
  const look = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss())
    peakSlab = Math.max(peakSlab, stats().slabMappedBytes)
  }, 5)
  go()
  print('going')
  // Stalled: nothing has moved for a while.
  for (let before = -1, still = 0; still < 20; still++) {
    const { bytesWritten, bytesRead } = stats()
    if (bytesWritten !== before) still = 0
    before = bytesWritten
    await sleep(10)
  }
  const stalled = { ...stats(), rss: process.memoryUsage.rss() }
  resume()
  print('resumed')
  while (done + failures < ${2 * Each}) await sleep(5)
  clearInterval(look)
  await listener.shutdown()
  const end = stats()
  print({ base, peak, peakSlab, stalled, wrong, failures, done, end })
`

const peers = (path: string) => `
  ${common}
  const at = { path: ${JSON.stringify(path)}, highWaterMark: 8192 }
  const open = async (kind, id) => {
    const conn = await dial(at)
    const hello = Buffer.alloc(5)
    hello.write(kind)
    hello.writeUInt32LE(id, 1)
    conn.write(hello)
    return conn
  }
  const readers = [], writers = []
  for (let id = 0; id < ${Each}; id++) {
    readers.push(await open('W', id))
    writers.push(await open('S', id))
  }
  print('open')
  // These send at once, and are not read.
  const sending = writers.map((conn, id) => sendAll(conn, id))
  await line()
  // These have not read until now.
  await Promise.all(readers.map(async (conn, id) => {
    await readAll(conn, id, Buffer.alloc(8192))
    conn.closeWrite()
  }))
  await Promise.all(sending)
  await Promise.all(writers.map((conn) => conn.read(new Uint8Array(1))))
  await Promise.all([...readers, ...writers].map((conn) => conn.closed))
  print({ wrong })
  process.exit(0)
`

test(
  `${Each} stalled writers and ${Each} unread senders stay within ${Budget / MiB} MiB and ${ConstantMiB} MiB beside, and all recover`,
  async () => {
    const path = freshPath()
    const serving = start(server(path))
    expect(await serving.line()).toBe('listening')
    const peering = start(peers(path))
    expect(await peering.line()).toBe('open')
    expect(await serving.line()).toBe('going')
    expect(await serving.line()).toBe('resumed')
    peering.child.stdin!.write('go\n')
    const result = JSON.parse(await serving.line())
    const shown = JSON.stringify(result)
    expect(JSON.parse(await peering.line()), shown).toEqual({ wrong: 0 })
    expect((await serving.end()).code).toBe(0)

    expect(result, shown).toMatchObject({ wrong: 0, failures: 0, done: 2 * Each })
    // They were stalled: every writer has bytes queued, and hardly anything of the senders was read.
    expect(result.stalled.slabInUseBytes, shown).toBeGreaterThan(Each * 4096)
    expect(result.stalled.bytesWritten, shown).toBeLessThan(Each * BytesEach)
    expect(result.stalled.bytesRead, shown).toBeLessThan(Each * 16_384)
    expect(result.peakSlab, shown).toBeLessThanOrEqual(Budget)
    expect(result.end.slabPeakBytes, shown).toBeLessThanOrEqual(Budget)
    expect((result.peak - result.base) / MiB, shown).toBeLessThanOrEqual(Budget / MiB + ConstantMiB)
    expect(result.end, shown).toMatchObject({ evictions: 0, slabInUseBytes: 0, open: 0, overflowAborts: 0 })
  },
  PeerMs,
)
