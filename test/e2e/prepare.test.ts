// The driver prepare waits in libuv's place, so everything else that a process waits for depends on it: nothing may be
// delayed or lost, whatever is started, wherever, and however busy edgewire is. A wake-up that is lost shows as
// an operation that only its guard ends.

import { describe, expect, test } from 'vitest'
import { run, start } from './programs.ts'
import { isNode } from './runtime.ts'

const isPossible = isNode && process.platform === 'linux'
const PREPARE = { EDGEWIRE_DRIVER: 'prepare' }
const LONG_RUN_MS = 60_000
const GUARD_MS = 20_000
const LATE_MS = 500

/** Echo server, connection and the operations; `inHandler` calls back from inside a data handler. */
const frame = `
  import { operations, places } from './test/e2e/operations.mjs'
  import { setFlagsFromString } from 'node:v8'
  import { Worker } from 'node:worker_threads'
  let callbacks = []
  const listener = await listen({ host: '127.0.0.1', port: 0 }, {
    data(conn, chunk) {
      for (const callback of callbacks.splice(0)) callback()
      conn.write(chunk)
    },
  })
  const conn = await dial({ host: '127.0.0.1', port: listener.port }, { data() {} })
  // A client elsewhere, which sends later: nothing but edgewire hears of it.
  const sender = new Worker(\`
    const { parentPort, workerData } = require('node:worker_threads')
    const socket = require('node:net').connect(workerData, '127.0.0.1')
    parentPort.on('message', () => setTimeout(() => socket.write('x'), 20))
  \`, { eval: true, execArgv: [], workerData: listener.port })
  sender.unref()
  operations['a message to edgewire'] = () => new Promise((resolve) => {
    callbacks.push(resolve)
    sender.postMessage('send')
  })
  operations['a deadline of edgewire'] = async () => {
    const silent = await dial({ host: '127.0.0.1', port: listener.port })
    silent.setReadDeadline(Date.now() + 20)
    const code = await silent.read(new Uint8Array(1)).catch((error) => error.code)
    if (code !== 'ERR_DEADLINE_EXCEEDED') throw new Error(code)
    silent.abort()
  }
  places['a handler of edgewire'] = (callback) => { callbacks.push(callback); conn.write('x') }
  const pending = new Set()
  const tell = () => print({ driver: stats().driver, pending: [...pending] })
  // The only timer that is far away: a sooner one would end a wait that is too long. V8's own comes after 8 s.
  setFlagsFromString('--no-memory-reducer')
  const guard = setTimeout(() => { tell(); process.exit() }, ${GUARD_MS})
  /** Runs the operation, started from the place. */
  const perform = async (place, operation) => {
    const what = operation + ' in ' + place
    pending.add(what)
    await new Promise((resolve, reject) => {
      places[place](() => operations[operation]().then(resolve, reject))
    })
    pending.delete(what)
  }
  /** A timer of somebody else may have ended a wait that was too long; a busy machine is not slow each time. */
  const performInTime = async (place, operation) => {
    for (let tries = 0; tries < 3; tries++) {
      const began = performance.now()
      await perform(place, operation)
      if (performance.now() - began < ${LATE_MS}) return
    }
    pending.add(operation + ' in ' + place + ' is late')
  }
  const each = async () => {
    for (const place in places) {
      for (const operation in operations) await performInTime(place, operation)
    }
  }
  const finish = async () => {
    conn.close()
    await listener.shutdown()
    clearTimeout(guard)
    tell()
  }
`

/** A worker with plain sockets that sends whatever comes back, without a pause. */
const flood = `
  const flooder = new Worker(\`
    const { workerData } = require('node:worker_threads')
    const net = require('node:net')
    for (let i = 0; i < 8; i++) {
      const socket = net.connect(workerData, '127.0.0.1')
      socket.on('data', (chunk) => socket.write(chunk))
      socket.write(Buffer.alloc(i < 4 ? 64 : 65536))
    }
  \`, { eval: true, execArgv: [], workerData: listener.port })
  while (stats().turns < 1000) await sleep(1)
`

