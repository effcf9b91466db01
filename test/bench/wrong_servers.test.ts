// Every check of the load generator, each against a server that breaks it: a generator that does not see a wrong byte
// would call a server fast that is broken.

import type { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { areBuilt, type LoadOptions, load, withServer } from './programs.ts'

const size = 64
const wrongByte = /byte \d+ (of a message )?is 0x\w\w instead of 0x\w\w/
const tooMany = /the server sent more than it was asked for/
const closed = /the server closed it after \d+ of \d+ bytes/
const silent = /the server has not answered for 5 seconds/

/** Where it depends on the clock which one is seen. */
const either = (...sentences: RegExp[]) => new RegExp(sentences.map(({ source }) => source).join('|'))

/** Hands over the chunks after the message that proves that the connection was accepted, which is echoed rightly. */
function afterFirst(answer: (socket: Socket, chunk: Buffer) => void, first = (chunk: Buffer) => chunk) {
  return (socket: Socket) => {
    let opened = false
    socket.on('data', (chunk: Buffer) => {
      if (opened) return answer(socket, chunk)
      opened = true
      socket.write(first(chunk))
    })
  }
}

function flipped(chunk: Buffer, index = chunk.length - 1): Buffer {
  const copy = Buffer.from(chunk)
  copy.writeUInt8(copy.readUInt8(index) ^ 1, index)
  return copy
}

const lineReply = (request: Buffer) => Buffer.concat([Buffer.from('+'), request.subarray(5)])
const bytesOf = (text: string) => Buffer.from(text)

type Wrong = [string, (socket: Socket) => void, RegExp]

function judge(options: LoadOptions, servers: Wrong[]) {
  test.each(servers)('%s', async (_, onConnection, sentence) => {
    const { code, stdout, stderr } = await withServer(onConnection, (port) =>
      load(port, { connections: 2, size, ...options }),
    )
    expect(stderr).toMatch(sentence)
    expect(stdout).toBe('')
    expect(code).toBe(1)
  })
}

describe.runIf(areBuilt).concurrent('echo', () => {
  const echoes: Wrong[] = [
    ['a wrong last byte', afterFirst((socket, chunk) => socket.write(flipped(chunk))), wrongByte],
    ['a byte lost at the front', afterFirst((socket, chunk) => socket.write(chunk.subarray(1))), wrongByte],
    // At a rate, the next message comes all the same.
    [
      'a byte lost at the end',
      afterFirst((socket, chunk) => socket.write(chunk.subarray(0, -1))),
      either(silent, wrongByte),
    ],
    [
      'a byte too many',
      afterFirst((socket, chunk) => socket.write(Buffer.concat([chunk, chunk.subarray(0, 1)]))),
      tooMany,
    ],
    ['an answer without a question', (socket) => socket.write('x'), either(tooMany, wrongByte)],
    ['an end instead of an answer', afterFirst((socket) => socket.end()), closed],
    ['a reset', afterFirst((socket) => socket.resetAndDestroy()), /Connection reset by peer/],
    ['an end without a question', (socket) => socket.end(), closed],
    ['silence', afterFirst(() => {}), silent],
    ['silence from the beginning', () => {}, silent],
  ]
  describe('a closed loop', () => judge({}, echoes))
  describe('at a rate', () => judge({ rate: 200, seconds: 8 }, echoes))

  test('bytes for another connection', async () => {
    let other: Socket | undefined
    const mixing = afterFirst((socket, chunk) => {
      if (other !== undefined && other !== socket) other.write(chunk)
      other = socket
    })
    const { code, stderr } = await withServer(mixing, (port) => load(port, { connections: 2, size }))
    expect(stderr).toMatch(either(wrongByte, tooMany))
    expect(code).toBe(1)
  })
})

describe.runIf(areBuilt).concurrent('beside the active connections', () => {
  /** The connections in the order of their opening: the idle and the stalled ones are the last. */
  const nth = (wanted: number, special: (socket: Socket) => void) => {
    let count = 0
    return (socket: Socket) => {
      if (count++ === wanted) special(socket)
      else socket.on('data', (chunk) => socket.write(chunk) || socket.pause().once('drain', () => socket.resume()))
    }
  }
  const endLater = (socket: Socket) => {
    socket.on('data', (chunk) => socket.write(chunk))
    setTimeout(() => socket.end(), 200)
  }
  const breakLater = (socket: Socket) => {
    socket.once('data', (chunk) => socket.pause().write(chunk))
    setTimeout(() => socket.destroy(), 200)
  }
  const drop = (socket: Socket) => socket.on('data', (chunk) => socket.writableLength < 1e6 && socket.write(chunk))

  describe('idle', () => judge({ idle: 1, seconds: 3 }, [['an idle connection is closed', nth(2, endLater), closed]]))
  describe('stalled', () =>
    judge({ stalled: 1, seconds: 3, size: 1000 }, [
      [
        'what is not read piles up in the server',
        nth(2, (socket) => socket.on('data', (chunk) => socket.write(chunk))),
        /has taken \d+ bytes and goes on/,
      ],
      ['who does not read is closed', nth(2, breakLater), /closed it because it does not read|2: send: /],
      ['bytes for a slow reader are lost', nth(2, (socket) => lossy(socket)), wrongByte],
      ['what a slow reader sends is lost', nth(2, (socket) => void drop(socket)), /has taken \d+ bytes and goes on/],
    ]))

  /** Backpressure, but the chunk that met the full buffer is gone. */
  function lossy(socket: Socket) {
    socket.on('data', (chunk) => {
      if (socket.writableLength > 0) socket.pause().once('drain', () => socket.resume())
      else socket.write(chunk)
    })
  }
})

describe.runIf(areBuilt).concurrent('lines', () => {
  const right = (answer: (socket: Socket, request: Buffer) => void) => afterFirst(answer, lineReply)
  judge({ mode: 'lines' }, [
    ['the request comes back', right((socket, request) => socket.write(request)), either(wrongByte, tooMany)],
    ['an error', right((socket) => socket.end('-ERR\n')), wrongByte],
    ['a wrong byte', right((socket, request) => socket.write(flipped(lineReply(request), 20))), wrongByte],
    ['no end of the line', right((socket, request) => socket.write(lineReply(request).subarray(0, -1))), silent],
    [
      'one character lost',
      right((socket, request) => socket.write(`${lineReply(request).subarray(0, -2)}\n`)),
      wrongByte,
    ],
    [
      'an end of the line as on Windows',
      right((socket, request) => socket.write(`${lineReply(request).subarray(0, -1)}\r\n`)),
      tooMany,
    ],
    [
      'two replies',
      right((socket, request) => socket.write(Buffer.concat([lineReply(request), bytesOf('+\n')]))),
      tooMany,
    ],
    ['an end', right((socket) => socket.end()), closed],
  ])
  describe('trimmed', () =>
    judge({ mode: 'lines', depth: 16 }, [['spaces at the end are lost', trimming, either(wrongByte, silent)]]))

  function trimming(socket: Socket) {
    let kept = ''
    socket.on('data', (chunk) => {
      const lines = (kept + chunk.toString('latin1')).split('\n')
      kept = lines.pop() ?? ''
      for (const line of lines) socket.write(`+${line.slice(5).trimEnd()}\n`)
    })
  }
})

describe.runIf(areBuilt).concurrent('frames', () => {
  const withLength = (frame: Buffer, length: number) => {
    const copy = Buffer.from(frame)
    copy.writeUInt32BE(length)
    return copy
  }
  judge({ mode: 'frames' }, [
    ['a wrong length', afterFirst((socket, frame) => socket.write(withLength(frame, size - 1))), wrongByte],
    ['a wrong byte', afterFirst((socket, frame) => socket.write(flipped(frame))), wrongByte],
    ['only the payload', afterFirst((socket, frame) => socket.write(frame.subarray(4))), wrongByte],
    ['a short payload', afterFirst((socket, frame) => socket.write(frame.subarray(0, -1))), silent],
    ['two frames', afterFirst((socket, frame) => socket.write(Buffer.concat([frame, frame]))), tooMany],
    ['an end', afterFirst((socket) => socket.end()), closed],
  ])
})

describe.runIf(areBuilt).concurrent('burst', () => {
  const echo = (change: (chunk: Buffer) => Buffer) => (socket: Socket) =>
    void socket.on('data', (chunk) => socket.write(change(chunk)))
  let count = 0
  judge({ mode: 'burst' }, [
    ['a wrong byte', echo((chunk) => flipped(chunk)), wrongByte],
    ['a byte too many', echo((chunk) => Buffer.concat([chunk, chunk.subarray(0, 1)])), /sent more than it was sent/],
    ['a byte lost', echo((chunk) => chunk.subarray(1)), wrongByte],
    // The other connection is never served, so the first one has to wait.
    [
      'who is served is closed',
      (socket) => count++ % 2 === 0 && socket.on('data', (chunk) => socket.end(chunk)),
      /closed a connection after 64 of 64/,
    ],
    ['nobody is served', () => {}, silent],
  ])
})

describe.runIf(areBuilt).concurrent('fanout', () => {
  /** `deliver` is what happens to a publisher's chunk. */
  const publishing = (deliver: (subscribers: Socket[], chunk: Buffer, publisher: Socket) => void, answer = 'S') => {
    const subscribers: Socket[] = []
    return (socket: Socket) => {
      let first = true
      socket.on('data', (chunk: Buffer) => {
        if (first && chunk.toString() === 'S') {
          subscribers.push(socket)
          if (answer !== '') socket.write(answer)
        } else deliver(subscribers, chunk, socket)
        first = false
      })
    }
  }
  const toAll = (subscribers: Socket[], chunk: Buffer) => {
    for (const subscriber of subscribers) subscriber.write(chunk)
  }
  judge({ mode: 'fanout', connections: 3 }, [
    ['a wrong answer', publishing(toAll, 's'), /answer is not the byte S/],
    ['a long answer', publishing(toAll, 'SS'), /answer is not the byte S/],
    ['no answer', publishing(toAll, ''), silent],
    [
      'a wrong byte for one of them',
      publishing((all, chunk) => {
        toAll(all.slice(1), chunk)
        all[0]?.write(flipped(chunk))
      }),
      /subscriber \d: byte 63 is/,
    ],
    ['one is left out', publishing((all, chunk) => toAll(all.slice(1), chunk)), silent],
    [
      'one is sent it twice',
      publishing((all, chunk) => toAll([...all, ...all.slice(0, 1)], chunk)),
      either(/sent more than was published/, wrongByte),
    ],
    ['one is closed', publishing((all) => void all[0]?.end()), /subscriber \d: the server closed it after 0 bytes/],
    [
      'the publisher is sent it, too',
      publishing((_, chunk, publisher) => void publisher.write(chunk)),
      /publisher 0: the server sent it bytes/,
    ],
    [
      'the publisher is closed',
      publishing((_, __, publisher) => void publisher.end()),
      /publisher 0: the server closed it/,
    ],
  ])
})

describe.runIf(areBuilt).concurrent('sink', () => {
  const answering = (answer: (count: number) => Buffer) => (socket: Socket) => {
    let count = 0
    socket.on('data', (chunk) => {
      count += chunk.length
    })
    socket.on('end', () => socket.end(answer(count)))
  }
  const bigEndian = (count: number) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64BE(BigInt(count))
    return bytes
  }
  judge({ mode: 'sink', size: 200_000 }, [
    ['a count that is short by one', answering((count) => bigEndian(count - 1)), /has counted 199999 of 200000 bytes/],
    ['a little-endian count', answering((count) => bigEndian(count).reverse()), /has counted \d+ of 200000 bytes/],
    ['half a count', answering((count) => bigEndian(count).subarray(0, 7)), /after 7 of 8 bytes of its count/],
    ['no count', answering(() => Buffer.alloc(0)), /after 0 of 8 bytes of its count/],
    [
      'a byte too many',
      answering((count) => Buffer.concat([bigEndian(count), Buffer.alloc(1)])),
      /sent more than its count|sent 1 bytes too many/,
    ],
    [
      'an answer before the end',
      (socket) => void socket.on('data', () => socket.write('x')),
      /answered after \d+ of 200000 bytes|has counted|bytes of its count|not answered/,
    ],
    ['no end', (socket) => void socket.resume().on('end', () => socket.write(bigEndian(200_000))), silent],
    ['no answer', (socket) => void socket.resume(), silent],
    ['nothing is read', () => {}, silent],
  ])
})

describe.runIf(areBuilt).concurrent('source', () => {
  const wanted = 100_000
  const stream = (length: number) => Buffer.from(Array.from({ length }, (_, i) => i % 251))
  const sending =
    (bytes: Buffer, end = true) =>
    (socket: Socket) =>
      void socket.once('data', () => {
        if (end) socket.end(bytes)
        else socket.write(bytes)
      })
  judge({ mode: 'source', size: wanted }, [
    ['a wrong byte', sending(flipped(stream(wanted), 77_777)), /byte 77777 of a transfer is/],
    ['a byte lost', sending(Buffer.concat([stream(500), stream(wanted).subarray(501)])), /byte 500 of a transfer is/],
    ['a byte too few', sending(stream(wanted - 1)), /closed a connection after 99999 of 100000 bytes/],
    ['a byte too many', sending(stream(wanted + 1)), /sent more than the 100000 bytes asked for|sent 1 bytes too many/],
    ['no end', sending(stream(wanted), false), silent],
    ['nothing', () => {}, silent],
  ])
})
