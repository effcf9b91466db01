// Watermarks, pausing, and what a reader that does not read does to its sender.

import type { ConnOptions } from 'edgewire'
import { describe, expect, test } from 'vitest'
import { expectBytes, KiB, MiB, sleep, turn, until, within } from '../e2e/harness.ts'
import type { End, MakePipe } from './ends.ts'
import {
  drain,
  expectReset,
  PatternCheck,
  patternAt,
  readAll,
  readPattern,
  send,
  sendPattern,
  stall,
  stalled,
} from './exchange.ts'

/** More than the kernel holds for a connection, far less than a sender without backpressure would queue. */
const KernelBytesMax = 24 * MiB
const Marks = { highWaterMark: 64 * KiB, lowWaterMark: 16 * KiB }

export function backpressure(makePipe: MakePipe): void {
  describe('watermarks', () => watermarks(makePipe))
  describe('a reader that does not read', () => stalledReader(makePipe))
  if (makePipe.style !== 'task') describe('pause() and resume()', () => pausing(makePipe))
  if (makePipe.style !== 'oracle') describe('overflow', () => overflow(makePipe))
}

function watermarks(makePipe: MakePipe): void {
  test('write() is false above the high watermark, until the low one is reached', async () => {
    const { a, b } = await makePipe(Marks)
    const sent = await stall(a)
    for (let i = 0; i < 3; i++) expect(a.write('')).toBe(false)
    const drained = a.drained().then(() => expect(a.bufferedAmount).toBeLessThanOrEqual(Marks.lowWaterMark))
    await readPattern(b, sent, 100_000)
    await within('it drains', drained)
    await within('it is flushed', a.flushed())
    expect(a.write('')).toBe(true)
  })

  test('drained() comes at the low watermark, flushed() at nothing, in that order, to all who wait', async () => {
    const { a, b } = await makePipe(Marks)
    const sent = await stall(a)
    const seen: string[] = []
    const waits = ['flushed', 'drained', 'flushed', 'drained'].map(async (what) => {
      await a[what as 'drained']()
      seen.push(what)
      expect(a.bufferedAmount).toBeLessThanOrEqual(what === 'drained' ? Marks.lowWaterMark : 0)
    })
    await sleep(2)
    expect(seen).toEqual([])
    await readPattern(b, sent, 100_000)
    await within('all come', Promise.all(waits))
    expect(seen.indexOf('drained')).toBeLessThanOrEqual(seen.indexOf('flushed'))
    await within('at once', Promise.all([a.drained(), a.flushed()]))
  })

  test.runIf(makePipe.style !== 'task')('one `drain` per crossing, none without', async () => {
    const { a, b } = await makePipe(Marks)
    const drains = () => a.events?.drains
    for (let i = 0; i < 10; i++) {
      expect(a.write(Buffer.alloc(Marks.highWaterMark / 2))).toBe(true)
      await within('it is flushed', a.flushed())
    }
    await drainBytes(b, 5 * Marks.highWaterMark)
    expect(drains()).toBe(0)
    for (let crossing = 0; crossing < 3; crossing++) {
      const sent = await stall(a)
      const before = drains() as number
      for (let i = 0; i < 3; i++) expect(a.write('')).toBe(false)
      await sleep(2)
      expect(drains()).toBe(before)
      await readPattern(b, sent, 100_000)
      await until('`drain` comes', () => (drains() as number) > before)
      await within('it is flushed', a.flushed())
      await turn()
      expect(drains()).toBe(before + 1)
    }
  })

  // net.Socket sends at once, edgewire when the turn's handlers have run: until then all of it waits.
  test.runIf(makePipe.style !== 'oracle')('watermarks are kept to the byte', async () => {
    const { a, b } = await makePipe({ highWaterMark: 10, lowWaterMark: 0 })
    expect(a.write('0123456789')).toBe(true)
    await within('it is flushed', a.flushed())
    expect(a.write('0123456789x')).toBe(false)
    await within('it drains', a.drained())
    expect(a.bufferedAmount).toBe(0)
    await until('write() is true again', () => a.write(''))
    await drainBytes(b, 21)
  })

  test('a well-behaved sender never queues more than the watermark and one write', async () => {
    const { a, b } = await makePipe(Marks)
    const size = 10 * KiB
    let most = 0
    const sending = (async () => {
      for (let at = 0; at < 8 * MiB; at += size) {
        const below = a.write(patternAt(at, size))
        most = Math.max(most, a.bufferedAmount)
        if (!below) await a.drained()
      }
      a.closeWrite()
    })()
    const check = new PatternCheck()
    await within(
      'all is read',
      drain(b, (bytes) => check.take(bytes), 5000),
    )
    await sending
    expect(check.bytes).toBeGreaterThanOrEqual(8 * MiB)
    expect(most).toBeLessThanOrEqual(Marks.highWaterMark + size)
  })
}

