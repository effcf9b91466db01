// Every byte once and in order, whatever the pieces, the readers and the memory that they come from.

import { expect, test } from 'vitest'
import { expectBytes, KiB, MiB, pieces, random, randomBytes, randomInt, sleep, turn, within } from '../e2e/harness.ts'
import type { End, MakePipe } from './ends.ts'
import { drain, PatternCheck, patternAt, readAll, readFull, readPattern, send, stall, stalled } from './exchange.ts'

/** As in native/abi.h. */
const ArenaBytes = MiB
/** One character of each length in UTF-8, and a lone surrogate, which becomes U+FFFD. */
const Widths = ['a', 'é', '漢', '😀', '\ud800']

/** Sizes on both sides of every border at which write() treats bytes differently. */
const EdgeSizes = [1, 31, 32, 33, 4095, 4096, 4097, 8192, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 200_000]

export function order(makePipe: MakePipe): void {
  sizes(makePipe)
  strings(makePipe)

  test('full duplex, sizes at random, readers with buffers of random size and pauses', async () => {
    const { a, b } = await makePipe()
    const sender = async (end: End, payload: Buffer) => {
      for (const piece of pieces(payload, randomInt(0, 1) === 0 ? 2000 : 150_000)) await send(end, piece)
      end.closeWrite()
    }
    const receiver = async (end: End) => {
      const got: Buffer[] = []
      await drain(end, (bytes) => got.push(Buffer.from(bytes)), randomInt(1000, 70_000))
      return Buffer.concat(got)
    }
    const [toB, toA] = [randomBytes(2 * MiB), randomBytes(MiB)]
    const [, , gotA, gotB] = await within(
      'all is moved',
      Promise.all([sender(a, toB), sender(b, toA), receiver(a), receiver(b)]),
    )
    expectBytes(gotA, toA)
    expectBytes(gotB, toB)
  })

  test('partial sends to a reader of a few bytes at a time never reorder or repeat', async () => {
    const { a, b } = await makePipe()
    let sent = await stall(a)
    let got = 0
    while (got < sent) {
      const count = Math.min(random() < 0.9 ? randomInt(1, 5000) : randomInt(1, 500_000), sent - got)
      await readPattern(b, count, count, got)
      got += count
      if (sent < 6 * MiB && a.bufferedAmount < 128 * KiB) {
        const size = EdgeSizes[randomInt(0, EdgeSizes.length - 1)] as number
        a.write(patternAt(sent, size))
        sent += size
      }
    }
    a.closeWrite()
    expect(await within('the end', b.read(new Uint8Array(1)))).toBe(null)
  })

  test('reads are served in order, each with what it asks for', async () => {
    const { a, b } = await makePipe()
    const sizesAsked = Array.from({ length: 200 }, () => randomInt(1, 700))
    const buffers = sizesAsked.map((size) => new Uint8Array(size))
    const order: number[] = []
    const reads = buffers.map(async (into, i) => {
      const count = await b.read(into)
      order.push(i)
      return Buffer.from(into.subarray(0, count as number))
    })
    let sent = 0
    let done = false
    const all = within('every read is served', Promise.all(reads)).finally(() => {
      done = true
    })
    while (!done) {
      const count = randomInt(1, 400)
      // When the last read is served, nobody reads on for the sender to go on.
      await Promise.race([send(a, patternAt(sent, count)), all])
      sent += count
      if (randomInt(0, 3) === 0) await turn()
    }
    const check = new PatternCheck()
    for (const bytes of await all) {
      expect(bytes.length).toBeGreaterThan(0)
      check.take(bytes)
    }
    expect(order).toEqual(buffers.map((_, i) => i))
    await readPattern(b, sent - check.bytes, 16 * KiB, check.bytes)
  })

  test('a stream of single bytes, each a write', async () => {
    const { a, b } = await makePipe()
    const got = readAll(b)
    for (let at = 0; at < 5000; at++) await send(a, patternAt(at, 1))
    a.closeWrite()
    expectBytes(await got, patternAt(0, 5000))
  })
}