describe.runIf(isPossible)('with EDGEWIRE_DRIVER=prepare nothing else waits in vain', { timeout: LONG_RUN_MS }, () => {
  const ends = async (source: string, env: Record<string, string> = {}) => {
    const end = await run(source, { ...PREPARE, ...env }, LONG_RUN_MS)
    expect(end, end.stderr).toMatchObject({ code: 0, signal: null, stderr: '' })
    expect(JSON.parse(end.stdout)).toEqual({ driver: 'prepare', pending: [] })
  }

  test('every operation, started in every place, beside an idle listener', () =>
    ends(`${frame}
      await each()
      await finish()
    `))

  test('the same beside a flood', () =>
    ends(`${frame}${flood}
      await each()
      const { turns } = stats()
      while (stats().turns < turns + 100) await sleep(1) // it goes on
      await flooder.terminate()
      await finish()
    `))

  test('what an immediate leaves to an unreferenced one is not forgotten, however quiet it is', () =>
    ends(`
      const listener = await listen({ host: '127.0.0.1', port: 0 }, { data() {} })
      const pending = []
      const tell = () => print({ driver: stats().driver, pending })
      const guard = setTimeout(() => { pending.push('an immediate'); tell(); process.exit() }, ${GUARD_MS})
      // Many: where the clock moves on between two looks, that alone makes an iteration.
      for (let i = 0; i < 300; i++) await new Promise((resolve) => setImmediate(() => setImmediate(resolve).unref()))
      clearTimeout(guard)
      await listener.shutdown()
      tell()
    `))

  test('a random mixture, each started inside another', async () => {
    const seed = process.env.EDGEWIRE_TEST_SEED ?? String(Date.now() & 0x7fffffff)
    await ends(
      `${frame}
      let state = Number(process.env.EDGEWIRE_TEST_SEED)
      console.error = () => {}
      const random = (below) => {
        state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5 | 0
        return ((state ^ (state >>> 13)) >>> 0) % below
      }
      const any = (object) => Object.keys(object)[random(Object.keys(object).length)]
      const until = performance.now() + 4000
      let performed = 0
      const strand = async (depth) => {
        while (performance.now() < until) {
          const work = [perform(any(places), any(operations))]
          if (depth < 2 && random(3) === 0) work.push(strand(depth + 1))
          await Promise.race(work)
          await Promise.all(work)
          performed++
          if (random(4) === 0) conn.write(Buffer.alloc(1 + random(100_000)))
          if (random(4) === 0) await sleep(random(20))
          if (depth > 0 && random(4) === 0) return
        }
      }
      await Promise.all(Array.from({ length: 6 }, () => strand(0)))
      if (performed < 20) pending.add('no more than ' + performed)
      await finish()
    `,
      { EDGEWIRE_TEST_SEED: seed },
    ).catch((error) => {
      throw new Error(`EDGEWIRE_TEST_SEED=${seed}`, { cause: error })
    })
  })
})

/** A second copy of the package with an addon of its own, as two versions of it in one process would be. */
const secondCopy = `
  import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
  import { fileURLToPath, pathToFileURL } from 'node:url'
  const root = fileURLToPath(new URL('..', import.meta.resolve('edgewire')))
  const copy = mkdtempSync('/tmp/edgewire-')
  process.on('exit', () => rmSync(copy, { recursive: true }))
  cpSync(root + 'dist', copy + '/dist', { recursive: true })
  cpSync(root + 'build/Release/edgewire.node', copy + '/build/Release/edgewire.node')
  symlinkSync(root + 'node_modules', copy + '/node_modules')
  writeFileSync(copy + '/package.json', '{ "type": "module" }')
  const second = await import(pathToFileURL(copy + '/dist/index.js').href)
`

