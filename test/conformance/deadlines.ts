// Deadlines are absolute, apply to pending and to future operations, and never harm the connection.

import { describe, expect, test } from 'vitest'
import { KiB, rejection, sleep, turn, within } from '../e2e/harness.ts'
import type { End, EventEnd, MakePipe, Pipe } from './ends.ts'
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
  readFull,
  readPattern,
  roundtrip,
  send,
  sendPattern,
  stall,
} from './exchange.ts'

const StepsMs = [0, 1, 2, 5, 10, 30, 100, 300, 1000]
const far = () => Date.now() + 60_000

async function text(end: End, bytes: number): Promise<string> {
  return String(await within('the bytes come', readFull(end, bytes)))
}

export function deadlines(makePipe: MakePipe): void {
  readDeadlines(makePipe)
  writeDeadlines(makePipe)
  values(makePipe)

  test(`it passes after ${StepsMs.join(', ')} ms: never early, the earlier ones first`, async () => {
    const order: number[] = []
    const pipes = await Promise.all(StepsMs.map(() => makePipe()))
    await within(
      'every deadline passes',
      Promise.all(
        StepsMs.map(async (ms, i) => {
          const { a } = pipes[i] as Pipe
          const at = Date.now() + ms
          a.setReadDeadline(ms % 2 === 0 ? at : new Date(at))
          expect(await rejection(read(a))).toMatchObject(isTimeout)
          expect(Date.now(), `${ms} ms`).toBeGreaterThanOrEqual(at)
          order.push(ms)
        }),
      ),
    )
    // Neighbours that lie close may come in one turn; those that do not, in order.
    const apart = order.filter((ms) => ms === 0 || ms >= 30)
    expect(apart).toEqual(StepsMs.filter((ms) => ms === 0 || ms >= 30))
  })

  test('set anew for every message, it does not pass while messages come, and passes when they stop', async () => {
    const { a, b } = await makePipe()
    const echoing = echo(b)
    const begin = Date.now()
    while (Date.now() < begin + 1000) {
      a.setDeadline(Date.now() + 400)
      await send(a, 'ping')
      expect(await text(a, 4)).toBe('ping')
    }
    await expectTimeout(read(a))
    await roundtrip(a)
    a.closeWrite()
    await within('the echo ends', echoing)
  })

  test('concurrent reads all fail with the one deadline, and later bytes go to later reads', async () => {
    const { a, b } = await makePipe()
    const buffers = Array.from({ length: 5 }, () => new Uint8Array(8))
    a.setReadDeadline(Date.now() + 10)
    const reads = buffers.map((into) => expectTimeout(a.read(into)))
    await within('all fail', Promise.all(reads))
    a.setReadDeadline(null)
    b.write('late')
    expect(await text(a, 4)).toBe('late')
    for (const into of buffers) expect(into.every((byte) => byte === 0)).toBe(true)
  })

  test('in both directions at once, each end fails on its own', async () => {
    const { a, b } = await makePipe()
    a.setDeadline(Date.now() + 10)
    b.setDeadline(far())
    const pending = read(b, 1)
    await expectTimeout(read(a))
    a.setWriteDeadline(null)
    await send(a, 'x')
    expect(await within('the other end reads', pending)).toBe(1)
    await send(b, 'y')
    await expectTimeout(read(a))
    a.setReadDeadline(null)
    expect(await text(a, 1)).toBe('y')
  })
}

