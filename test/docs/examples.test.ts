// Each program in examples/ starts, serves a client byte for byte, and ends in order with its client still there.

import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Client } from './client.ts'
import { Program, root } from './program.ts'

const ECHO_BYTES = 2_000_000
const LINE_BYTES_MAX = 4096

/** What clients of each example do. The one that is returned is still connected, with nothing under way. */
const conversations: Record<string, (port: number) => Promise<Client>> = {
  'broadcast.mjs': broadcast,
  'echo_accept.mjs': echo,
  'echo_handlers.mjs': echo,
  'echo_task.mjs': echo,
  'lines.mjs': lines,
  'proxy.mjs': echo,
}

/** Clients, each with a test of its own. */
const clients = ['resp_client.mjs'] // redis.test.ts

test('every example has its conversation here', () => {
  expect(readdirSync(join(root, 'examples')).sort()).toEqual([...Object.keys(conversations), ...clients].sort())
})

test.each(Object.entries(conversations))('examples/%s', async (name, converse) => {
  const more = name === 'proxy.mjs' ? [String(await echoOfNode())] : []
  const program = new Program([join(root, 'examples', name), '0', ...more])
  const port = await program.port()
  const client = await converse(port)
  program.interrupt()
  expect(await client.rest()).toBe('')
  const { code, signal, stderr } = await program.ended
  expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' })
})

async function echo(port: number): Promise<Client> {
  const halfCloser = await Client.connect(port)
  await halfCloser.expectEcho(ECHO_BYTES)
  halfCloser.finish()
  expect(await halfCloser.rest()).toBe('')
  const staying = await Client.connect(port)
  await staying.expectEcho(ECHO_BYTES)
  return staying
}

async function broadcast(port: number): Promise<Client> {
  const sender = await Client.connect(port)
  const leaving = await Client.connect(port)
  const staying = await Client.connect(port)
  const sent = Buffer.alloc(20_000, 'to all the others ')
  sender.send(sent)
  for (const receiver of [leaving, staying]) expect(Buffer.compare(await receiver.read(sent.length), sent)).toBe(0)
  // The sender itself has got nothing of it: the first bytes that it reads are another's.
  leaving.send('bye')
  leaving.finish()
  expect((await sender.read('bye'.length)).toString()).toBe('bye')
  expect((await staying.read('bye'.length)).toString()).toBe('bye')
  expect(await leaving.rest()).toBe('')
  sender.finish()
  expect(await sender.rest()).toBe('')
  return staying
}

async function lines(port: number): Promise<Client> {
  const quitting = await Client.connect(port)
  quitting.send('echo one\r\necho t')
  quitting.send('wo\nquit\necho three\n')
  expect(await quitting.rest()).toBe('one\ntwo\nbye\n')
  const talkative = await Client.connect(port)
  talkative.send('x'.repeat(LINE_BYTES_MAX))
  expect(await talkative.rest()).toBe('error: line too long\n')
  const staying = await Client.connect(port)
  staying.send('tim')
  staying.send('e\n')
  const time = (await staying.read('2000-01-01T00:00:00.000Z\n'.length)).toString().trim()
  expect(Date.parse(time)).toBeGreaterThan(0)
  return staying
}

/** What the proxy is given as its target. */
async function echoOfNode(): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {}).pipe(socket)
  })
  onTestFinished(() => void server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as net.AddressInfo).port
}
