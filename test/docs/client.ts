// A client on node:net, so that edgewire's examples are not checked with edgewire.

import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { expect, onTestFinished } from 'vitest'

const PIECE_BYTES_MAX = 100_000

export class Client {
  private received = Buffer.alloc(0)
  private ended = false
  private error: Error | undefined
  private onChange: (() => void) | undefined

  private constructor(private readonly socket: net.Socket) {
    socket.on('data', (chunk) => {
      this.received = Buffer.concat([this.received, chunk])
      this.onChange?.()
    })
    socket.on('end', () => {
      this.ended = true
      this.onChange?.()
    })
    socket.on('error', (error) => {
      this.ended = true
      this.error = error
      this.onChange?.()
    })
  }

  static async connect(port: number): Promise<Client> {
    const socket = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
    onTestFinished(() => void socket.destroy())
    await once(socket, 'connect')
    return new Client(socket)
  }

  send(bytes: Uint8Array | string): void {
    this.socket.write(bytes)
  }

  /** Sends FIN. */
  finish(): void {
    this.socket.end()
  }

  /** The next `count` bytes. */
  async read(count: number): Promise<Buffer> {
    await this.until(() => this.received.length >= count || this.ended)
    if (this.received.length < count)
      throw this.error ?? new Error(`the peer's FIN came after ${this.received.length} bytes`)
    const bytes = this.received.subarray(0, count)
    this.received = this.received.subarray(count)
    return bytes
  }

  /** All that comes until the peer's FIN, which is answered with our own. Throws when the connection breaks. */
  async rest(): Promise<string> {
    await this.until(() => this.ended)
    if (this.error !== undefined) throw this.error
    this.finish()
    return this.received.toString()
  }

  private async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        this.onChange = resolve
      })
    }
  }

  /** Sends random bytes in random pieces, reads as many, and compares. */
  async expectEcho(count: number): Promise<void> {
    const sent = randomBytes(count)
    const received = this.read(count)
    for (let at = 0; at < count; ) {
      const next = Math.min(count, at + randomInt(1, PIECE_BYTES_MAX))
      this.send(sent.subarray(at, next))
      at = next
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(Buffer.compare(await received, sent), 'every byte comes back, in order').toBe(0)
  }
}