function sizes(makePipe: MakePipe): void {
  test(`writes of ${EdgeSizes.join(', ')} bytes, in all orders, in one turn and in many`, async () => {
    const { a, b } = await makePipe()
    let sent = 0
    const got = (async () => {
      const check = new PatternCheck()
      await within(
        'all is read',
        drain(b, (bytes) => check.take(bytes), 64 * KiB),
      )
      return check.bytes
    })()
    for (const first of EdgeSizes) {
      for (const second of EdgeSizes) {
        for (const size of [first, second, 1]) {
          a.write(patternAt(sent, size))
          sent += size
        }
        if (randomInt(0, 2) === 0) await turn()
        if (a.bufferedAmount > MiB) await a.drained()
      }
    }
    a.closeWrite()
    expect(await got).toBe(sent)
  })

  test('a small buffer that changes right after write() is sent as it was', async () => {
    const { a, b } = await makePipe()
    const mine = Buffer.alloc(4095)
    let sent = 0
    const stalledAt = await stall(a)
    for (let i = 0; i < 100; i++) {
      const size = randomInt(1, 4095)
      patternAt(stalledAt + sent, size).copy(mine)
      a.write(mine.subarray(0, size))
      mine.fill(0xff)
      sent += size
    }
    await stalled(a)
    mine.fill(0xfe)
    await readPattern(b, stalledAt + sent, 100_000)
  })

  test('read and write with one buffer: an echo of any size is exact, also to a reader that stalls', async () => {
    // Only a buffer that edgewire's read() was given may be used again while it is sent.
    const large = makePipe.style === 'events' ? [] : [32 * KiB, 100_000]
    for (const size of [1000, 4096, ...large]) {
      const { a, b } = await makePipe()
      const buffer = new Uint8Array(size)
      const echoing = (async () => {
        for (;;) {
          const got = await b.read(buffer)
          if (got === null) break
          if (!b.write(buffer.subarray(0, got))) await b.drained()
        }
        b.closeWrite()
      })()
      const total = 4 * MiB
      const sending = (async () => {
        for (let at = 0; at < total; at += 64 * KiB) await send(a, patternAt(at, 64 * KiB))
        a.closeWrite()
      })()
      await sleep(5)
      await readPattern(a, total, 64 * KiB)
      await within('both are done', Promise.all([echoing, sending]))
    }
  })
}

function strings(makePipe: MakePipe): void {
  /** Writes all in one turn, so that the arena fills, and compares with what Buffer makes of it. */
  async function exchange(texts: string[]): Promise<void> {
    const { a, b } = await makePipe()
    const got = readAll(b, 64 * KiB)
    for (const text of texts) a.write(text)
    a.closeWrite()
    expectBytes(await got, Buffer.concat(texts.map((text) => Buffer.from(text))))
  }

  test.each(Widths)('strings of %j across the border of the arena', async (character) => {
    const bytes = Buffer.byteLength(character)
    // Up to every distance from the border, then a string over it.
    const texts: string[] = []
    for (let filled = 0; filled < ArenaBytes + 40_000; ) {
      const count = filled < ArenaBytes - 40_000 ? 5000 : randomInt(1, 60)
      texts.push(character.repeat(count))
      filled += count * bytes
    }
    await exchange(texts)
  })

  test('strings of all widths mixed, with buffers between them, several arenas full', async () => {
    const { a, b } = await makePipe()
    const got = readAll(b, 64 * KiB)
    const wanted: Buffer[] = []
    let bytes = 0
    while (bytes < 4 * ArenaBytes) {
      const text = Array.from({ length: randomInt(1, 400) }, () => Widths[randomInt(0, 4)]).join('')
      const data = randomInt(0, 4) === 0 ? randomBytes(randomInt(1, 5000)) : text.repeat(randomInt(1, 8))
      wanted.push(Buffer.from(data as string))
      bytes += (wanted.at(-1) as Buffer).length
      a.write(data)
      if (randomInt(0, 500) === 0) await a.drained()
    }
    a.closeWrite()
    expectBytes(await got, Buffer.concat(wanted))
  })

  test('strings around the longest that is encoded in place, and far beyond it', async () => {
    const texts = Widths.flatMap((character) =>
      [16_383, 16_384, 16_385, 100_000].map((length) => character.repeat(Math.ceil(length / character.length))),
    )
    await exchange(texts)
  })

  test('empty writes send nothing and end nothing', async () => {
    const { a, b } = await makePipe()
    for (let i = 0; i < 10; i++) {
      expect(a.write('')).toBe(true)
      expect(a.write(new Uint8Array(0))).toBe(true)
      a.write('x')
    }
    expect(String(await within('the bytes come', readFull(b, 10)))).toBe('xxxxxxxxxx')
  })
}
