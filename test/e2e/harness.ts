// What every end-to-end test needs: transports, a node:net peer that is independent of edgewire, bounded waits, seeded
// bytes, and the checks that hold after every test: no connection, descriptor or chunk of the pool is left.

import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import net from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Handlers, type Listener, type ListenOptions, listen, stats, type Task } from 'edgewire'
import { afterEach, beforeEach, expect } from 'vitest'
import { isBun, isDeno, isRuntimes } from './runtime.ts'

/** Far longer than anything takes on a busy machine. A run that is known to fail can be told to wait less. */
const WAIT_MS = Number(process.env.EDGEWIRE_TEST_WAIT_MS ?? 10_000)
const POLL_MS = 5
export const MiB = 1024 * 1024
export const KiB = 1024

// ---- waits ---------------------------------------------------------------------------------------------------------

/** What a test waits for always comes, or the test says what did not. */
export async function within<T>(what: string, promise: PromiseLike<T>, ms = WAIT_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms in vain: ${what}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Waits until `holds` returns true; `state` describes what there is instead. */
export async function until(what: string, holds: () => boolean, state = () => '', ms = WAIT_MS): Promise<void> {
  const end = Date.now() + ms
  while (!holds()) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain: ${what} ${state()}`)
    await sleep(POLL_MS)
  }
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** One loop iteration of libuv: what was written is flushed, what lies in the kernel is read. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

export function deferred<T = void>() {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((done, fail) => {
    resolve = done
    reject = fail
  })
  return { promise, resolve, reject }
}

/** What a promise rejects with; a promise that resolves is an error. */
export async function rejection(promise: Promise<unknown>, what = 'a rejection'): Promise<Record<string, unknown>> {
  const outcome = await within(
    what,
    promise.then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    ),
  )
  if ('value' in outcome) throw new Error(`expected ${what}, but it resolved with ${String(outcome.value)}`)
  return outcome.error as Record<string, unknown>
}

// ---- bytes ---------------------------------------------------------------------------------------------------------

/** Set EDGEWIRE_TEST_SEED to repeat a failed run. */
export const seed = Number(process.env.EDGEWIRE_TEST_SEED ?? Date.now() & 0x7fffffff)

let randomState = seed >>> 0

/** mulberry32: 0 <= random() < 1. */
export function random(): number {
  randomState = (randomState + 0x6d2b79f5) >>> 0
  let mixed = randomState
  mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
}

/** An integer from `min` to `max`. */
export const randomInt = (min: number, max: number) => min + Math.floor(random() * (max - min + 1))

export function randomBytes(count: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(count)
  for (let at = 0; at + 4 <= count; at += 4) bytes.writeUInt32LE((random() * 2 ** 32) >>> 0, at)
  for (let at = count & ~3; at < count; at++) bytes[at] = randomInt(0, 255)
  return bytes
}

/** Cuts bytes into pieces of random sizes. */
export function* pieces(bytes: Buffer, max: number, min = 1): Generator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const next = Math.min(bytes.length, at + randomInt(min, max))
    yield bytes.subarray(at, next)
    at = next
  }
}

/** As expect(actual).toEqual(wanted), without printing megabytes: says where they differ. */
export function expectBytes(actual: Uint8Array, wanted: Uint8Array, what = 'the bytes received'): void {
  if (Buffer.compare(actual, wanted) === 0) return
  const shorter = Math.min(actual.length, wanted.length)
  let at = 0
  while (at < shorter && actual[at] === wanted[at]) at++
  throw new Error(`${what} differ: ${actual.length} bytes instead of ${wanted.length}, the first wrong one at ${at}`)
}

// ---- transports ----------------------------------------------------------------------------------------------------

export interface Transport {
  name: 'tcp4' | 'tcp6' | 'unix' | 'abstract'
  isTcp: boolean
  /** A fresh place to listen on. */
  place(): { host: string; port: number } | { path: string }
}

const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'))
const folders: string[] = []
let names = 0

/** A path in a fresh folder, which goes after the test. */
export function freshPath(name = 's'): string {
  const folder = mkdtempSync(join(tmpdir(), 'edgewire-'))
  folders.push(folder)
  return join(folder, name)
}

const everyTransport: Transport[] = [
  { name: 'tcp4', isTcp: true, place: () => ({ host: '127.0.0.1', port: 0 }) },
  { name: 'tcp6', isTcp: true, place: () => ({ host: '::1', port: 0 }) },
  { name: 'unix', isTcp: false, place: () => ({ path: freshPath() }) },
  { name: 'abstract', isTcp: false, place: () => ({ path: fullAbstractName() }) },
]

/** Node 20 fills every abstract name up with zeros to its full length, so only such a name is the same to node:net. */
function fullAbstractName(): string {
  return `\0edgewire-test-${process.pid}-${names++}-`.padEnd(isBun ? 50 : 108, 'x')
}

export const transports = everyTransport.filter(
  ({ name }) => (name !== 'tcp6' || hasIpv6) && (name !== 'abstract' || process.platform === 'linux'),
)
/** For properties in which an abstract socket is a Unix socket like any other. */
export const mainTransports = transports.filter(({ name }) => name !== 'abstract')
export const tcp4 = everyTransport[0] as Transport
export const unix = everyTransport[2] as Transport

// ---- the server's side ---------------------------------------------------------------------------------------------

const listeners: Listener[] = []

/** As listen(), on `transport`; is shut down and checked after the test. */
export async function serve(
  transport: Transport,
  style?: Handlers | Task,
  options: Partial<ListenOptions> = {},
): Promise<Listener> {
  const listener = await listen({ ...transport.place(), ...options }, style)
  return track(listener)
}

export function track(listener: Listener): Listener {
  listeners.push(listener)
  return listener
}

/** Everything that the listener accepted has ended by itself. */
export const allClosed = (listener: Listener) =>
  until(
    'every connection of the listener ends',
    () => listener.stats().open === 0,
    () => `(${listener.stats().open} are open)`,
  )

/** What dial() needs to reach it. */
export function placeOf(listener: Listener): { host: string; port: number } | { path: string } {
  return listener.family === 'unix' ? { path: listener.address } : { host: listener.address, port: listener.port }
}

export const echoHandlers: Handlers = {
  data(conn, chunk) {
    if (!conn.write(chunk)) conn.pause()
  },
  drain(conn) {
    conn.resume()
  },
}

export const echoTask: Task = async (conn) => {
  const buffer = new Uint8Array(16 * KiB)
  for (;;) {
    const count = await conn.read(buffer)
    if (count === null) return
    if (!conn.write(buffer.subarray(0, count))) await conn.drained()
  }
}

/** The same service in each style. */
export const echoStyles: [name: string, style: Handlers | Task][] = [
  ['handlers', echoHandlers],
  ['task', echoTask],
]

// ---- the peer: node:net ----------------------------------------------------------------------------------------------

const peers: Peer[] = []

/** A node:net client that remembers all it has received. */
export class Peer {
  readonly socket: net.Socket
  readonly connected: Promise<void>
  /** The server's FIN has come. */
  readonly ended: Promise<void>
  /** The socket is closed; with the error, if there was one. */
  readonly closed: Promise<NodeJS.ErrnoException | undefined>
  receivedBytes = 0
  private readonly chunks: Buffer[] = []

  constructor(options: net.NetConnectOpts) {
    peers.push(this)
    this.socket = net.connect({ noDelay: true, ...options })
    let error: NodeJS.ErrnoException | undefined
    this.connected = new Promise((resolve) => this.socket.once('connect', resolve))
    this.ended = new Promise((resolve) => this.socket.once('end', resolve))
    this.closed = new Promise((resolve) => this.socket.once('close', () => resolve(error)))
    this.socket.on('error', (failure) => {
      error ??= failure
    })
    this.socket.on('data', (chunk) => {
      this.chunks.push(chunk)
      this.receivedBytes += chunk.length
    })
  }

  get received(): Buffer {
    return Buffer.concat(this.chunks)
  }

  /** Waits until so many bytes have come, and returns all that have. */
  async bytes(count: number, ms = WAIT_MS): Promise<Buffer> {
    const state = () => `(${this.receivedBytes} of ${count} bytes have come)`
    await until('the peer receives its bytes', () => this.receivedBytes >= count, state, ms)
    return this.received
  }

  /** Sends bytes; resolves when node:net has handed them to the kernel. */
  send(bytes: Uint8Array | string): Promise<void> {
    return new Promise((resolve, reject) =>
      this.socket.write(bytes, (error) => (error === null || error === undefined ? resolve() : reject(error))),
    )
  }

  /** Sends FIN, after what has been written. */
  finish(): void {
    this.socket.end()
  }

  /** Sends RST; a Unix socket has none: it goes at once, which is an error to the other side only if it writes. */
  reset(): void {
    if (this.socket.remoteAddress === undefined) this.socket.destroy()
    else this.socket.resetAndDestroy()
  }
}

/**
 * Connects a node:net client to a listener; it answers FIN with FIN unless allowHalfOpen is set, and is destroyed after
 * the test. A server that resets at once may be faster than node:net's `connect` event: that counts as connected.
 */
export async function connect(listener: Listener, options: Partial<net.TcpNetConnectOpts> = {}): Promise<Peer> {
  const peer = new Peer({ ...placeOf(listener), ...options } as net.NetConnectOpts)
  const refused = peer.closed.then((error) => {
    if (error !== undefined && error.code !== 'ECONNRESET') throw error
  })
  await within('the peer connects', Promise.race([peer.connected, refused]))
  return peer
}

// ---- what holds after every test -----------------------------------------------------------------------------------

function descriptors(): string[] {
  if (process.platform !== 'linux') return []
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`)
      return isRuntimes(Number(fd), target) ? [] : [`${fd} ${target}`]
    } catch {
      return [] // the folder's own
    }
  })
}

