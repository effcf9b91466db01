// Every server of bench/peers speaks every app, byte for byte: numbers of a server that does less would be worth nothing.
// What is not installed is skipped by name; EDGEWIRE_REQUIRE_PEERS=1 makes its absence a failure.

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectBytes, KiB, MiB, Peer, pieces, randomBytes, randomInt, turn, until, within } from '../e2e/harness.ts'
import { type PeerServer, peerServers, Running } from './peer_servers.ts'

const DEADLINE_MS = 5000
const DEADLINE_TEST_MS = 60_000
const PIECE_BYTES = 64 * KiB
/** So often in a row a client must find that nothing has moved: the looks are some milliseconds apart. */
const STALLED_LOOKS = 80

const servers = peerServers.filter(({ command }) => command !== undefined)
const absent = peerServers.filter((server) => !servers.includes(server)).map(({ name }) => name)
if (absent.length > 0 && process.env.EDGEWIRE_REQUIRE_PEERS === '1') {
  throw new Error(`not installed (npm run bench -- --install-peers): ${absent.join(', ')}`)
}

/** Those that speak `app`, each started once. */
function onEveryServer(app: string, tests: (connect: () => Promise<Peer>) => void): void {
  const speaking = peerServers.filter(({ apps }) => apps.includes(app))
  describe.each(speaking.map((server) => [server.name, server] as const))('%s', (name, { command }) => {
    if (command === undefined) return test.skip(`${name} is not installed`, () => {})
    const options = ['--port', '0', '--app', app]
    let running: Running
    beforeAll(async () => {
      running = await new Running(command, options).ready()
    })
    const connect = () => connectTo(running)
    tests(connect)
    test('ends with status 0 on SIGTERM, with connections open', async () => {
      const another = await new Running(command, options).ready()
      await Promise.all([connectTo(another), connectTo(another), connectTo(another)])
      expect(await another.terminate()).toBe(0)
    })
    afterAll(() => running.kill())
  })
}

async function connectTo({ port }: Running): Promise<Peer> {
  const peer = new Peer({ host: '127.0.0.1', port, allowHalfOpen: true })
  await within('the peer connects', peer.connected)
  return peer
}

/** All that the server sends until its FIN. */
async function untilEnd(peer: Peer): Promise<Buffer> {
  await within('the server closes', peer.ended)
  return peer.received
}

/**
 * Sends each of these in two pieces, cut at every position, on a connection each. An answer on one more connection lies
 * between the two: a server with one thread has seen the first piece by then, if not for certain.
 */
async function inTwoPieces(request: Buffer, connect: () => Promise<Peer>, exchange: (peer: Peer) => Promise<unknown>) {
  const cuts = Array.from({ length: request.length - 1 }, (_, at) => at + 1)
  const peers = await Promise.all(cuts.map(connect))
  await Promise.all(peers.map((peer, at) => peer.send(request.subarray(0, cuts[at]))))
  await exchange(await connect())
  await Promise.all(peers.map((peer, at) => peer.send(request.subarray(cuts[at]))))
  return peers
}

async function sendInPieces(peer: Peer, bytes: Buffer, max: number): Promise<void> {
  for (const piece of pieces(bytes, max)) {
    await peer.send(piece)
    await turn()
  }
}

/** Sends more than the kernel keeps, while somebody does not read: the server has to stop reading, too. */
async function sendUntilStalled(peer: Peer, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) peer.socket.write(bytes.subarray(at, at + PIECE_BYTES))
  let before = -1
  let sameLooks = 0
  await until('the server stops reading', () => {
    const unsent = peer.socket.writableLength
    sameLooks = unsent === before ? sameLooks + 1 : 0
    before = unsent
    return sameLooks >= STALLED_LOOKS
  })
  expect(before, 'bytes that the server has not taken while nobody read').toBeGreaterThan(0)
}

