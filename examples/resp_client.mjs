// A small Redis client: RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/) over a pool of connections,
// with pipelining: many commands in one write, their replies in one read.
//
//   node examples/resp_client.mjs [port or socket path]     # of a redis-server; default 6379

import { createPool } from 'edgewire'

const READ_BYTES = 64 * 1024
const COMMAND_MS = 2_000

/** A reply that says that the command failed. The connection is as good as before. */
class ReplyError extends Error {}

class RedisClient {
  #pool

  constructor(options) {
    this.#pool = createPool({
      ...options,
      maxTotal: 4,
      // A server that was restarted has closed its connections: the pool sees that by itself. This finds the one that hangs.
      validate: async (conn) => (await exchange(conn, [['PING']]))[0] === 'PONG',
      leakDetectionMs: 10_000,
    })
  }

  /** One command. Throws the reply if it is an error. */
  async command(...words) {
    const [reply] = await this.pipeline([words])
    if (reply instanceof ReplyError) throw reply
    return reply
  }

  /** Many commands on one connection, sent together. The replies in their order; one that is an error is not thrown. */
  pipeline(commands) {
    // use() gives the connection back, or closes it if this throws: it would be in the middle of a reply.
    return this.#pool.use((conn) => exchange(conn, commands))
  }

  stats() {
    return this.#pool.stats()
  }

  close() {
    return this.#pool.drain({ timeoutMs: COMMAND_MS })
  }
}

async function exchange(conn, commands) {
  conn.setDeadline(Date.now() + COMMAND_MS)
  // The writes of one turn go out together.
  for (const words of commands) conn.write(encode(words))
  const replies = []
  let unread = Buffer.alloc(0)
  while (replies.length < commands.length) {
    const chunk = Buffer.allocUnsafe(READ_BYTES)
    const count = await conn.read(chunk)
    if (count === null) throw new Error('the server has closed the connection')
    unread = Buffer.concat([unread, chunk.subarray(0, count)])
    let at = 0
    for (let found = decode(unread, at); found !== undefined; found = decode(unread, at)) {
      replies.push(found.value)
      at = found.end
    }
    unread = unread.subarray(at)
  }
  return replies
}

/** A command is an array of bulk strings. */
function encode(words) {
  const parts = words.map((word) => {
    const text = String(word)
    return `$${Buffer.byteLength(text)}\r\n${text}\r\n`
  })
  return `*${words.length}\r\n${parts.join('')}`
}

/** The reply that begins at `at`, and where it ends; undefined if it is not all there yet. */
function decode(bytes, at) {
  const lineEnd = bytes.indexOf('\r\n', at)
  if (lineEnd < 0) return undefined
  const line = bytes.toString('utf8', at + 1, lineEnd)
  const next = lineEnd + 2
  switch (String.fromCharCode(bytes[at])) {
    case '+':
      return { value: line, end: next }
    case '-':
      return { value: new ReplyError(line), end: next }
    case ':':
      return { value: Number(line), end: next }
    case '$':
      return decodeBulk(bytes, next, Number(line))
    case '*':
      return decodeArray(bytes, next, Number(line))
    default:
      throw new Error(`this is not RESP: ${JSON.stringify(line)}`)
  }
}

function decodeBulk(bytes, start, length) {
  if (length < 0) return { value: null, end: start }
  const end = start + length
  return bytes.length < end + 2 ? undefined : { value: bytes.toString('utf8', start, end), end: end + 2 }
}

function decodeArray(bytes, start, length) {
  if (length < 0) return { value: null, end: start }
  const value = []
  let at = start
  while (value.length < length) {
    const item = decode(bytes, at)
    if (item === undefined) return undefined
    value.push(item.value)
    at = item.end
  }
  return { value, end: at }
}

const place = process.argv[2] ?? '6379'
const redis = new RedisClient(place.includes('/') ? { path: place } : { host: '127.0.0.1', port: Number(place) })

console.log('set:', await redis.command('SET', 'greeting', 'hello, wörld'))
console.log('get:', await redis.command('GET', 'greeting'))
console.log('get what is not there:', await redis.command('GET', 'nothing'))
await redis.command('INCR', 'greeting').catch((error) => console.log('incr:', error.message))

await redis.command('DEL', 'visits')
// Fifty callers at once over four connections, twenty commands a round trip.
const visits = Array.from({ length: 20 }, () => ['INCR', 'visits'])
await Promise.all(Array.from({ length: 50 }, () => redis.pipeline(visits)))
console.log('visits:', await redis.command('GET', 'visits'))
console.log(
  'list:',
  await redis.pipeline([
    ['DEL', 'list'],
    ['RPUSH', 'list', 'a', 'b', 'c'],
    ['LRANGE', 'list', 0, -1],
  ]),
)

const { dials, acquired } = redis.stats()
console.log(`${acquired} uses of ${dials} connections`)
await redis.close()