async function drainBytes(end: End, count: number): Promise<void> {
  let left = count
  await within(
    'the bytes come',
    drain(end, (bytes) => {
      left -= bytes.length
      return left > 0
    }),
  )
  expect(left).toBe(0)
}

function stalledReader(makePipe: MakePipe): void {
  test('stops its sender; reading again, it gets every byte', async () => {
    const { a, b } = await makePipe()
    const total = 2 * KernelBytesMax
    let taken = 0
    const sending = (async () => {
      for (let at = 0; at < total; at += 256 * KiB) {
        await send(a, patternAt(at, 256 * KiB))
        taken = at
      }
      a.closeWrite()
    })()
    await stalled(a)
    const stoppedAt = a.bytesWritten
    await sleep(20)
    expect(a.bytesWritten).toBe(stoppedAt)
    expect(stoppedAt).toBeLessThan(KernelBytesMax)
    expect(taken).toBeLessThan(KernelBytesMax)
    await readPattern(b, total, 256 * KiB)
    await within('the sender ends', sending)
  })

  test('does not stop the other direction', async () => {
    const { a, b } = await makePipe()
    const sent = await stall(a)
    const got = readAll(a)
    await sendPattern(b, MiB, 5000)
    b.closeWrite()
    expectBytes(await got, patternAt(0, MiB))
    await readPattern(b, sent, 100_000)
  })

  test('both ends stalled on each other, then both move', async () => {
    const { a, b } = await makePipe()
    const [fromA, fromB] = await Promise.all([stall(a), stall(b)])
    await Promise.all([readPattern(b, fromA, 70_000), readPattern(a, fromB, 70_000)])
    await within('both are flushed', Promise.all([a.flushed(), b.flushed()]))
  })

  test('stops and goes many times, never losing a byte', async () => {
    const { a, b } = await makePipe(Marks)
    let sent = 0
    let got = 0
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < 20 && a.bufferedAmount < MiB; i++) {
        a.write(patternAt(sent, 50_000))
        sent += 50_000
      }
      await turn()
      const count = round % 2 === 0 ? 1000 : Math.min(700_000, sent - got)
      await readPattern(b, count, 20_000, got)
      got += count
    }
    await readPattern(b, sent - got, 20_000, got)
    await within('it drains', a.drained())
  })
}

/** The chunks that `end` is given; `onChunk` is told of each. */
function collect(end: End, onChunk: (bytes: number) => void = () => {}): PatternCheck {
  const check = new PatternCheck()
  if (end.events === undefined) throw new Error('this style has no events')
  end.events.onData = (chunk) => {
    check.take(chunk)
    onChunk(chunk.length)
  }
  return check
}