async function sendBeforeReading(peer: Peer, request: Buffer, reply: Buffer): Promise<void> {
  peer.socket.pause()
  await sendUntilStalled(peer, request)
  peer.finish()
  peer.socket.resume()
  expectBytes(await untilEnd(peer), reply)
}

for (const app of ['echo', 'deadline']) {
  describe(app, () => {
    onEveryServer(app, (connect) => {
      test('bytes come back, on many connections', async () => {
        const exchanges = Array.from({ length: 8 }, async () => {
          const peer = await connect()
          const bytes = randomBytes(256 * KiB)
          await sendInPieces(peer, bytes, 16 * KiB)
          expectBytes(await peer.bytes(bytes.length), bytes)
        })
        await Promise.all(exchanges)
      })

      test('a client that sends, and finishes, long before it reads', async () => {
        const bytes = randomBytes(32 * MiB)
        await sendBeforeReading(await connect(), bytes, bytes)
      })
    })
  })
}

test(
  'the deadline ends who is silent, and not who goes on',
  async () => {
    const ofOne = async ({ command }: PeerServer) => {
      const options = ['--port', '0', '--app', 'deadline', '--deadline-ms', String(DEADLINE_MS)]
      const running = await new Running(command ?? [], options).ready()
      try {
        // A machine that stalls for as long as the deadline proves nothing: again.
        while (!(await outlivesSilent(running)));
      } finally {
        await running.kill()
      }
    }
    await Promise.all(servers.map(ofOne))
  },
  DEADLINE_TEST_MS,
)

/**
 * One connection goes on while another, opened later, is silent until it is ended. False if the one that goes on was kept
 * from it.
 */
