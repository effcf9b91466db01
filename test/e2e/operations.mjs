// What a process may be waiting for besides edgewire: one function each, which starts it and returns a promise of its
// end. They share nothing but a worker and a folder, so that any number of them may be under way at once.

import { spawn } from 'node:child_process'
import { pbkdf2 } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { lookup } from 'node:dns'
import { once } from 'node:events'
import fs, { mkdtempSync, watch } from 'node:fs'
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { MessageChannel, Worker } from 'node:worker_threads'
import { deflate } from 'node:zlib'

const host = '127.0.0.1'
const folder = mkdtempSync(join(tmpdir(), 'edgewire-operations-'))
process.once('exit', () => fs.rmSync(folder, { recursive: true, force: true }))
let names = 0
const fresh = () => join(folder, `${names++}`)

function equal(actual, wanted) {
  if (String(actual) !== String(wanted)) throw new Error(`${actual} instead of ${wanted}`)
}

const after = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const worker = new Worker(
  `const { parentPort } = require('node:worker_threads')
   parentPort.on('message', (value) => parentPort.postMessage(value))`,
  { eval: true, execArgv: [] },
)
worker.setMaxListeners(0)
worker.unref()

function answerOf(port, value) {
  return new Promise((resolve) => {
    const take = (answer) => {
      if (answer !== value) return
      port.off('message', take)
      resolve()
    }
    port.on('message', take)
    port.postMessage(value)
  })
}

async function echoOver(socket, text) {
  socket.end(text)
  let got = ''
  for await (const chunk of socket.setEncoding('utf8')) got += chunk
  equal(got, text)
}

export const operations = {
  'a timer at once': () => after(0),
  'a timer of 1 ms': () => after(1),
  'a timer of 50 ms': () => after(50),

  async 'an interval'() {
    await new Promise((resolve) => {
      let left = 3
      const interval = setInterval(() => {
        if (--left > 0) return
        clearInterval(interval)
        resolve()
      }, 2)
    })
  },

  async 'a timer that is refreshed'() {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 20)
      setTimeout(() => timer.refresh(), 5)
    })
  },

  async 'a timer that is unreferenced, then referenced'() {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 5).unref()
      setImmediate(() => timer.ref())
    })
  },

  async 'a timer behind one that is cleared'() {
    const cleared = setTimeout(() => process.exit(9), 1)
    clearTimeout(cleared)
    await after(3)
  },

  async 'a chain of immediates'() {
    for (let i = 0; i < 10; i++) await new Promise(setImmediate)
  },

  'an immediate that is unreferenced': () => new Promise((resolve) => setImmediate(resolve).unref()),

  async 'an immediate behind one that is cleared'() {
    clearImmediate(setImmediate(() => process.exit(9)))
    await after(1)
    clearImmediate(setImmediate(() => process.exit(9)))
    await new Promise(setImmediate)
  },

  async 'ticks and microtasks'() {
    for (let i = 0; i < 10; i++) await new Promise((resolve) => process.nextTick(() => queueMicrotask(resolve)))
  },

  async 'a file, written and read'() {
    const path = fresh()
    await writeFile(path, path)
    equal(await readFile(path, 'utf8'), path)
    equal((await stat(path)).size, path.length)
    await rm(path)
  },

  async 'work for the thread pool'() {
    await Promise.all([promisify(pbkdf2)('a', 'b', 100, 32, 'sha256'), promisify(deflate)(Buffer.alloc(10_000))])
  },

  'a name, looked up': () => promisify(lookup)('localhost'),

  async 'a watched folder'() {
    const path = fresh()
    fs.mkdirSync(path)
    const watcher = watch(path)
    const changed = once(watcher, 'change')
    await writeFile(join(path, 'file'), 'x')
    await changed
    watcher.close()
  },

  'a message to a worker and back': () => answerOf(worker, names++),

  async 'a message through a channel'() {
    const { port1, port2 } = new MessageChannel()
    port2.on('message', (value) => port2.postMessage(value))
    await answerOf(port1, names++)
    port1.close()
    await once(port2, 'close')
  },

  async 'a child that echoes its input'() {
    const child = spawn('cat')
    const closed = once(child, 'close')
    child.stdin.end('meow')
    let output = ''
    for await (const chunk of child.stdout.setEncoding('utf8')) output += chunk
    equal(output, 'meow')
    equal((await closed)[0], 0)
  },

  async 'a child that is killed'() {
    const child = spawn('sleep', ['60'])
    await once(child, 'spawn')
    const closed = once(child, 'close')
    child.kill()
    equal((await closed)[1], 'SIGTERM')
  },

  async 'a socket'() {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(0, host)
    await once(server, 'listening')
    await echoOver(net.connect({ port: server.address().port, host }), 'a socket')
    await new Promise((resolve) => server.close(resolve))
  },

  async 'a pipe'() {
    const path = fresh()
    const server = net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(path)
    await once(server, 'listening')
    await echoOver(net.connect(path), 'a pipe')
    await new Promise((resolve) => server.close(resolve))
  },

  async 'a connection that is refused'() {
    const server = net.createServer().listen(0, host)
    await once(server, 'listening')
    const { port } = server.address()
    await new Promise((resolve) => server.close(resolve))
    const [error] = await once(
      net.connect({ port, host }).on('connect', () => {}),
      'error',
    ).catch((error) => [error])
    equal(error.code, 'ECONNREFUSED')
  },

  async 'a request over HTTP'() {
    const server = http.createServer((_, response) => setTimeout(() => response.end('hello'), 1)).listen(0, host)
    await once(server, 'listening')
    // Not fetch(), whose own timers would wake a loop that sleeps too long.
    const [answer] = await once(http.get({ host, port: server.address().port, agent: false }), 'response')
    let text = ''
    for await (const chunk of answer.setEncoding('utf8')) text += chunk
    equal(text, 'hello')
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  },

  async 'a datagram'() {
    const socket = createSocket('udp4').bind(0, host)
    await once(socket, 'listening')
    socket.send('x', socket.address().port, host)
    await once(socket, 'message')
    await new Promise((resolve) => socket.close(resolve))
  },

  'a signal that aborts in time': () => once(AbortSignal.timeout(10), 'abort'),

  async 'a signal to this process'() {
    const told = once(process, 'SIGUSR2')
    process.kill(process.pid, 'SIGUSR2')
    await told
  },
}
process.setMaxListeners(0)

/** Where such an operation may be started: each function calls back from inside something else. */
export const places = {
  'a timer': (callback) => setTimeout(callback, 1),
  'an immediate': (callback) => setImmediate(callback),
  'a tick': (callback) => process.nextTick(callback),
  'a callback of fs': (callback) => fs.stat(folder, callback),
  'a message of a worker': (callback) => answerOf(worker, names++).then(callback),
  'a handler of a socket'(callback) {
    const server = net
      .createServer((socket) => socket.end())
      .listen(0, host, () => {
        net
          .connect({ port: server.address().port, host })
          .on('close', () => server.close(callback))
          .resume()
      })
  },
}