describe.runIf(isPossible)('prepare beside others of its kind', () => {
  test('what a handler leaves to the prepare handle of another addon is not forgotten', async () => {
    const end = await run(
      `${secondCopy}
      const local = { host: '127.0.0.1', port: 0 }
      const messages = []
      let told
      const target = await listen(local)
      print(stats().driver)
      process.env.EDGEWIRE_DRIVER = 'uv_poll'
      const receiver = await second.listen(local, { data(_, chunk) { messages.push(chunk.length); told() } })
      const other = await second.dial({ host: '127.0.0.1', port: receiver.port })
      print(second.stats().driver)
      // The first copy's handler writes to the second's connection, which is flushed by its uv_prepare: after ours.
      const relay = await listen(local, { data(_, chunk) { other.write(chunk) } })
      const conn = await dial({ host: '127.0.0.1', port: relay.port })
      const late = setTimeout(() => { print('late'); process.exit(1) }, 10_000)
      for (let i = 1; i <= 50; i++) {
        const arrived = new Promise((resolve) => { told = resolve })
        await sleep(i % 5)
        conn.write('x'.repeat(i))
        await arrived
      }
      clearTimeout(late)
      print(messages.length)
      process.exit(0)
    `,
      PREPARE,
    )
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: 'prepare\nuv_poll\n50\n' })
  })

  test('a second copy is refused, each time it asks, and the first goes on', async () => {
    const end = await run(
      `${secondCopy}
      const echo = { data(conn, chunk) { conn.write(chunk) } }
      const listener = await listen({ host: '127.0.0.1', port: 0 }, echo)
      for (const call of ['listen', 'dial', 'listen']) {
        const error = await second[call]({ host: '127.0.0.1', port: listener.port }).catch((error) => error)
        print([error instanceof second.NetError, error.code, error.message])
      }
      const conn = await dial({ host: '127.0.0.1', port: listener.port })
      conn.write('still here')
      print(await conn.read(new Uint8Array(100)))
      conn.close()
      await listener.shutdown()
    `,
      PREPARE,
    )
    const message = 'configure: this thread runs two copies of edgewire: EDGEWIRE_DRIVER=prepare allows one'
    const refusal = `${JSON.stringify([true, 'ERR_UNSUPPORTED_PLATFORM', message])}\n`
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: `${refusal.repeat(3)}10\n`, stderr: '' })
  })

  test('a libuv that it does not know is refused by the first call, and the thread may try again', async () => {
    // The core's tests say which versions those are (test/native/driver_prepare_test.cc); this is the addon's answer.
    const end = await run(
      `
      const { binding } = await import(new URL('./binding.js', import.meta.resolve('edgewire')).href)
      const { errno } = (await import('node:os')).constants
      const native = binding()
      const { open } = native
      native.open = () => -errno.ENOTSUP
      for (const call of [() => listen({ port: 0 }, { data() {} }), () => dial({ port: 1 })]) {
        const error = await call().catch((error) => error)
        print([error.name, error.code, error.op, error.message])
      }
      native.open = open
      const listener = await listen({ host: '127.0.0.1', port: 0 }, { data() {} })
      print(stats().driver)
      await listener.close()
    `,
      PREPARE,
    )
    const message = `configure: EDGEWIRE_DRIVER=prepare needs libuv 1.46 or a later 1.x, this is ${process.versions.uv}`
    const refusal = `${JSON.stringify(['NetError', 'ERR_UNSUPPORTED_PLATFORM', 'configure', message])}\n`
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: `${refusal.repeat(2)}prepare\n`, stderr: '' })
  })

  test('where the loop is run by others, as in Electron, the name is refused', async () => {
    const end = await run(
      `
      Object.defineProperty(process.versions, 'electron', { value: '40.0.0' })
      const error = await listen({ port: 0 }).catch((error) => error)
      print([error.code, error.value, error.message])
    `,
      PREPARE,
    )
    expect(end, end.stderr).toMatchObject({ code: 0, stderr: '' })
    const [code, value, message] = JSON.parse(end.stdout)
    expect([code, value]).toEqual(['ERR_INVALID_ARG', 'prepare'])
    expect(message).toMatch(/must be one of uv_poll, waiter, waiter-tsfn here/)
  })
})