async function outlivesSilent(running: Running): Promise<boolean> {
  const talker = await connectTo(running)
  const talkerOver = overOf(talker)
  let silentOver: Promise<void> | undefined
  let over = false
  const start = performance.now()
  for (let count = 1, last = start; !over; count++) {
    void talker.send('!').catch(() => {})
    const echoed = within('an echo', talker.bytes(count), 4 * DEADLINE_MS).then(() => 'echoed')
    const outcome = await Promise.race([echoed, talkerOver.then(() => 'over')])
    const now = performance.now()
    if (now - last > DEADLINE_MS / 5) return false
    if (outcome === 'over') throw new Error('the deadline ended a connection that was not silent')
    if (now - start > 5 * DEADLINE_MS) throw new Error('the deadline has not ended a silent connection')
    last = now
    if (silentOver === undefined && now - start > DEADLINE_MS / 2) {
      silentOver = overOf(await connectTo(running)).then(() => {
        over = true
      })
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return true
}

const overOf = (peer: Peer): Promise<unknown> => Promise.race([peer.ended, peer.closed])

describe('fanout', () => {
  onEveryServer('fanout', (connect) => {
    const subscribe = async () => {
      const peer = await connect()
      await peer.send('S')
      expectBytes(await peer.bytes(1), Buffer.from('S'))
      return peer
    }
    const publication = (bytes: Buffer) => Buffer.concat([Buffer.from('S'), bytes])

    test('200 messages reach 50 subscribers in order, whoever leaves meanwhile', async () => {
      const [left, reset] = [await subscribe(), await subscribe()]
      const subscribers = await Promise.all(Array.from({ length: 50 }, subscribe))
      const publisher = await connect()
      const messages = Array.from({ length: 200 }, () => randomBytes(randomInt(1, 4 * KiB)))
      messages[0]?.fill('P', 0, 1) // the first byte of a connection that does not subscribe
      for (const [at, message] of messages.entries()) {
        await publisher.send(message)
        if (at === 60) left.finish()
        if (at === 120) reset.reset()
        await turn()
      }
      const wanted = publication(Buffer.concat(messages))
      for (const subscriber of subscribers) expectBytes(await subscriber.bytes(wanted.length), wanted)
      expect(publisher.receivedBytes).toBe(0)
    })

    test('a slow subscriber loses nothing', async () => {
      const [slow, quick] = [await subscribe(), await subscribe()]
      slow.socket.pause()
      const publisher = await connect()
      const bytes = randomBytes(32 * MiB).fill('P', 0, 1)
      await sendUntilStalled(publisher, bytes)
      slow.socket.resume()
      const wanted = publication(bytes)
      expectBytes(await slow.bytes(wanted.length), wanted)
      expectBytes(await quick.bytes(wanted.length), wanted)
    })

    test('a publisher goes on when the slow subscriber is gone', async () => {
      const [slow, quick] = [await subscribe(), await subscribe()]
      slow.socket.pause()
      const publisher = await connect()
      const bytes = randomBytes(32 * MiB).fill('P', 0, 1)
      await sendUntilStalled(publisher, bytes)
      slow.reset()
      const wanted = publication(bytes)
      expectBytes(await quick.bytes(wanted.length), wanted)
    })
  })
})

describe('lines', () => {
  const text = (length: number) => Buffer.alloc(length, 'The quick brown fox jumps over the lazy dog. ').toString()
  const requestOf = (payloads: string[]) => Buffer.from(payloads.map((payload) => `ECHO ${payload}\n`).join(''))
  const replyOf = (payloads: string[]) => Buffer.from(payloads.map((payload) => `+${payload}\n`).join(''))

  onEveryServer('lines', (connect) => {
    const exchange = async (peer: Peer, payloads: string[]) => {
      const before = peer.receivedBytes
      await peer.send(requestOf(payloads))
      const wanted = replyOf(payloads)
      expectBytes((await peer.bytes(before + wanted.length)).subarray(before), wanted)
    }

    test('a request may be split anywhere', async () => {
      const payloads = ['a', '', 'two words']
      const peers = await inTwoPieces(requestOf(payloads), connect, (peer) => exchange(peer, ['ping']))
      for (const peer of peers) {
        const wanted = replyOf(payloads)
        expectBytes(await peer.bytes(wanted.length), wanted)
        await exchange(peer, ['and on'])
      }
    })

    test('many requests in one chunk, and the longest', async () => {
      const peer = await connect()
      await exchange(
        peer,
        Array.from({ length: 2000 }, () => text(randomInt(0, 200))),
      )
      await exchange(peer, [text(64 * KiB), '', text(64 * KiB)])
      peer.finish()
      await untilEnd(peer)
    })

    test('anything else is refused, after the replies before it', async () => {
      for (const wrong of ['NOPE\n', '\n', 'ECHO\n', 'echo a\n']) {
        const peer = await connect()
        await peer.send(`ECHO a\n${wrong}ECHO b\n`)
        expectBytes(await untilEnd(peer), Buffer.from('+a\n-ERR\n'))
      }
      const long = await connect()
      // It may be reset: not all of this is read.
      long.send(`ECHO ${text(70 * KiB)}`).catch(() => {})
      await within('the server closes', Promise.race([long.ended, long.closed]))
      expect(['-ERR\n', '']).toContain(long.received.toString())
    })

    test('a client that sends, and finishes, long before it reads', async () => {
      const payloads = Array.from({ length: 8000 }, () => text(randomInt(0, 8 * KiB)))
      await sendBeforeReading(await connect(), requestOf(payloads), replyOf(payloads))
    })
  })
})

describe('frames', () => {
  const frame = (length: number, bytes = randomBytes(length)) => {
    const header = Buffer.alloc(4)
    header.writeUInt32BE(length)
    return Buffer.concat([header, bytes])
  }

  onEveryServer('frames', (connect) => {
    const exchange = async (peer: Peer, frames: Buffer) => {
      const before = peer.receivedBytes
      await peer.send(frames)
      expectBytes((await peer.bytes(before + frames.length)).subarray(before), frames)
    }

    test('a frame may be split anywhere', async () => {
      const frames = Buffer.concat([frame(1), frame(9), frame(2)])
      const peers = await inTwoPieces(frames, connect, (peer) => exchange(peer, frame(3)))
      for (const peer of peers) {
        expectBytes(await peer.bytes(frames.length), frames)
        await exchange(peer, frame(5))
      }
    })

    test('many frames in one chunk, and the longest', async () => {
      const peer = await connect()
      await exchange(peer, Buffer.concat(Array.from({ length: 2000 }, () => frame(randomInt(1, 200)))))
      await exchange(peer, Buffer.concat([frame(MiB), frame(1), frame(MiB - 1)]))
      const bytes = Buffer.concat([frame(40), frame(70 * KiB), frame(1)])
      await sendInPieces(peer, bytes, 16 * KiB)
      peer.finish()
      expectBytes((await untilEnd(peer)).subarray(-bytes.length), bytes)
    })

    test('a length out of range ends the connection, after the replies before it', async () => {
      for (const length of [0, MiB + 1, 0xffff_ffff]) {
        const peer = await connect()
        const good = frame(7)
        await peer.send(Buffer.concat([good, frame(length, Buffer.alloc(0))]))
        expectBytes(await untilEnd(peer), good)
      }
    })

    test('a client that sends, and finishes, long before it reads', async () => {
      const frames = Buffer.concat(Array.from({ length: 320 }, () => frame(randomInt(1, 200 * KiB))))
      await sendBeforeReading(await connect(), frames, frames)
    })
  })
})

const countOf = (count: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(count))
  return bytes
}

describe('sink', () => {
  onEveryServer('sink', (connect) => {
    test.each([0, 1, 5 * MiB + 3])('%i bytes are counted', async (count) => {
      const peer = await connect()
      await sendInPieces(peer, randomBytes(count), 128 * KiB)
      expect(peer.receivedBytes, 'bytes that came before the FIN was sent').toBe(0)
      peer.finish()
      expectBytes(await untilEnd(peer), countOf(count))
    })
  })
})

describe('source', () => {
  const pattern = (count: number) => Buffer.from(Uint8Array.from({ length: count }, (_, at) => at % 251))

  onEveryServer('source', (connect) => {
    const take = async (peer: Peer, count: number) => {
      await peer.send(countOf(count))
      expectBytes(await untilEnd(peer), pattern(count))
    }

    test('the count may be split anywhere', async () => {
      const peers = await inTwoPieces(countOf(300_000), connect, (peer) => take(peer, 1))
      for (const peer of peers) expectBytes(await untilEnd(peer), pattern(300_000))
    })

    test.each([0, 1, 251 * 1024, 5 * MiB])('%i bytes come', async (count) => take(await connect(), count))

    test('a slow reader that has finished gets all of it', async () => {
      const peer = await connect()
      const count = 24 * MiB + 17
      peer.socket.pause()
      await peer.send(countOf(count))
      peer.finish()
      await take(await connect(), 2 * MiB)
      peer.socket.resume()
      expectBytes(await untilEnd(peer), pattern(count))
    })

    test('who finishes without asking is let go', async () => {
      const peer = await connect()
      await peer.send(Buffer.alloc(7))
      peer.finish()
      expect(await untilEnd(peer)).toHaveLength(0)
    })
  })
})

describe.each(servers.map((server) => [server.name, server] as const))('%s', (_, { command = [] }) => {
  test.each([
    ['an unknown app', ['--port', '0', '--app', 'nope']],
    ['no port', []],
    ['a port that is none', ['--port', '65536']],
    ['an unknown option', ['--port', '0', '--nope']],
    ['a deadline that is none', ['--port', '0', '--deadline-ms', '0']],
  ])('refuses %s with status 2', async (__, options) => {
    const program = new Running(command, options)
    try {
      expect(await program.text()).not.toContain('listening')
      expect(await program.ended).toBe(2)
    } finally {
      await program.kill()
    }
  })
})
