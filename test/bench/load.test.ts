// What the load generator reports about a server that does all right: the floor.

import { describe, expect, test } from 'vitest'
import { areBuilt, closedPort, load, loadWith, measure, serve, startFloor } from './programs.ts'

const KiB = 1024
const transferMessage = 64 * KiB

describe.runIf(areBuilt)('a right server', () => {
  const stays = [
    ['echo', { size: 64, depth: 16 }],
    ['echo', { size: 256 * KiB }],
    ['echo', { idle: 300, stalled: 20 }],
    ['lines', { size: 1 }],
    ['lines', { size: 100, depth: 16 }],
    ['lines', { size: 64 * KiB, depth: 3 }],
    ['lines', { idle: 20, stalled: 10 }],
    ['frames', { size: 1, depth: 16 }],
    ['frames', { size: 1024 * KiB }],
    ['frames', { stalled: 10, size: 1000 }],
  ] as const
  test.each(stays)('%s %j: messages, and the bytes of their payloads', async (mode, options) => {
    const server = await startFloor(mode)
    const result = await measure(server.port, { mode, ...options })
    expect(result.messages).toBeGreaterThan(0)
    expect(result.bytes).toBe(result.messages * ('size' in options ? options.size : 64))
    expect(result.p50Us).toBeGreaterThan(0)
    expect(result.p50Us).toBeLessThanOrEqual(result.p99Us)
    expect(result.connections).toBe(4)
    expect(result).not.toHaveProperty('rate')
  })

  test.each(['churn', 'open-close', 'burst'])('%s: a message is a connection', async (mode) => {
    const server = await startFloor('echo')
    const connections = mode === 'burst' ? 500 : 8
    const result = await measure(server.port, { mode, connections })
    expect(result.messages).toBeGreaterThan(0)
    expect(result.bytes).toBe(mode === 'open-close' ? 0 : result.messages * 64)
  })

  test('burst: nobody closes before all have been served', async () => {
    const connections = 50
    let waves = 0
    let closedEarly = 0
    let waiting: (() => void)[] = []
    const port = await serve((socket) => {
      socket.on('end', () => {
        if (waiting.length > 0) closedEarly++
        socket.end()
      })
      socket.on('data', (chunk) => {
        waiting.push(() => socket.write(chunk))
        if (waiting.length < connections) return
        for (const answer of waiting.slice(1)) answer()
        setTimeout(() => {
          const [last] = waiting
          waiting = []
          waves++
          last?.()
        }, 30)
      })
    })
    const result = await measure(port, { mode: 'burst', connections, seconds: 1 })
    expect(result.messages).toBeGreaterThan(0)
    expect(waves).toBeGreaterThan(1)
    expect(closedEarly).toBe(0)
  })

  test('burst: the window holds whole bursts, however long one takes', async () => {
    const connections = 20
    let served = 0
    const port = await serve((socket) => {
      socket.on('end', () => socket.end())
      // All but the last of a burst are answered at once, and it long after a window that does not wait has ended.
      socket.on('data', (chunk) => {
        const isLast = ++served % connections === 0
        if (isLast) setTimeout(() => socket.write(chunk), 500)
        else socket.write(chunk)
      })
    })
    const result = await measure(port, { mode: 'burst', connections, warmup: 0.1, seconds: 0.1 })
    expect(result.messages).toBe(connections)
  })

  test.each([
    { connections: 50, size: 256, publishers: 1 },
    { connections: 5, size: 300_000, publishers: 3 },
  ])('fanout %j: each message reaches every subscriber', async (options) => {
    const server = await startFloor('fanout')
    const result = await measure(server.port, { mode: 'fanout', ...options })
    expect(result.messages).toBeGreaterThan(0)
    expect(result.deliveries).toBe(result.messages * options.connections)
    expect(result.bytes).toBe(result.messages * options.connections * options.size)
  })

  const transfers = [
    ['sink', {}],
    ['sink', { size: 1000, connections: 3 }],
    ['source', {}],
    ['source', { size: 1_000_001, connections: 3 }],
  ] as const
  test.each(transfers)('%s %j: a message is 64 KiB', async (mode, options) => {
    const server = await startFloor(mode)
    const result = await measure(server.port, { mode, connections: 1, ...options })
    expect(result.messages).toBeGreaterThan(0)
    // What has begun a message before the window, or not ended one within it, is less than a message a connection.
    const difference = Math.abs(result.bytes - result.messages * transferMessage)
    expect(difference).toBeLessThanOrEqual(result.connections * transferMessage)
  })

  test('--server-pid: CPU time, context switches and memory of that process', async () => {
    const server = await startFloor('echo')
    const without = await measure(server.port)
    expect(without).toMatchObject({ serverCpuNs: null, contextSwitches: null, serverRssBytes: null })
    const slow = { rate: 200, seconds: 1, 'server-pid': server.pid }
    const result = await measure(server.port, slow)
    expect(result.serverCpuNs).toBeGreaterThan(0)
    // It sleeps before nearly every message: those of the opening are outside of the window.
    expect(result.contextSwitches).toBeGreaterThan(100)
    expect(result.contextSwitches).toBeLessThan(100_000)
    expect(result.serverRssBytes).toBeGreaterThan(500 * KiB)
    expect(result.serverRssBytes).toBeLessThan(100 * KiB * KiB)
  })
})

