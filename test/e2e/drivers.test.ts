// The drivers, each in a process of its own: who they are, and that the waiter's thread wakes the loop when there is a
// reason, and only then.

import { describe, expect, test } from 'vitest'
import { run } from './programs.ts'
import { isNode } from './runtime.ts'

const Rounds = 2000
const IdleLooksMax = 6

// Elsewhere there is no libuv that we could use.
const drivers = isNode
  ? ['uv_poll', 'waiter', 'waiter-tsfn', ...(process.platform === 'linux' ? ['prepare'] : [])]
  : ['waiter-tsfn']

describe.each(drivers)('EDGEWIRE_DRIVER=%s', (driver) => {
  const inProcess = async (body: string) => {
    const end = await run(
      `
      const echo = { data(conn, chunk) { conn.write(chunk) } }
      const listener = await listen({ host: '127.0.0.1', port: 0 }, echo)
      const conn = await dial({ host: '127.0.0.1', port: listener.port })
      const into = new Uint8Array(64)
      const grown = async (act) => { const before = stats(); await act(); const after = stats()
        return { wakes: after.wakes - before.wakes, turns: after.turns - before.turns, polls: after.polls - before.polls } }
      const events = () => performance.nodeTiming?.uvMetricsInfo?.events ?? 0
      ${body}
      conn.close()
      await conn.closed
      await listener.shutdown()
    `,
      { EDGEWIRE_DRIVER: driver },
    )
    expect(end, end.stderr).toMatchObject({ code: 0, signal: null, stderr: '' })
    return JSON.parse(end.stdout)
  }

  test('it is the one that runs', async () => {
    expect(await inProcess('print({ driver: stats().driver })')).toEqual({ driver })
  })

  test('an idle second: next to no wake, no turn, whatever deadline stands', async () => {
    const grown = await inProcess(`
      conn.setDeadline(Date.now() + 60_000)
      await sleep(50)
      const before = events()
      const idle = await grown(() => sleep(1000))
      print({ ...idle, events: events() - before })
    `)
    expect(grown.turns).toBe(0)
    // The timer wheel looks at its upper levels now and then; a thread that waits wakes the loop for that. 'prepare' waits
    // in libuv's place: what wakes libuv (V8's garbage collector may) ends one look, and the alarm that follows another.
    expect(grown.wakes).toBeLessThanOrEqual(IdleLooksMax)
    expect(grown.polls).toBeLessThanOrEqual(IdleLooksMax + (driver === 'prepare' ? 2 * grown.events : 0))
  })

  test('ping-pong: a wake for each message that came alone, none lost, none without a reason', async () => {
    const grown = await inProcess(`
      print(await grown(async () => {
        for (let i = 0; i < ${Rounds}; i++) { conn.write('ping'); await conn.read(into) }
      }))
    `)
    // Each message wakes once on either side. A few more: the last turn left work for the next.
    if (driver === 'uv_poll' || driver === 'prepare') expect(grown.wakes).toBe(0)
    else expect(grown.wakes).toBeLessThanOrEqual(2 * Rounds + 20)
    expect(grown.turns).toBeLessThanOrEqual(4 * Rounds + 20)
  })

  test('writes, closes and deadlines from timers, immediates and promises take effect', async () => {
    const seen = await inProcess(`
      const seen = []
      const ask = async (how) => {
        await new Promise((resolve) => how(() => { conn.write('x'); resolve() }))
        seen.push(await conn.read(into))
      }
      await ask((act) => setTimeout(act, 5))
      await ask(setImmediate)
      await ask(process.nextTick)
      await ask((act) => Promise.resolve().then(act))
      // A deadline that is set while the loop waits for nothing else.
      await sleep(20)
      const began = performance.now()
      const late = conn.read(into).catch((error) => error.code)
      await sleep(5)
      conn.setReadDeadline(Date.now() + 30)
      seen.push(await late, performance.now() - began >= 30)
      conn.setReadDeadline(null)
      print(seen)
    `)
    expect(seen).toEqual([1, 1, 1, 1, 'ERR_DEADLINE_EXCEEDED', true])
  })

  test('a synchronous stall: what came meanwhile is served, and a deadline that was met is not missed', async () => {
    const seen = await inProcess(`
      const seen = []
      for (let i = 0; i < 20; i++) {
        conn.setReadDeadline(Date.now() + 300)
        conn.write('ping')
        await sleep(i % 3)
        const reading = conn.read(into)
        const until = performance.now() + 20
        while (performance.now() < until);
        seen.push(await reading)
      }
      print(seen)
    `)
    expect(seen).toEqual(Array(20).fill(4))
  })
})

test('a name that is none is refused by the first call, before anything is opened', async () => {
  const end = await run(
    `
    for (const call of [() => listen({ port: 0 }, { data() {} }), () => dial({ port: 1 })]) {
      const error = await call().then(() => undefined, (error) => error)
      print([error.name, error.code, error.value, error.message])
    }
  `,
    { EDGEWIRE_DRIVER: 'io_uring' },
  )
  const message = `configure: EDGEWIRE_DRIVER must be one of ${drivers.join(', ')} here, got "io_uring"`
  const line = JSON.stringify(['NetError', 'ERR_INVALID_ARG', 'io_uring', message])
  expect(end.stdout).toBe(`${line}\n${line}\n`)
  expect(end.code).toBe(0)
})