/** For what one call leaves. Deno opens and closes some of its own meanwhile: there only what a test leaves is counted. */
export const descriptorCount = () => (isDeno ? 0 : descriptors().length)

const closers: (() => unknown)[] = []

/** Runs after the test, before it is looked at what the test left. */
export function atEnd(close: () => unknown): void {
  closers.push(close)
}

/** What a failed test has left before is not held against the next one. */
let before: string[] = []
let openBefore = 0
let slabBefore = 0

beforeEach(async () => {
  // The first listen() opens the loop with its descriptors; those stay.
  const first = await listen({ host: '127.0.0.1', port: 0 })
  await first.close()
  before = descriptors()
  openBefore = stats().open
  slabBefore = stats().slabInUseBytes
})

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') console.error(`EDGEWIRE_TEST_SEED=${seed}`)
  for (const peer of peers.splice(0)) peer.socket.destroy()
  for (const close of closers.splice(0)) await close()
  for (const listener of listeners.splice(0)) {
    await within('the listener shuts down', listener.shutdown())
    expect(listener.stats().open, 'connections open after shutdown()').toBe(0)
  }
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
  await expectNothingLeft()
})

/** Deno opens a pair of sockets for itself, once in a process, in the middle of a test. */
let runtimesOwn = isDeno ? 2 : 0
let seenOwn = 0

function isAllowed(more: number): boolean {
  if (more === 0) return true
  if (more !== runtimesOwn) return false
  // Sockets that are being closed are gone at the next looks.
  if (++seenOwn < 20) return false
  runtimesOwn = 0
  return true
}

async function expectNothingLeft(): Promise<void> {
  const open = () => stats().accepted + stats().dialed - stats().closed
  await until(
    'every connection is closed',
    () => open() <= openBefore,
    () => `(${open()} are open, ${openBefore} were)`,
  )
  await until(
    'the chunks of the pool are back',
    () => stats().slabInUseBytes <= slabBefore,
    () => `(${stats().slabInUseBytes} bytes are in use, ${slabBefore} were)`,
  )
  await until(
    'no descriptor is left',
    () => isAllowed(descriptors().length - before.length),
    () => `: before\n  ${before.join('\n  ')}\nnow\n  ${descriptors().join('\n  ')}`,
  )
}