function readDeadlines(makePipe: MakePipe): void {
  test('passed, it fails reads even when bytes are there; they are there when it is cleared', async () => {
    const { a, b } = await makePipe()
    await sendPattern(b, 32 * KiB)
    await within('it is sent', b.flushed())
    await readPattern(a, 10)
    a.setReadDeadline(LongAgo)
    for (let i = 0; i < 3; i++) {
      await expectTimeout(read(a))
      await turn()
    }
    a.setReadDeadline(null)
    await readPattern(a, 32 * KiB - 10, 16 * KiB, 10)
  })

  test('passed, it fails a read at the end of the stream too; the end is there when it is cleared', async () => {
    const { a, b } = await makePipe()
    b.write('x')
    b.closeWrite()
    expect(await text(a, 1)).toBe('x')
    a.setReadDeadline(LongAgo)
    await expectTimeout(read(a))
    a.setReadDeadline(null)
    expect(await within('the end', read(a))).toBe(null)
  })

  test('cleared or moved before it passes, it does not fire', async () => {
    for (const change of [null, far()]) {
      const { a, b } = await makePipe()
      a.setReadDeadline(Date.now() + 10)
      const pending = read(a)
      a.setReadDeadline(change)
      await sleep(30)
      b.write('abc')
      expect(await within('a read', pending)).toBe(3)
    }
  })

  test('cleared or moved after it has passed, reads work; moved nearer, it passes earlier', async () => {
    const { a, b } = await makePipe()
    for (const change of [null, far()]) {
      a.setReadDeadline(Date.now() + 5)
      await expectTimeout(read(a))
      await expectTimeout(read(a))
      a.setReadDeadline(change)
      b.write('abc')
      expect(await text(a, 3)).toBe('abc')
    }
    const pending = expectTimeout(read(a))
    a.setReadDeadline(Date.now() + 5)
    await pending
  })

  test('passed while the process was busy and bytes came: a read gets one or the other, and nothing is lost', async () => {
    const { a, b } = await makePipe()
    const check = new PatternCheck()
    for (let round = 0; round < 20; round++) {
      b.write(patternAt(round * 100, 100))
      await within('it is sent', b.flushed())
      const into = new Uint8Array(100)
      a.setReadDeadline(Date.now() + 2)
      const pending = a.read(into)
      const end = Date.now() + 4
      while (Date.now() < end);
      try {
        check.take(into.subarray(0, (await within('it settles', pending)) as number))
      } catch (error) {
        expect(error).toMatchObject(isTimeout)
        expect(into.every((byte) => byte === 0)).toBe(true)
      }
      a.setReadDeadline(null)
    }
    await readPattern(a, 2000 - check.bytes, 100, check.bytes)
  })

  test.runIf(makePipe.style === 'events')(
    'with handlers it is told once, and again when it was set again',
    async () => {
      const { a } = await makePipe()
      for (let times = 1; times <= 5; times++) {
        a.setReadDeadline(times % 2 === 0 ? LongAgo : Date.now() + 5)
        await expectTimeout(read(a))
        await expectTimeout(read(a))
        await sleep(5)
        expect((a as EventEnd).timeouts).toBe(times)
      }
    },
  )

  test('moved again and again while a read waits, only the last one counts', async () => {
    const { a } = await makePipe()
    const pending = rejection(read(a))
    for (const ms of [60_000, 500, 1000, 20, 70, 30_000, 60, 40]) a.setReadDeadline(Date.now() + ms)
    const at = Date.now() + 40
    expect(await pending).toMatchObject(isTimeout)
    expect(Date.now()).toBeGreaterThanOrEqual(at - 1)
  })
}

function writeDeadlines(makePipe: MakePipe): void {
  test('a write deadline fails what waits and what comes; what was taken is still sent, exactly', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    const sent = await stall(a)
    a.setWriteDeadline(Date.now() + 10)
    await within('all fail', Promise.all([expectTimeout(a.drained()), expectTimeout(a.flushed())]))
    expectWriteTimeout(a)
    await expectTimeout(a.flushed())
    await readPattern(b, sent, 256 * KiB)
    expectWriteTimeout(a)
    a.setWriteDeadline(null)
    await send(a, 'x')
    expect(await text(b, 1)).toBe('x')
  })

  test('a write deadline that is cleared or moved in time does not fire', async () => {
    const pipe = await makePipe()
    const { a, b } = pipe
    const sent = await stall(a)
    a.setWriteDeadline(Date.now() + 10)
    const waits = Promise.all([a.drained(), a.flushed()])
    a.setWriteDeadline(far())
    await sleep(20)
    a.setWriteDeadline(null)
    await readPattern(b, sent, 256 * KiB)
    await within('it drains', waits)
  })

  test('a passed write deadline does not keep closeWrite() or close() from ending the stream in order', async () => {
    const { a, b } = await makePipe()
    a.write('abc')
    a.setDeadline(LongAgo)
    a.closeWrite()
    expect(await text(b, 3)).toBe('abc')
    expect(await within('the end', read(b))).toBe(null)
    a.close()
    b.close()
    expect(await within('both end', Promise.all([a.closed, b.closed]))).toEqual([undefined, undefined])
  })
}

