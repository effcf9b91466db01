// A server of node:net for the pool's tests, which can misbehave. Every connection has an id: whoever sends '?' is told it,
// as four bytes.

import { once } from 'node:events'
import net from 'node:net'
import { type Conn, createPool, type Lease, type Pool, type PoolOptions } from 'edgewire'
import { atEnd, within } from './harness.ts'

const ID_BYTES = 4

export class PoolServer {
  /** The open connections, by id. */
  readonly sockets = new Map<number, net.Socket>()
  accepted = 0
  /** Questions that were answered. */
  answers = 0
  /** Connections are accepted, questions are not answered. */
  isStalling = false
  /** Connections whose questions are not answered any more. */
  readonly stalled = new Set<number>()
  /** Connections are reset as soon as they are there. */
  isResetting = false
  port = 0
  private server: net.Server | undefined

  constructor(readonly host = '127.0.0.1') {}

  static async start(host?: string, port = 0): Promise<PoolServer> {
    const server = new PoolServer(host)
    server.port = port
    await server.appear()
    atEnd(() => server.vanish())
    return server
  }

  get name(): string {
    return `${this.host}:${this.port}`
  }

  /** Listens, on the port that it had before if it has vanished. */
  async appear(): Promise<void> {
    if (this.server !== undefined) return
    const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.serve(socket))
    this.server = server
    server.listen({ host: this.host, port: this.port, backlog: 512 })
    await within('the server listens', once(server, 'listening'))
    this.port = (server.address() as net.AddressInfo).port
  }

  /** Its machine has crashed and come back, so to say: connections are reset, new ones refused. */
  async vanish(): Promise<void> {
    const { server } = this
    if (server === undefined) return
    this.server = undefined
    const closed = once(server, 'close')
    server.close()
    for (const socket of this.sockets.values()) socket.resetAndDestroy()
    await within('the server closes', closed)
  }

  private serve(socket: net.Socket): void {
    const id = ++this.accepted
    this.sockets.set(id, socket)
    socket.on('error', () => {})
    socket.on('close', () => this.sockets.delete(id))
    socket.on('end', () => socket.end())
    socket.on('data', (chunk) => {
      if (this.isStalling || this.stalled.has(id)) return
      this.answers += chunk.length
      // In one piece, which is in the client's kernel when write() returns.
      socket.write(Buffer.concat(Array.from(chunk, () => idBytes(id))))
    })
    if (this.isResetting) socket.resetAndDestroy()
  }
}

function idBytes(id: number): Buffer {
  const bytes = Buffer.alloc(ID_BYTES)
  bytes.writeUInt32BE(id)
  return bytes
}

/** Asks the server at the other end which connection this is. */
export async function idOf(conn: Conn): Promise<number> {
  conn.write('?')
  const bytes = new Uint8Array(ID_BYTES)
  for (let have = 0; have < ID_BYTES; ) {
    const count = await conn.read(bytes.subarray(have))
    if (count === null) throw new Error('the server has closed')
    have += count
  }
  return Buffer.from(bytes).readUInt32BE()
}

/** A pool, which is drained after the test. */
export function pooled(server: PoolServer, options: Partial<PoolOptions> = {}): Pool {
  const pool = createPool({ host: server.host, port: server.port, ...options } as PoolOptions)
  atEnd(() => pool.drain({ timeoutMs: 100 }))
  return pool
}

export const take = (pool: Pool): Promise<Lease> => within('a connection is lent', pool.acquire({ timeoutMs: 0 }))

export async function use(pool: Pool): Promise<number> {
  return within('a connection is used', pool.use(idOf))
}
