// What users forget: connections that nobody closes, chunks that nobody releases, chunks used too late, a missing await.

import type { Buffer as NodeBuffer } from 'node:buffer'
import { type Conn, stats } from 'edgewire'
import { expect, test } from 'vitest'
import { connect, serve, tcp4, unix, until, within } from './harness.ts'
import { run } from './programs.ts'

const collectGarbage = (globalThis as { gc?: () => void }).gc as () => void

function warningsOf(code: string): { warnings: Error[]; stop(): void } {
  const warnings: Error[] = []
  const listen = (warning: Error & { code?: string }) => {
    if (warning.code === code) warnings.push(warning)
  }
  process.on('warning', listen)
  return { warnings, stop: () => process.off('warning', listen) }
}

test('leakDetection reports a silent connection once, with where its listener was made', async () => {
  const { warnings, stop } = warningsOf('EDGEWIRE_LEAK')
  const listener = await serve(tcp4, { data() {} }, { leakDetection: { openMs: 20 } })
  const peer = await connect(listener)
  await until('the warning comes', () => listener.stats().leakSuspects === 1)
  await until('the process is told', () => warnings.length === 1)
  expect(warnings[0]?.message).toContain('open and silent')
  expect((warnings[0] as { detail?: string }).detail).toContain('leaks.test.ts')
  // A byte starts the clock anew; then it is reported again.
  peer.socket.write('x')
  await until('it is reported anew', () => listener.stats().leakSuspects === 2)
  stop()
})

test('leakDetection tells who took a connection by iteration', async () => {
  const { warnings, stop } = warningsOf('EDGEWIRE_LEAK')
  const listener = await serve(unix, undefined, { leakDetection: { openMs: 20 } })
  const accepted = listener[Symbol.asyncIterator]()
  const taking = accepted.next()
  await connect(listener)
  const { value } = await within('a connection is accepted', taking)
  await until('the warning comes', () => warnings.length === 1)
  expect((warnings[0] as { detail?: string }).detail).toContain('taken by iteration')
  ;(value as Conn).close()
  stop()
})

test('a lease whose object is collected unreleased is reported, and its memory comes back', async () => {
  const { warnings, stop } = warningsOf('EDGEWIRE_LEASE')
  const before = stats().leakedLeases
  let served = 0
  const listener = await serve(tcp4, {
    data(conn, chunk) {
      conn.retain(chunk)
      served++
    },
  })
  const peer = await connect(listener)
  peer.socket.write(Buffer.alloc(5000))
  await until('the handler has run', () => served > 0)
  await until('it is collected', () => {
    collectGarbage()
    return stats().leakedLeases === before + served
  })
  await until('the warning comes', () => warnings.length === served)
  peer.socket.write('turn') // the counter is written by a turn
  await until('the pool has it back', () => {
    collectGarbage()
    return stats().slabInUseBytes === 0
  })
  stop()
})

test('a released lease is not reported when its object is collected later', async () => {
  const before = stats().leakedLeases
  let kept: { conn: Conn; chunk: NodeBuffer } | undefined
  const listener = await serve(tcp4, {
    data(conn, chunk) {
      kept = { conn, chunk: conn.retain(chunk) }
    },
  })
  const peer = await connect(listener)
  peer.socket.write(Buffer.alloc(5000))
  await until('the handler has run', () => kept !== undefined)
  kept?.conn.release(kept.chunk)
  kept = undefined
  for (let i = 0; i < 5; i++) {
    collectGarbage()
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(stats().leakedLeases).toBe(before)
})

test('debug mode refuses a chunk that is written after its handler has returned', async () => {
  const { stdout, code } = await run(
    `
    const listener = await listen({ host: '127.0.0.1', port: 0 }, {
      end() {},
      data(conn, chunk) {
        setTimeout(() => {
          try { conn.write(chunk) } catch (error) { console.log(error.code, /retain/.test(error.message)) }
          conn.close()
        }, 10)
      },
    })
    const conn = await dial({ host: '127.0.0.1', port: listener.port })
    conn.write('late')
    conn.closeWrite()
    for await (const chunk of conn) console.log('unexpected', chunk)
    await listener.shutdown()
    `,
    { EDGEWIRE_DEBUG: '1' },
  )
  expect(stdout.trim()).toBe('ERR_CHUNK_EXPIRED true')
  expect(code).toBe(0)
})

test('debug mode warns of two reads that wait for one buffer', async () => {
  const { stdout, code } = await run(
    `
    process.on('warning', (warning) => console.log(warning.code))
    const listener = await listen({ host: '127.0.0.1', port: 0 }, async (conn) => {
      const buffer = new Uint8Array(8)
      const forgotten = conn.read(buffer)
      await conn.read(buffer)
      await forgotten
    })
    const conn = await dial({ host: '127.0.0.1', port: listener.port })
    conn.write('12345678')
    await new Promise((resolve) => setTimeout(resolve, 20))
    conn.write('12345678')
    conn.closeWrite()
    for await (const chunk of conn) console.log('unexpected', chunk)
    await listener.shutdown()
    `,
    { EDGEWIRE_DEBUG: '1', NODE_NO_WARNINGS: '1' },
  )
  expect(stdout.trim()).toBe('EDGEWIRE_READ')
  expect(code).toBe(0)
})
