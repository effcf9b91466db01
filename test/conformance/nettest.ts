// The eleven properties of golang.org/x/net/nettest. Go's Write blocks; here write() and, when it says so, drained()
// take its place.

import { expect, test } from 'vitest'
import { expectBytes, KiB, MiB, sleep, turn, within } from '../e2e/harness.ts'
import type { End, Failure, MakePipe } from './ends.ts'
import {
  drain,
  echo,
  expectTimeout,
  expectWriteTimeout,
  flood,
  isTimeout,
  LongAgo,
  PatternCheck,
  patternAt,
  read,
  readAll,
  readFull,
  resync,
  roundtrip,
  send,
  sendPattern,
} from './exchange.ts'

const Workers = 10
const CallsPerWorker = 100
const PendingMs = 50

export function nettest(makePipe: MakePipe): void {
  test('BasicIO: 1 MiB in writes of 1 KiB arrives, then the end', async () => {
    const { a, b } = await makePipe()
    const sent = sendPattern(a, MiB).then(() => a.close())
    expectBytes(await readAll(b, KiB), patternAt(0, MiB))
    await within('all is sent', sent)
    b.close()
    expect(await within('both end', Promise.all([a.closed, b.closed]))).toEqual([undefined, undefined])
  })

  test('PingPong: 1000 answers, each to the one before', async () => {
    const { a, b } = await makePipe()
    const play = async (end: End) => {
      let last = 0
      for (;;) {
        const ball = await readFull(end, 8)
        if (ball === null) break
        const value = Number(ball.readBigUInt64LE())
        if (last !== 0) expect(value).toBe(last + 2)
        last = value
        if (value === 1000) break
        ball.writeBigUInt64LE(BigInt(value + 1))
        await send(end, ball)
      }
      end.close()
      return last
    }
    a.write(Buffer.alloc(8))
    const [first, second] = await within('they play', Promise.all([play(a), play(b)]))
    expect(Math.max(first, second)).toBe(1000)
  })

  racyRead(makePipe)
  racyWrite(makePipe)

  test('ReadTimeout: a passed read deadline does not affect writing', async () => {
    const { a, b } = await makePipe()
    const got = readAll(b)
    a.setReadDeadline(LongAgo)
    await expectTimeout(read(a))
    await sendPattern(a, 100 * KiB)
    await expectTimeout(read(a))
    a.closeWrite()
    expectBytes(await got, patternAt(0, 100 * KiB))
  })

  test('WriteTimeout: a passed write deadline does not affect reading', async () => {
    const { a, b } = await makePipe()
    a.setWriteDeadline(LongAgo)
    expectWriteTimeout(a)
    const sent = sendPattern(b, 100 * KiB).then(() => b.closeWrite())
    expectBytes(await readAll(a), patternAt(0, 100 * KiB))
    await within('all is sent', sent)
    expectWriteTimeout(a)
  })

  test('PastTimeout: nothing is read or written after it; cleared, the connection works', async () => {
    const { a, b } = await makePipe()
    const echoing = echo(b)
    await roundtrip(a)
    a.setDeadline(LongAgo)
    expectWriteTimeout(a)
    const into = new Uint8Array(KiB)
    await expectTimeout(a.read(into))
    await turn()
    expect(into.every((byte) => byte === 0)).toBe(true)
    // What was refused has not been sent: the echo is exact.
    await roundtrip(a)
    a.closeWrite()
    await within('the echo ends', echoing)
  })

  test('PresentTimeout: set to the past, it unblocks what is pending at once, and not before', async () => {
    const { a } = await makePipe()
    let isSet = false
    const early: string[] = []
    const settled = (what: string, error: Failure | undefined) => {
      if (!isSet) early.push(what)
      expect(error).toMatchObject(isTimeout)
    }
    const reading = drain(a).then((error) => settled('read', error))
    const writing = flood(a).then((error) => settled('write', error))
    await sleep(PendingMs)
    isSet = true
    a.setReadDeadline(LongAgo)
    a.setWriteDeadline(LongAgo)
    await within('both unblock', Promise.all([reading, writing]))
    expect(early).toEqual([])
  })

  test('FutureTimeout: it unblocks what is pending when it has come; moved, the connection works', async () => {
    const { a, b } = await makePipe()
    const at = Date.now() + PendingMs
    a.setDeadline(at)
    const errors = await within('both unblock', Promise.all([drain(a), flood(a)]))
    for (const error of errors) expect(error).toMatchObject(isTimeout)
    expect(Date.now()).toBeGreaterThanOrEqual(at)
    const echoing = echo(b)
    await resync(a)
    await roundtrip(a)
    a.closeWrite()
    await within('the echo ends', echoing)
  })

  test('CloseTimeout: close() unblocks what is pending', async () => {
    const { a, b } = await makePipe()
    const echoing = echo(b)
    a.setDeadline(null)
    const both = Promise.all([drain(a), flood(a)])
    await sleep(PendingMs)
    a.close()
    for (const error of await within('both unblock', both)) expect(error).toMatchObject({ code: 'ERR_CONN_CLOSED' })
    b.abort()
    await within('the echo ends', echoing)
  })

  test('ConcurrentMethods: calls of all kinds at once do no harm', async () => {
    const { a, b } = await makePipe()
    const echoing = echo(b)
    const calls: (() => unknown)[] = [
      () => read(a),
      () => a.write(Buffer.alloc(KiB)) || a.drained(),
      () => a.setDeadline(Date.now() + 10),
      () => a.setReadDeadline(LongAgo),
      () => a.setWriteDeadline(LongAgo),
      () => a.flushed(),
      () => a.bufferedAmount,
    ]
    const waits: Promise<unknown>[] = []
    for (let i = 0; i < 100; i++) {
      for (const call of calls) waits.push(atSomeTime(call))
    }
    const failures = (await within('all settle', Promise.allSettled(waits))).flatMap((outcome) =>
      outcome.status === 'rejected' ? [outcome.reason as Failure] : [],
    )
    expect(failures.length).toBeGreaterThan(0)
    for (const error of failures) expect(error).toMatchObject(isTimeout)
    await resync(a)
    await roundtrip(a)
    a.closeWrite()
    await within('the echo ends', echoing)
  })
}

