// How a connection ends: half-close, close with bytes under way, both ends at once, linger, abort.

import { describe, expect, test } from 'vitest'
import { expectBytes, KiB, MiB, randomInt, rejection, sleep, turn, within } from '../e2e/harness.ts'
import type { End, Failure, MakePipe, Pipe } from './ends.ts'
import {
  drain,
  expectReset,
  flood,
  PatternCheck,
  patternAt,
  read,
  readAll,
  readPattern,
  send,
  sendPattern,
  stall,
} from './exchange.ts'

const LingerMs = 100

const bothEnd = ({ a, b }: Pipe) => within('both ends are over', Promise.all([a.closed, b.closed]))
const orderly = [undefined, undefined]

export function endings(makePipe: MakePipe): void {
  describe('half-close', () => halfClose(makePipe))
  describe('close()', () => closing(makePipe))
  describe('abort()', () => aborting(makePipe))
}

function halfClose(makePipe: MakePipe): void {
  test('all data comes before the end, and the end again and again', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    let sent = 0
    const sending = (async () => {
      while (sent < MiB) {
        const count = randomInt(1, 100_000)
        await send(a, patternAt(sent, count))
        sent += count
      }
      a.closeWrite()
    })()
    expectBytes(await readAll(b, 10_000), patternAt(0, sent))
    await sending
    for (let i = 0; i < 3; i++) expect(await within('the end', read(b))).toBe(null)
    b.closeWrite()
    expect(await within('the end', read(a))).toBe(null)
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('an end without any data', async () => {
    const pipe = await makePipe()
    const pending = [read(pipe.b), read(pipe.b)]
    pipe.a.closeWrite()
    expect(await within('the end', Promise.all(pending))).toEqual([null, null])
    pipe.b.closeWrite()
    expect(await within('the end', read(pipe.a))).toBe(null)
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test("writing goes on after the peer's FIN", async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    a.closeWrite()
    expect(await within('the end', read(b))).toBe(null)
    const got = readAll(a)
    for (let part = 0; part < 4; part++) {
      await sendPattern(b, 256 * KiB, 10_000, part * 256 * KiB)
      await sleep(1)
    }
    b.closeWrite()
    expectBytes(await got, patternAt(0, MiB))
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('FIN goes once, however often it is asked for; a write after it is refused, what was written is not', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    await send(a, 'abc')
    a.closeWrite()
    a.closeWrite()
    expect(() => a.write('x')).toThrow(expect.objectContaining({ code: 'ERR_WRITE_CLOSED' }))
    await within('it is flushed', a.flushed())
    a.closeWrite()
    expect(String(await readAll(b))).toBe('abc')
    b.close()
    a.close()
    a.close()
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('a queue that is stalled goes out before the FIN', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    const sent = await stall(a)
    a.closeWrite()
    await sleep(2)
    await readPattern(b, sent, 100_000)
    expect(await within('the end', read(b))).toBe(null)
    await within('it is flushed', a.flushed())
    b.closeWrite()
    expect(await within('the end', read(a))).toBe(null)
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('both directions end on their own: 1 MiB each way, closed at different times', async () => {
    const pipe = await makePipe()
    const half = async (end: End, bytes: number) => {
      await sendPattern(end, bytes, 7000)
      end.closeWrite()
    }
    const [, , fromB, fromA] = await within(
      'both end',
      Promise.all([half(pipe.a, MiB), half(pipe.b, 100 * KiB), readAll(pipe.a), readAll(pipe.b)]),
    )
    expectBytes(fromA, patternAt(0, MiB))
    expectBytes(fromB, patternAt(0, 100 * KiB))
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('when both FINs are through, the connection is over by itself, though nobody reads or closes', async () => {
    const pipe = await makePipe()
    pipe.a.closeWrite()
    await sleep(2)
    pipe.b.closeWrite()
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('simultaneous FIN: both ends see the data, the end, and an orderly close', async () => {
    for (let round = 0; round < 10; round++) {
      const pipe = await makePipe()
      for (const end of [pipe.a, pipe.b]) {
        end.write('bye')
        end.closeWrite()
      }
      const [fromB, fromA] = await Promise.all([readAll(pipe.a), readAll(pipe.b)])
      expect(String(fromA) + String(fromB)).toBe('byebye')
      expect(await bothEnd(pipe)).toEqual(orderly)
    }
  })
}

function closing(makePipe: MakePipe): void {
  test('with unsent data: the peer gets every byte, then the end', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    const sent = await stall(a)
    a.close()
    await sleep(2)
    expectBytes(await readAll(b, 100_000), patternAt(0, sent))
    b.close()
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('with unread data: no reset, the peer sees the end', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    await sendPattern(b, 100 * KiB)
    await within('it is sent', b.flushed())
    await readPattern(a, 10)
    a.close()
    expect(await within('the end', read(b))).toBe(null)
    b.close()
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('with unsent and unread data: the peer gets every byte, and what it still sends is dropped', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    const sent = await stall(a)
    await sendPattern(b, 48 * KiB)
    a.close()
    const [got] = await within('the peer has it all', Promise.all([readAll(b, 100_000), sendPattern(b, MiB)]))
    expectBytes(got, patternAt(0, sent))
    b.close()
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('both at once, in the same tick, with data under way', async () => {
    for (let round = 0; round < 10; round++) {
      const pipe = await makePipe()
      pipe.a.write('bye')
      pipe.b.write('bye')
      pipe.a.close()
      pipe.b.close()
      expect(await bothEnd(pipe)).toEqual(orderly)
    }
  })

  test('pending and later operations are refused; what is queued is still waited for', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    const reads = [rejection(read(a)), rejection(read(a))]
    await sendPattern(a, 10 * KiB)
    a.close()
    a.close()
    a.closeWrite()
    for (const error of await Promise.all(reads)) expect(error).toMatchObject({ code: 'ERR_CONN_CLOSED' })
    expect(await rejection(read(a))).toMatchObject({ code: 'ERR_CONN_CLOSED' })
    expect(() => a.write('x')).toThrow(expect.objectContaining({ code: 'ERR_CONN_CLOSED' }))
    await readPattern(b, 10 * KiB)
    b.close()
    expect(await bothEnd(pipe)).toEqual(orderly)
  })

  test('a peer that never closes is not waited for beyond its second', async () => {
    const { a, b } = await makePipe()
    a.close()
    expect(await within('the end', read(b))).toBe(null)
    expect(await within('it is over', a.closed)).toBe(undefined)
  })

  test('lingerMs bounds it: a peer that reads nothing gets a reset', async () => {
    const { a, b } = await makePipe({ lingerMs: LingerMs })
    // More than the kernel's send buffer may grow to meanwhile (net.ipv4.tcp_wmem).
    const sent = await stall(a, 6 * MiB)
    const begin = Date.now()
    a.close()
    expect(await within('it is over', a.closed)).toMatchObject({ code: 'ETIMEDOUT' })
    expect(Date.now() - begin).toBeGreaterThanOrEqual(LingerMs - 1)
    const check = new PatternCheck()
    const error = await within(
      'the peer notices',
      drain(b, (bytes) => check.take(bytes)),
    )
    expect(check.bytes).toBeLessThan(sent)
    expectReset(makePipe, error)
  })

  test('a peer that reads slowly, but in time, gets everything', async () => {
    const pipe = await makePipe({ lingerMs: 5000 })
    const { a, b } = pipe
    const sent = await stall(a)
    a.close()
    const check = new PatternCheck()
    while (check.bytes < sent) {
      const piece = Math.min(200_000, sent - check.bytes)
      await readPattern(b, piece, piece, check.bytes)
      check.bytes += piece
      await sleep(1)
    }
    expect(await within('the end', read(b))).toBe(null)
    b.close()
    expect(await bothEnd(pipe)).toEqual(orderly)
  })
}

function aborting(makePipe: MakePipe): void {
  test('the peer sees a reset, in what is pending and in `closed`', async () => {
    const { a, b } = await makePipe()
    const pending = drain(b)
    await turn()
    a.abort()
    a.abort()
    expect(await within('it is over', a.closed)).toMatchObject({ code: 'ERR_CONN_ABORTED' })
    const error = await within('the pending read ends', pending)
    if (!makePipe.isTcp) return expect(error).toBe(undefined)
    expect(error).toMatchObject({ code: 'ECONNRESET' })
    expect(await within('the peer is over', b.closed)).toMatchObject({ code: 'ECONNRESET' })
    expect(() => b.write('x')).toThrow(expect.objectContaining({ code: 'ECONNRESET' }))
    expect(await rejection(read(b))).toMatchObject({ code: 'ECONNRESET' })
  })

  test('what waits and what comes fails on this side', async () => {
    const { a } = await makePipe()
    const waits = [read(a), read(a)]
    await stall(a)
    waits.push(a.drained() as Promise<never>, a.flushed() as Promise<never>)
    const failures = Promise.all(waits.map((wait) => rejection(wait)))
    a.abort()
    for (const error of await failures) expect(error).toMatchObject({ code: 'ERR_CONN_ABORTED' })
    expect(await rejection(read(a))).toMatchObject({ code: 'ERR_CONN_ABORTED' })
    expect(() => a.write('x')).toThrow(expect.objectContaining({ code: 'ERR_CONN_ABORTED' }))
    expect(await within('it is over', a.closed)).toMatchObject({ code: 'ERR_CONN_ABORTED' })
  })

  test('a peer that floods notices; both its directions fail', async () => {
    const { a, b } = await makePipe()
    const both: Promise<(Failure | undefined)[]> = Promise.all([drain(b), flood(b)])
    await sleep(5)
    a.abort()
    const [, writing] = await within('both fail', both)
    expect(writing).toBeDefined()
    const error = await within('the peer is over', b.closed)
    expect(['ECONNRESET', 'EPIPE']).toContain(error?.code)
  })

  test('after close() it ends at once, unsent data or not', async () => {
    const { a, b } = await makePipe()
    await stall(a)
    a.close()
    await turn()
    a.abort()
    expect(await within('it is over', a.closed)).toMatchObject({ code: 'ERR_CONN_ABORTED' })
    const check = new PatternCheck()
    const error = await within(
      'the peer notices',
      drain(b, (bytes) => check.take(bytes)),
    )
    expectReset(makePipe, error)
  })

  test('after a half-close in either direction the peer notices too', async () => {
    for (const first of ['a', 'b'] as const) {
      const { a, b } = await makePipe()
      const halfClosed = first === 'a' ? a : b
      const other = first === 'a' ? b : a
      halfClosed.closeWrite()
      expect(await within('the end', read(other))).toBe(null)
      a.abort()
      await within('it is over', a.closed)
      const noticed = within('the peer notices', Promise.race([drain(b), b.closed]))
      await Promise.race([noticed, flood(b)])
      b.abort()
      await noticed
    }
  })
}
