// What the properties have in common: moving bytes through ends, and the pattern by which they are recognized.

import { expect } from 'vitest'
import { KiB, rejection, sleep, turn, within } from '../e2e/harness.ts'
import type { End, Failure, MakePipe } from './ends.ts'

export const LongAgo = new Date(233_431_200_000)
export const isTimeout = { code: 'ERR_DEADLINE_EXCEEDED', timeout: true }

/** Never in the sequence. */
const MarkByte = 0xff
const PatternBytes = 64 * KiB + 251
const pattern = Buffer.alloc(PatternBytes * 2)
for (let at = 0; at < pattern.length; at++) pattern[at] = (Math.imul(at % PatternBytes, 0x9e3779b1) >>> 13) % MarkByte

/** Bytes `from` to `from + count` of an endless sequence whose period divides no buffer's size. Not to be changed. */
export function patternAt(from: number, count: number): Buffer {
  const start = from % PatternBytes
  if (count <= PatternBytes) return pattern.subarray(start, start + count)
  const all = Buffer.allocUnsafe(count)
  for (let at = 0; at < count; at += PatternBytes) {
    pattern.copy(all, at, start, start + Math.min(PatternBytes, count - at))
  }
  return all
}

/** Checks that a stream is the sequence, byte for byte. */
export class PatternCheck {
  bytes = 0

  take(chunk: Uint8Array): void {
    const wanted = patternAt(this.bytes, chunk.length)
    if (Buffer.compare(chunk, wanted) !== 0) {
      let at = 0
      while (chunk[at] === wanted[at]) at++
      throw new Error(`byte ${this.bytes + at} is ${chunk[at]} instead of ${wanted[at]}`)
    }
    this.bytes += chunk.length
  }
}

/** Writes all of `bytes` as a well-behaved sender does. */
export async function send(end: End, bytes: Uint8Array | string): Promise<void> {
  if (!end.write(bytes)) await end.drained()
}

/** Sends the sequence from `from` on until it has `count` bytes, in pieces of `pieceBytes`. */
export async function sendPattern(end: End, count: number, pieceBytes = KiB, from = 0): Promise<void> {
  for (let at = 0; at < count; at += pieceBytes) {
    await send(end, patternAt(from + at, Math.min(pieceBytes, count - at)))
  }
}

/** Sends the sequence until something fails, which it resolves with. */
export async function flood(end: End, pieceBytes = KiB): Promise<Failure> {
  try {
    for (let at = 0; ; at += pieceBytes) {
      if (!end.write(patternAt(at, pieceBytes))) await end.drained()
      else if (at % (64 * KiB) === 0) await turn()
    }
  } catch (error) {
    return error as Failure
  }
}

/** Reads until the end or a failure; `take` gets what comes and may say false to stop. Resolves with the failure. */
export async function drain(
  end: End,
  take: (bytes: Uint8Array) => unknown = () => {},
  bufferBytes = 16 * KiB,
): Promise<Failure | undefined> {
  const buffer = new Uint8Array(bufferBytes)
  for (;;) {
    let count: number | null
    try {
      count = await end.read(buffer)
    } catch (error) {
      return error as Failure
    }
    if (count === null) return undefined
    if (take(buffer.subarray(0, count)) === false) return undefined
  }
}

/** All that comes before the end. */
export async function readAll(end: End, bufferBytes = 16 * KiB): Promise<Buffer> {
  const chunks: Buffer[] = []
  const error = await within(
    'all is read',
    drain(end, (bytes) => void chunks.push(Buffer.from(bytes)), bufferBytes),
  )
  if (error !== undefined) throw error
  return Buffer.concat(chunks)
}

/** Reads `count` bytes and checks that they are the sequence. */
export async function readPattern(end: End, count: number, bufferBytes = 16 * KiB, from = 0): Promise<void> {
  const check = new PatternCheck()
  check.bytes = from
  const buffer = new Uint8Array(bufferBytes)
  while (check.bytes < from + count) {
    const wanted = Math.min(bufferBytes, from + count - check.bytes)
    const got = await within(`byte ${check.bytes} comes`, end.read(buffer.subarray(0, wanted)))
    if (got === null) throw new Error(`the end came after ${check.bytes - from} of ${count} bytes`)
    check.take(buffer.subarray(0, got))
  }
}

/** Exactly `count` bytes; null at the end. */
export async function readFull(end: End, count: number): Promise<Buffer | null> {
  const all = Buffer.alloc(count)
  for (let at = 0; at < count; ) {
    const got = await end.read(all.subarray(at))
    if (got === null) return null
    at += got
  }
  return all
}

/** Sends back what comes, until the end or a failure. */
export async function echo(end: End): Promise<void> {
  const buffer = new Uint8Array(KiB)
  try {
    for (;;) {
      const got = await end.read(buffer)
      if (got === null) return
      await send(end, buffer.slice(0, got))
    }
  } catch {
    // The test has ended it.
  }
}

/** `end`, whose peer echoes, works in both directions. */
export async function roundtrip(end: End): Promise<void> {
  end.setDeadline(null)
  await send(end, 'Hello, world!')
  expect(String(await within('the echo comes', readFull(end, 13)))).toBe('Hello, world!')
}

/** Reads what the echoing peer of `end` still has on its way, up to a mark that the test has not sent. */
export async function resync(end: End): Promise<void> {
  end.setDeadline(null)
  await send(end, Buffer.of(MarkByte))
  const buffer = new Uint8Array(KiB)
  for (;;) {
    const got = await within('the mark comes', end.read(buffer))
    if (got === null) throw new Error('the end came before the mark')
    if (buffer.indexOf(MarkByte) === got - 1) return
    buffer.fill(0)
  }
}

export async function expectTimeout(promise: Promise<unknown>, what = 'a timeout'): Promise<void> {
  expect(await rejection(promise, what)).toMatchObject(isTimeout)
}

export function expectWriteTimeout(end: End): void {
  expect(() => end.write('x')).toThrow(expect.objectContaining(isTimeout))
}

export const read = (end: End, bytes = KiB) => end.read(new Uint8Array(bytes))

/** Waits until the kernel takes no more of what `end` has queued. */
export async function stalled(end: End, times = 10): Promise<void> {
  let before = -1
  for (let still = 0; still < times; still++) {
    if (end.bytesWritten !== before) still = 0
    before = end.bytesWritten
    await sleep(1)
  }
}

/** `end`, whose peer does not read, gets more of the sequence to send than the kernel takes: returns how much. */
export async function stall(end: End, queuedBytes = 128 * KiB): Promise<number> {
  const piece = 64 * KiB
  let sent = 0
  do {
    while (end.bufferedAmount < queuedBytes) {
      end.write(patternAt(sent, piece))
      sent += piece
    }
    await stalled(end, 2)
    if (end.bufferedAmount >= queuedBytes) await stalled(end)
  } while (end.bufferedAmount < queuedBytes)
  return sent
}

/**
 * How reading ends when the peer has sent RST behind bytes that were not read yet. Not for net.Socket: libuv takes a
 * short read together with EPOLLHUP for the end of the stream. A Unix socket knows no RST.
 */
export function expectReset(makePipe: MakePipe, error: Failure | undefined): void {
  if (!makePipe.isTcp || (makePipe.style === 'oracle' && error === undefined)) return
  expect(error).toMatchObject({ code: 'ECONNRESET' })
}
