// The floor is what all others are divided by: it has to serve each app rightly, also where the load generator does not
// look (requests in pieces, bad ones, slow readers, deadlines).

import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { areBuilt, Client, floor, startFloor } from './programs.ts'

const KiB = 1024
const bigEndian = (count: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(count))
  return bytes
}
const frame = (payload: Buffer) => {
  const header = Buffer.alloc(4)
  header.writeUInt32BE(payload.length)
  return Buffer.concat([header, payload])
}
const noise = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 7919 + (i >> 8)) % 256))
const printable = (length: number) => Buffer.from(noise(length).map((byte) => 32 + (byte % 95)))

/** Each piece arrives alone. */
async function sendInPieces(client: Client, bytes: Buffer, pieceBytes: number) {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    client.socket.write(bytes.subarray(at, at + pieceBytes))
    await sleep(2)
  }
}

describe.runIf(areBuilt)('lines', () => {
  test('several in one piece, one in several pieces', async () => {
    const { port } = await startFloor('lines')
    const client = new Client(port)
    client.socket.write('ECHO \nECHO a\nECHO  b \nEC')
    expect(`${await client.take(9)}`).toBe('+\n+a\n+ b \n'.slice(0, 9))
    await client.take(1)
    await sendInPieces(client, Buffer.from('HO in pieces\nECHO next\n'), 1)
    expect(`${await client.take(17)}`).toBe('+in pieces\n+next\n')
  })

  test('as long as it may be, behind others, and no longer', async () => {
    const { port } = await startFloor('lines')
    const client = new Client(port)
    const longest = printable(64 * KiB)
    const sent = Buffer.concat([Buffer.from('ECHO first\nECHO '), longest, Buffer.from('\nECHO last\n')])
    void sendInPieces(client, sent, 20_000)
    const expected = Buffer.concat([Buffer.from('+first\n+'), longest, Buffer.from('\n+last\n')])
    expect((await client.take(expected.length)).equals(expected)).toBe(true)
    client.socket.write(Buffer.concat([Buffer.from('ECHO '), longest, Buffer.from('x\n')]))
    expect(`${await client.rest()}`).toBe('-ERR\n')
  })

  test.each(['echo x\n', 'ECHO\n', '\n', 'nonsense\nECHO x\n', `${'x'.repeat(70_000)}`])(
    'bad line %#: what came before is answered, then the error and the end',
    async (bad) => {
      const { port } = await startFloor('lines')
      const client = new Client(port)
      client.socket.write(`ECHO good\n${bad}`)
      expect(`${await client.rest()}`).toBe('+good\n-ERR\n')
    },
  )
})

describe.runIf(areBuilt)('frames', () => {
  test('several in one piece, one in several pieces', async () => {
    const { port } = await startFloor('frames')
    const client = new Client(port)
    const sent = Buffer.concat([1, 2, 70_000, 3, 1024 * KiB].map((length) => frame(noise(length))))
    void sendInPieces(client, sent.subarray(0, 30), 1).then(() => sendInPieces(client, sent.subarray(30), 40_000))
    expect((await client.take(sent.length)).equals(sent)).toBe(true)
  })

  test.each([0, 1024 * KiB + 1, 0xffffffff])('a length of %d: the end, after what came before', async (length) => {
    const { port } = await startFloor('frames')
    const client = new Client(port)
    const bad = Buffer.alloc(4)
    bad.writeUInt32BE(length)
    client.socket.write(Buffer.concat([frame(Buffer.from('good')), bad, Buffer.from('more')]))
    expect((await client.rest()).equals(frame(Buffer.from('good')))).toBe(true)
  })
})