function values(makePipe: MakePipe): void {
  describe('what may be given', () => {
    const past: [string, () => Date | number][] = [
      ['one millisecond ago', () => Date.now() - 1],
      ['now', () => Date.now()],
      ['0', () => 0],
      ['-1', () => -1],
      ['-Infinity', () => Number.NEGATIVE_INFINITY],
      ['a Date', () => new Date(Date.now() - 1000)],
      ['the first Date there is', () => new Date(-8.64e15)],
    ]
    test.each(past)('the past: %s', async (_, when) => {
      const { a, b } = await makePipe()
      const echoing = echo(b)
      for (let i = 0; i < 2; i++) {
        const pending = expectTimeout(read(a), 'a timeout of what is pending')
        await turn()
        a.setDeadline(when())
        await pending
        await expectTimeout(read(a))
        expectWriteTimeout(a)
        await roundtrip(a)
      }
      a.closeWrite()
      await within('the echo ends', echoing)
    })

    const future: [string, () => Date | number | null][] = [
      ['null', () => null],
      ['a minute', () => Date.now() + 60_000],
      ['30 days, more than a timer of Node takes', () => Date.now() + 30 * 24 * 3600_000],
      ['100 years', () => new Date(Date.now() + 100 * 365 * 24 * 3600_000)],
      ['the last Date there is', () => new Date(8.64e15)],
      ['the largest number', () => Number.MAX_VALUE],
      ['Infinity', () => Number.POSITIVE_INFINITY],
      ['a fraction of a millisecond', () => Date.now() + 60_000.123],
    ]
    test(`the future: ${future.map(([name]) => name).join(', ')}`, async () => {
      const { a, b } = await makePipe()
      const echoing = echo(b)
      for (const [name, when] of future) {
        a.setDeadline(when())
        const pending = readFull(a, 4)
        await send(a, 'ping')
        expect(String(await within(name, pending))).toBe('ping')
      }
      a.closeWrite()
      await within('the echo ends', echoing)
    })

    test('NaN and an invalid Date throw, and change nothing', async () => {
      const { a, b } = await makePipe()
      for (const bad of [Number.NaN, new Date(Number.NaN)]) {
        for (const set of ['setDeadline', 'setReadDeadline', 'setWriteDeadline'] as const) {
          a.setDeadline(null)
          expect(() => a[set](bad)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG' }))
          await send(a, 'x')
          a.setDeadline(LongAgo)
          expect(() => a[set](bad)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG' }))
          expectWriteTimeout(a)
          await expectTimeout(read(a))
        }
      }
      expect(await text(b, 6)).toBe('xxxxxx')
    })

    test('on an end that is closing it does no harm', async () => {
      const { a, b } = await makePipe()
      const errors = Promise.all([drain(a), flood(a, 16 * KiB)])
      await turn()
      a.close()
      a.setDeadline(LongAgo)
      for (const error of await within('both fail', errors)) expect(error).toMatchObject({ code: 'ERR_CONN_CLOSED' })
      const unread = await within('the other end reads all', drain(b))
      expect(unread).toBe(undefined)
      b.close()
      expect(await within('both end', Promise.all([a.closed, b.closed]))).toEqual([undefined, undefined])
    })
  })
}