function pausing(makePipe: MakePipe): void {
  test('pause() inside `data` delivers nothing more; resume() goes on, many times', async () => {
    const { a, b } = await makePipe()
    const events = b.events!
    let paused = false
    const got = collect(b, () => {
      expect(paused).toBe(false)
      paused = true
      events.pause()
    })
    const total = 4 * MiB // a chunk of Bun's net.Socket, the oracle there, has up to 512 KiB
    const sending = sendPattern(a, total, 64 * KiB)
    let rounds = 0
    while (got.bytes < total) {
      await until('a chunk comes', () => paused)
      const before = got.bytes
      await turn()
      expect(got.bytes).toBe(before)
      if (got.bytes >= total) break
      paused = false
      events.resume()
      rounds++
    }
    await within('all is sent', sending)
    expect(rounds).toBeGreaterThan(5)
  })

  test('resume() delivers what lay in the kernel, without a new event', async () => {
    const { a, b } = await makePipe()
    const got = collect(b)
    b.events!.pause()
    await sendPattern(a, 48 * KiB)
    await within('it is sent', a.flushed())
    await sleep(5)
    expect(got.bytes).toBe(0)
    // Nothing more is sent: only what is there can make it go on.
    b.events!.resume()
    await until('it is delivered', () => got.bytes === 48 * KiB)
  })

  test('the end waits for resume() too, behind all data', async () => {
    const { a, b } = await makePipe()
    const got = collect(b)
    b.events!.pause()
    await sendPattern(a, 48 * KiB)
    a.closeWrite()
    await sleep(10)
    expect([got.bytes, b.events!.ends]).toEqual([0, 0])
    b.events!.resume()
    await until('the end comes', () => b.events!.ends === 1)
    expect(got.bytes).toBe(48 * KiB)
  })

  test('pause() and resume() in one tick, in any number, change nothing', async () => {
    const { a, b } = await makePipe()
    const got = collect(b, () => {
      for (let i = 0; i < 3; i++) {
        b.events!.pause()
        b.events!.resume()
      }
    })
    await sendPattern(a, MiB)
    await until('all comes', () => got.bytes === MiB)
  })

  test('a paused reader stops its sender through the kernel', async () => {
    const { a, b } = await makePipe()
    const got = collect(b)
    b.events!.pause()
    const sent = await stall(a, MiB)
    expect(a.bufferedAmount).toBeGreaterThanOrEqual(MiB)
    expect(got.bytes).toBe(0)
    b.events!.resume()
    await until('all comes', () => got.bytes === sent)
    await within('it is flushed', a.flushed())
  })
}

function overflow(makePipe: MakePipe): void {
  const bound = 512 * KiB
  const withPolicy = (policy: ConnOptions['overflow']): ConnOptions => ({
    ...Marks,
    maxBufferedBytes: bound,
    overflow: policy!,
  })

  test('at most maxBufferedBytes are taken, to the byte', async () => {
    const { a, b } = await makePipe(withPolicy('throw'))
    const sent = await stall(a)
    const room = bound - a.bufferedAmount
    expect(() => a.write(Buffer.alloc(room + 1))).toThrow(expect.objectContaining({ code: 'ERR_BUFFER_OVERFLOW' }))
    a.write(patternAt(sent, room))
    expect(a.bufferedAmount).toBe(bound)
    for (const more of ['x', Buffer.from('x')]) {
      expect(() => a.write(more)).toThrow(expect.objectContaining({ code: 'ERR_BUFFER_OVERFLOW' }))
    }
    await readPattern(b, sent + room, 100_000)
    await send(a, patternAt(sent + room, 10))
    await readPattern(b, 10, 10, sent + room)
  })

  test("'drop': a write beyond it is not sent at all; those before and after are", async () => {
    const { a, b } = await makePipe(withPolicy('drop'))
    const sent = await stall(a)
    for (let i = 0; i < 5; i++) expect(a.write(Buffer.alloc(bound))).toBe(false)
    await readPattern(b, sent, 100_000)
    await within('it drains', a.drained())
    await until('write() is true again', () => a.write(''))
    await Promise.all([sendPattern(a, MiB, 5000, sent), readPattern(b, MiB, 5000, sent)])
  })

  test("'abort': the connection is over with ERR_BUFFER_OVERFLOW, and its peer sees a reset", async () => {
    const { a, b } = await makePipe(withPolicy('abort'))
    const sent = await stall(a)
    const waiting = a.drained().catch((error: unknown) => error)
    expect(a.write(Buffer.alloc(bound))).toBe(false)
    expect(await within('what waits fails', waiting)).toMatchObject({ code: 'ERR_BUFFER_OVERFLOW' })
    expect(await within('it is over', a.closed)).toMatchObject({ code: 'ERR_BUFFER_OVERFLOW' })
    const check = new PatternCheck()
    const error = await within(
      'the peer notices',
      drain(b, (bytes) => check.take(bytes)),
    )
    expect(check.bytes).toBeLessThan(sent)
    expectReset(makePipe, error)
  })
}