describe.runIf(areBuilt)('at a rate', () => {
  test('as many messages as asked for, however many connections there are', async () => {
    const server = await startFloor('echo')
    for (const connections of [1, 7, 300]) {
      const result = await measure(server.port, { rate: 1000, connections, seconds: 1 })
      expect(result).toMatchObject({ rate: 1000, missed: 0 })
      expect(result.messages).toBeGreaterThan(800)
      expect(result.messages).toBeLessThan(1200)
    }
  })

  test.each(['lines', 'frames'])('%s as well', async (mode) => {
    const server = await startFloor(mode)
    const result = await measure(server.port, { mode, rate: 500, seconds: 0.5, idle: 5, stalled: 5 })
    expect(result).toMatchObject({ rate: 500, missed: 0 })
  })

  // The server that pauses for 200 ms in every second. A closed loop of four connections meets each pause with four
  // messages, a thousandth or so of all: its p99 does not show it. Of those who come when they like a fifth waits.
  test('the p99 shows the pauses that a closed loop leaves out', async () => {
    const pauseMs = 200
    let held: (() => void)[] | undefined
    const timer = setInterval(() => {
      held = []
      setTimeout(() => {
        const answers = held ?? []
        held = undefined
        for (const answer of answers) answer()
      }, pauseMs)
    }, 1000)
    const port = await serve((socket) => {
      socket.on('data', (chunk) => {
        if (held !== undefined) held.push(() => socket.write(chunk))
        else socket.write(chunk)
      })
    })
    const window = { connections: 4, seconds: 3, warmup: 0.2 }
    const closed = await measure(port, window)
    const open = await measure(port, { ...window, rate: 500 })
    clearInterval(timer)
    expect(closed.p99Us).toBeLessThan(100_000)
    expect(open.p99Us).toBeGreaterThan(150_000)
    expect(open.p99Us).toBeLessThan(2_000_000)
    expect(open.p50Us).toBeLessThan(100_000)
  })

  test('what is not answered is missed, and as old as it has become', async () => {
    const answered = 100
    let messages = 0
    const port = await serve((socket) => {
      socket.on('data', (chunk) => {
        messages += chunk.length / 64
        if (messages <= answered) socket.write(chunk)
      })
    })
    const rate = 200
    const result = await measure(port, { rate, seconds: 2, warmup: 0, connections: 1 })
    expect(result.messages).toBeLessThanOrEqual(answered)
    expect(result.missed! + result.messages).toBeGreaterThan(1.5 * rate)
    // Three quarters of them are missed, and the load waits for a second after its window of two.
    expect(result.p50Us).toBeGreaterThan(1_000_000)
    expect(result.p99Us).toBeGreaterThan(2_000_000)
  })

  test('a rate that cannot be held shows in the latencies', async () => {
    const server = await startFloor('echo')
    const result = await measure(server.port, { rate: 10_000_000, seconds: 0.5, connections: 2 })
    expect(result.messages).toBeLessThan(4_000_000)
    expect(result.p50Us).toBeGreaterThan(100_000)
  })
})

describe.runIf(areBuilt)('options', () => {
  const wrong: [string[], RegExp][] = [
    [[], /either --port or --path/],
    [['--mode', 'nonsense'], /--mode is one of echo, lines, frames, churn, burst, .*, not 'nonsense'/],
    [['--port', '70000'], /--port takes a number/],
    [['--port', '1', '--size', '0'], /--size takes a number/],
    [['--port', '1', '--mode', 'lines', '--size', '65537'], /--size is at most 65536 in mode lines/],
    [['--port', '1', '--mode', 'frames', '--size', '1048577'], /--size is at most 1048576 in mode frames/],
    [['--port', '1', '--size', '16777217'], /--size is at most 16777216 in mode echo/],
    [['--port', '1', '--mode', 'churn', '--rate', '5'], /--rate is for the modes echo, lines and frames/],
    [['--port', '1', '--rate', '0'], /--rate takes a number/],
    [['--port', '1', '--rate', '5', '--depth', '2'], /--rate .* omit --depth/],
    [['--port', '1', '--mode', 'sink', '--idle', '5'], /--idle is for the modes/],
    [['--port', '1', '--mode', 'fanout', '--stalled', '5'], /--stalled is for the modes/],
    [['--port', '1', '--publishers', '2'], /--publishers is for the mode fanout/],
    [['--port', '1', '--connections', '10000', '--idle', '10000'], /No more than 15000 connections/],
    [['--port', '1', '--server-pid', '999999999'], /--server-pid 999999999: /],
  ]
  test.each(wrong)('%j: status 2 and one sentence', async (args, sentence) => {
    const { code, stdout, stderr } = await loadWith(args)
    expect(stderr).toMatch(sentence)
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(stdout).toBe('')
    expect(code).toBe(2)
  })

  test('--help tells of every option and every mode', async () => {
    const { code, stdout } = await loadWith(['--help'])
    expect(code).toBe(0)
    const { stderr } = await loadWith(['--mode', '?'])
    const modes = /one of (.*), not/.exec(stderr)?.[1]?.split(', ') ?? []
    expect(modes).toHaveLength(10)
    const options = 'port host path mode connections size depth rate idle stalled publishers seconds warmup server-pid'
    for (const option of options.split(' ')) expect(stdout).toMatch(new RegExp(`--${option} [A-Z]`))
    for (const mode of modes) expect(stdout).toMatch(new RegExp(`^ {6}${mode} `, 'm'))
  })

  test('nobody listens: status 1', async () => {
    const { code, stderr } = await load(await closedPort())
    expect(stderr).toMatch(/connect: Connection refused/)
    expect(code).toBe(1)
  })
})