describe.runIf(isPossible)('prepare lets go', () => {
  const serving = `
    const echo = { data(conn, chunk) { conn.write(chunk) } }
    const listener = await listen({ host: '127.0.0.1', port: 0 }, echo)
  `

  test('of a process in which only unreferenced things are left, while it waits', async () => {
    const end = await run(`${serving} listener.unref(); await sleep(50); print('over')`, PREPARE)
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: 'over\n' })
  })

  test('when the last reference goes inside a handler', async () => {
    const end = await run(
      `
      const listener = await listen({ host: '127.0.0.1', port: 0 }, {
        data(conn) { conn.abort() },
        close() { listener.unref(); print('over') },
      })
      const conn = await dial({ host: '127.0.0.1', port: listener.port }, { data() {} })
      conn.unref().write('x')
    `,
      PREPARE,
    )
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: 'over\n' })
  })

  test.each([
    ['process.exit(7)', { code: 7, signal: null }],
    ['process.abort()', { signal: 'SIGABRT' }],
    ["process.kill(process.pid, 'SIGKILL')", { signal: 'SIGKILL' }],
    ['setImmediate(() => process.exit(7))', { code: 7 }],
    ['process.nextTick(() => process.exit(7))', { code: 7 }],
  ])('%s in a handler', async (statement, outcome) => {
    const end = await run(
      `
      const listener = await listen({ host: '127.0.0.1', port: 0 }, { data() { ${statement} } })
      const conn = await dial({ host: '127.0.0.1', port: listener.port }, { data() {} })
      conn.write('x')
    `,
      PREPARE,
    )
    expect(end, end.stderr).toMatchObject(outcome)
  })

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s reaches its listener while it waits', async (signal) => {
    const program = start(
      `${serving}
      process.on('${signal}', () => { print('told'); process.exit(3) })
      await sleep(20)
      print('ready')
    `,
      PREPARE,
    )
    await program.line()
    await new Promise((resolve) => setTimeout(resolve, 100))
    program.child.kill(signal)
    expect(await program.end()).toMatchObject({ code: 3, stdout: 'ready\ntold\n' })
  })

  test('a signal without a listener ends the process while it waits', async () => {
    const program = start(`${serving} print('ready')`, PREPARE)
    await program.line()
    program.child.kill('SIGTERM')
    expect(await program.end()).toMatchObject({ code: null, signal: 'SIGTERM' })
  })

  test('of workers, each with a driver of its own, terminated while they wait and while they are flooded', async () => {
    const end = await run(
      `
      import { readdirSync } from 'node:fs'
      import { Worker } from 'node:worker_threads'
      const source = \`
        import { parentPort, workerData } from 'node:worker_threads'
        const { dial, listen, stats } = await import(workerData.edgewire)
        const echo = { data(conn, chunk) { conn.write(chunk) } }
        const listener = await listen({ host: '127.0.0.1', port: 0 }, echo)
        if (workerData.busy) (await dial({ host: '127.0.0.1', port: listener.port }, echo)).write(Buffer.alloc(50000))
        parentPort.postMessage(stats().driver)
      \`
      const edgewire = import.meta.resolve('edgewire')
      const live = async (busy) => {
        const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(source)), { workerData: { edgewire, busy } })
        const [driver] = await once(worker, 'message')
        if (driver !== 'prepare') print(driver)
        await sleep(busy ? 5 : 20)
        await worker.terminate()
      }
      await (await listen({ host: '127.0.0.1', port: 0 })).close()
      await live(false)
      const before = readdirSync('/proc/self/fd').length
      for (let i = 0; i < 10; i++) await Promise.all([live(false), live(true)])
      print(readdirSync('/proc/self/fd').length - before)
    `,
      PREPARE,
    )
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: '0\n', stderr: '' })
  })

  test('of a worker that ends by itself, and of one that exits in a handler', async () => {
    const end = await run(
      `
      import { Worker } from 'node:worker_threads'
      const source = \`
        import { workerData } from 'node:worker_threads'
        const { dial, listen } = await import(workerData.edgewire)
        const exits = { data() { process.exit(5) } }
        const listener = await listen({ host: '127.0.0.1', port: 0 }, exits)
        if (workerData.exits) (await dial({ host: '127.0.0.1', port: listener.port }, exits)).write('x')
        else listener.unref()
      \`
      const edgewire = import.meta.resolve('edgewire')
      for (const exits of [false, true, false, true]) {
        const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(source)), { workerData: { edgewire, exits } })
        print((await once(worker, 'exit'))[0])
      }
    `,
      PREPARE,
    )
    expect(end, end.stderr).toMatchObject({ code: 0, stdout: '0\n5\n0\n5\n', stderr: '' })
  })
})
