// examples/resp_client.mjs against a real redis-server, which this test starts.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Program, root } from './program.ts'

const START_MS = 10_000
const POLL_MS = 20

const isInstalled = spawnSync('redis-server', ['--version']).status === 0
const isRequired = process.env.EDGEWIRE_REQUIRE_REDIS === '1'

test.skipIf(!isInstalled && !isRequired)(
  'examples/resp_client.mjs speaks to redis-server (needs redis-server)',
  async () => {
    const path = await startRedis()
    const program = new Program([join(root, 'examples', 'resp_client.mjs'), path])
    const { code, signal, stdout, stderr } = await program.ended
    expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' })
    const lines = stdout.trim().split('\n')
    expect(lines.slice(0, -1)).toEqual([
      'set: OK',
      'get: hello, wörld',
      'get what is not there: null',
      'incr: ERR value is not an integer or out of range',
      'visits: 1000',
      "list: [ 0, 3, [ 'a', 'b', 'c' ] ]",
    ])
    expect(lines.at(-1)).toMatch(/^57 uses of [1-4] connections$/)
  },
)

/** Returns the path of its socket. It listens on no port, and writes nothing outside its folder. */
async function startRedis(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'edgewire-redis-'))
  const path = join(folder, 'redis.sock')
  const args = ['--port', '0', '--unixsocket', path, '--dir', folder, '--save', '', '--appendonly', 'no']
  const redis = spawn('redis-server', args, { stdio: 'ignore' })
  onTestFinished(async () => {
    redis.kill('SIGKILL')
    if (redis.exitCode === null && redis.signalCode === null) await once(redis, 'exit')
    rmSync(folder, { recursive: true, force: true })
  })
  await once(redis, 'spawn')
  await answers(path, redis)
  return path
}

async function answers(path: string, redis: ChildProcess): Promise<void> {
  for (const end = Date.now() + START_MS; ; ) {
    const socket = net.connect(path)
    try {
      await once(socket, 'connect')
      return
    } catch (error) {
      if (Date.now() > end || redis.exitCode !== null) throw error
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    } finally {
      socket.destroy()
    }
  }
}