describe.runIf(areBuilt)('a slow reader', () => {
  test.each(['echo', 'deadline', 'lines', 'frames'])('%s: loses nothing', async (app) => {
    const { port } = await startFloor(app)
    const client = new Client(port)
    client.socket.pause()
    const count = 200
    const payload = printable(60_000)
    const request = {
      lines: Buffer.concat([Buffer.from('ECHO '), payload, Buffer.from('\n')]),
      frames: frame(payload),
    }[app]
    const reply = { lines: Buffer.concat([Buffer.from('+'), payload, Buffer.from('\n')]), frames: frame(payload) }[app]
    for (let i = 0; i < count; i++) client.socket.write(request ?? payload)
    await sleep(200)
    client.socket.resume()
    client.socket.end()
    const got = await client.rest()
    expect(got.equals(Buffer.concat(Array(count).fill(reply ?? payload)))).toBe(true)
  })

  test('fanout: all subscribers get all, in order; the slow one makes the publisher wait', async () => {
    const { port } = await startFloor('fanout')
    const subscribers = Array.from({ length: 3 }, () => new Client(port))
    for (const subscriber of subscribers) {
      subscriber.socket.write('S')
      expect(`${await subscriber.take(1)}`).toBe('S')
    }
    const [slow] = subscribers
    slow?.socket.pause()
    const publisher = new Client(port)
    const message = noise(8 * 1024 * KiB + 3)
    const count = 6
    for (let i = 0; i < count; i++) publisher.socket.write(message)
    await sleep(300)
    expect(publisher.socket.writableLength).toBeGreaterThan(0)
    slow?.socket.resume()
    const expected = Buffer.concat(Array(count).fill(message))
    for (const subscriber of subscribers) expect((await subscriber.take(expected.length)).equals(expected)).toBe(true)
  })
})

describe.runIf(areBuilt)('fanout', () => {
  test('a subscriber that goes, even with bytes for it, stops nobody', async () => {
    const { port } = await startFloor('fanout')
    const stays = new Client(port)
    const goes = new Client(port)
    for (const client of [goes, stays]) {
      client.socket.write('S')
      await client.take(1)
    }
    goes.socket.pause()
    const publisher = new Client(port)
    const message = noise(20 * 1024 * KiB)
    publisher.socket.write(message)
    await sleep(100)
    goes.socket.resetAndDestroy()
    expect((await stays.take(message.length)).equals(message)).toBe(true)
    publisher.socket.write('after')
    expect(`${await stays.take(5)}`).toBe('after')
  })
})

describe.runIf(areBuilt)('one direction', () => {
  test.each([0, 1, 3_000_000])('sink: the count of %d bytes, then the end', async (length) => {
    const { port } = await startFloor('sink')
    const client = new Client(port)
    client.socket.end(Buffer.alloc(length))
    expect(await client.rest()).toEqual(bigEndian(length))
  })

  test.each([0, 1, 251 * KiB + 1, 3_000_000])('source: %d bytes, then the end', async (length) => {
    const { port } = await startFloor('source')
    const client = new Client(port)
    await sendInPieces(client, bigEndian(length), 3)
    const got = await client.rest()
    expect(got.equals(Buffer.from(Array.from({ length }, (_, i) => i % 251)))).toBe(true)
  })
})

describe.runIf(areBuilt)('deadline', () => {
  test('who is silent is closed, who speaks is not', async () => {
    const { port } = await startFloor('deadline', '--deadline-seconds', '2')
    const speaks = new Client(port)
    const silent = new Client(port)
    let ended = false
    speaks.socket.on('end', () => {
      ended = true
    })
    const timer = setInterval(() => speaks.socket.write('x'), 100)
    silent.socket.write('once')
    expect(`${await silent.take(4)}`).toBe('once')
    const begin = Date.now()
    await silent.rest()
    clearInterval(timer)
    expect(Date.now() - begin).toBeGreaterThan(1000)
    expect(ended).toBe(false)
  })
})

describe.runIf(areBuilt)('the program', () => {
  test.each(['echo', 'deadline', 'fanout', 'lines', 'frames', 'sink', 'source'])(
    '%s: SIGTERM ends it with 0',
    async (app) => {
      const { child } = await startFloor(app)
      child.kill('SIGTERM')
      expect(await once(child, 'close')).toEqual([0, null])
    },
  )

  const wrong: [string[], RegExp][] = [
    [[], /either --port or --path/],
    [['--port', '0', '--app', 'nonsense'], /--app is one of echo, deadline, fanout, lines, frames, sink, source/],
    [['--port', '0', '--deadline-seconds', '0'], /--deadline-seconds takes a number/],
    [['--port', '0', '--host', 'nonsense'], /--host takes an IPv4 address/],
    [['--port', '0', '--nonsense'], /an option is unknown/],
  ]
  test.each(wrong)('%j: status 2', async (args, sentence) => {
    const { code, stderr } = await floor(args)
    expect(stderr).toMatch(sentence)
    expect(code).toBe(2)
  })
})