/** In this microtask, the next turn, or a timer: as goroutines would mix. */
async function atSomeTime(call: () => unknown): Promise<unknown> {
  const when = Math.floor(Math.random() * 3)
  if (when === 1) await turn()
  if (when === 2) await sleep(1)
  return call()
}

function racyRead(makePipe: MakePipe): void {
  test('RacyRead: a failed read leaves its buffer alone, and loses nothing', async () => {
    const { a, b } = await makePipe()
    const flooding = flood(b)
    const check = new PatternCheck()
    let failed = 0
    const work = async () => {
      for (let call = 0; call < CallsPerWorker; call++) {
        const mine = new Uint8Array(KiB)
        try {
          const count = await a.read(mine)
          check.take(mine.subarray(0, count as number))
        } catch (error) {
          expect(error).toMatchObject(isTimeout)
          failed++
          mine.fill(0xaa)
          abandoned.push(mine)
          a.setReadDeadline(Date.now() + 1)
        }
      }
    }
    const abandoned: Uint8Array[] = []
    a.setReadDeadline(Date.now() + 1)
    await within('all have read', Promise.all(Array.from({ length: Workers }, work)))
    // A few more deadlines that surely pass while reads wait.
    expect(check.bytes).toBeGreaterThan(0)
    a.setReadDeadline(LongAgo)
    for (let i = 0; i < Workers; i++) await expectTimeout(read(a))
    a.setReadDeadline(null)
    const from = check.bytes
    await within(
      'the stream goes on',
      drain(a, (bytes) => {
        check.take(bytes)
        return check.bytes < from + MiB
      }),
    )
    for (const mine of abandoned) expect(mine.every((byte) => byte === 0xaa)).toBe(true)
    expect(abandoned.length).toBe(failed)
    b.abort()
    await flooding
  })
}

function racyWrite(makePipe: MakePipe): void {
  test('RacyWrite: a written buffer may change at once; what was refused is not sent', async () => {
    const { a, b } = await makePipe({ highWaterMark: KiB })
    const reading = readAll(b)
    const taken: Buffer[] = []
    let number = 0
    const work = async () => {
      const mine = Buffer.alloc(KiB)
      for (let call = 0; call < CallsPerWorker; call++) {
        const value = number++ % 251
        mine.fill(value)
        try {
          const below = a.write(mine)
          taken.push(Buffer.from(mine))
          mine.fill(0xff)
          if (!below) await a.drained()
        } catch (error) {
          mine.fill(0xff)
          expect(error).toMatchObject(isTimeout)
          await turn()
          a.setWriteDeadline(Date.now() + 1)
        }
      }
    }
    a.setWriteDeadline(Date.now() + 1)
    await within('all have written', Promise.all(Array.from({ length: Workers }, work)))
    a.setWriteDeadline(null)
    a.closeWrite()
    expectBytes(await reading, Buffer.concat(taken))
  })
}
