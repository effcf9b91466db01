// The process's life: it ends by itself when nothing ref'd is left, not before, and however it is ended.

import { describe, expect, test } from 'vitest'
import { Program, run, start } from './programs.ts'
import { isBun, isDeno } from './runtime.ts'

const echo = `{ data(conn, chunk) { conn.write(chunk) } }`
const listening = `const server = await listen({ host: '127.0.0.1', port: 0 }, ${echo})\n`

const ends: [string, string][] = [
  ['only imports edgewire', ``],
  ['reads stats()', `stats(); configure({ slabBudgetBytes: 1 << 24 })`],
  ['has closed its listener', `${listening} await server.close()`],
  ["has an unref'd listener", `${listening} server.unref()`],
  ['unrefs and refs and unrefs', `${listening} server.unref().ref().unref()`],
  [
    'unrefs twice',
    `${listening} server.unref().unref(); const b = await listen({ host: '127.0.0.1', port: 0 }, ${echo}); b.unref()`,
  ],
  ["has closed an unref'd listener", `${listening} server.unref(); await server.close(); server.unref()`],
  ['refs a closed listener', `${listening} await server.close(); server.ref()`],
  [
    'has served and closed everything',
    `${listening}
    const client = net.connect(server.port, '127.0.0.1'); client.end('x'); await once(client.resume(), 'close'); await server.close()`,
  ],
  [
    'has closed a dialed connection',
    `${listening} const conn = await dial({ host: '127.0.0.1', port: server.port }); conn.close(); await conn.closed; await server.shutdown()`,
  ],
  [
    "has an unref'd connection on both sides",
    `${listening} server.unref()
    const conn = await dial({ host: '127.0.0.1', port: server.port }); conn.unref(); conn.write('x'); await conn.read(new Uint8Array(1))
    for (const c of server.connections) c.unref()`,
  ],
  ['has failed to listen', `await listen({ host: '192.0.2.1', port: 0 }, ${echo}).catch(() => {})`],
  ['has failed to dial', `await dial({ host: '127.0.0.1', port: 1 }).catch(() => {})`],
  [
    "has a deadline pending on an unref'd connection",
    `${listening} server.unref()
    const conn = await dial({ host: '127.0.0.1', port: server.port }); conn.unref().setDeadline(Date.now() + 60000)
    while (server.stats().open === 0) await sleep(1)
    for (const c of server.connections) c.unref()`,
  ],
]

test.each(ends)('a program that %s ends by itself', async (_, body) => {
  const end = await run(`${body}\nprint('done')`)
  expect(end, end.stderr).toMatchObject({ code: 0, signal: null, stdout: 'done\n', stderr: '' })
})

const stays: [string, string][] = [
  ['has a listener', listening],
  ["has a listener that was unref'd and ref'd", `${listening} server.unref().ref()`],
  [
    'has an accepted connection, though its listener is closed',
    `${listening}
    const kid = net.connect(server.port, '127.0.0.1'); kid.unref(); while (server.stats().open === 0) await sleep(1); await server.close()`,
  ],
  [
    'has a dialed connection',
    `const theirs = net.createServer((s) => s.unref()).listen(0, '127.0.0.1'); await once(theirs, 'listening')
    // A server that closes before it has accepted resets the connection.
    const [conn] = await Promise.all([dial({ host: '127.0.0.1', port: theirs.address().port }), once(theirs, 'connection')])
    theirs.close(); theirs.unref()`,
  ],
]

stays.push([
  "has a listener whose close handler unref'd its connection",
  `const server = await listen({ host: '127.0.0.1', port: 0 }, { data() {}, close(conn) { conn.unref(); conn.ref(); conn.unref() } })
  for (let i = 0; i < 3; i++) { const kid = net.connect(server.port, '127.0.0.1').resume(); kid.end('x'); await once(kid, 'close') }
  while (server.stats().closed < 3) await sleep(1)`,
])

test.each(stays)('a program that %s stays alive', async (_, body) => {
  const program = start(`${body}\nprint('ready'); setTimeout(() => print('alive'), 100).unref()`)
  expect(await program.line()).toBe('ready')
  expect(await program.line()).toBe('alive')
  program.child.kill('SIGTERM')
  expect((await program.end()).signal).toBe('SIGTERM')
})

describe('process.exit() from anywhere ends it cleanly', () => {
  const inHandler = ['open', 'data', 'end', 'close', 'timeout', 'drain'].map((place): [string, string] => [
    `the ${place} handler`,
    `const server = await listen({ host: '127.0.0.1', port: 0, maxBufferedBytes: 1 << 26 }, {
       open(conn) { if ('${place}' === 'drain') conn.write(Buffer.alloc(8 << 20)); conn.setReadDeadline(Date.now() + ('${place}' === 'timeout' ? 1 : 60000)) },
       data() {}, end(conn) { conn.close() }, timeout() {},
       ${place}(conn) { conn.write === undefined || process.exit(7) },
     })
     const client = net.connect(server.port, '127.0.0.1').on('error', () => {}).resume()
     client.write(Buffer.alloc(1 << 20))
     if (!['timeout', 'drain'].includes('${place}')) client.end()`,
  ])
  const elsewhere: [string, string][] = [
    [
      'a task',
      `const server = await listen({ host: '127.0.0.1', port: 0 }, async (conn) => { await conn.read(new Uint8Array(1)); process.exit(7) })
      net.connect(server.port, '127.0.0.1').on('error', () => {}).write('x')`,
    ],
    [
      'a timer with everything open',
      `${listening}
      for (let i = 0; i < 50; i++) { const c = await dial({ host: '127.0.0.1', port: server.port }, ${echo}); c.write(Buffer.alloc(1 << 17)) }
      setTimeout(() => process.exit(7), 20)`,
    ],
    [
      'a process exit handler that still writes',
      `${listening}
      const conn = await dial({ host: '127.0.0.1', port: server.port })
      process.on('exit', () => { conn.write('late'); conn.close(); void server.close(); stats() })
      process.exit(7)`,
    ],
  ]
  test.each([...inHandler, ...elsewhere])('%s', async (_, body) => {
    const end = await run(body)
    expect(end, end.stderr).toMatchObject({ code: 7, signal: null, stderr: '' })
  })
})

test('an uncaught exception ends a serving process as any other', async () => {
  const end = await run(`${listening} setTimeout(() => { throw new Error('boom') }, 5)`)
  expect(end.code).toBe(1)
  expect(end.stderr).toMatch(/boom/)
})

test('a second copy of lib/ over the same addon says what is wrong, and the first goes on', async () => {
  const end = await run(`
    import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
    import { fileURLToPath, pathToFileURL } from 'node:url'
    const root = fileURLToPath(new URL('..', import.meta.resolve('edgewire')))
    const copy = mkdtempSync('/tmp/edgewire-')
    process.on('exit', () => rmSync(copy, { recursive: true }))
    cpSync(root + 'dist', copy + '/dist', { recursive: true })
    for (const folder of ['node_modules', 'build']) symlinkSync(root + folder, copy + '/' + folder)
    writeFileSync(copy + '/package.json', '{ "type": "module" }')
    ${listening}
    const second = await import(pathToFileURL(copy + '/dist/index.js').href)
    for (const call of ['listen', 'dial', 'listen']) {
      const error = await second[call]({ host: '127.0.0.1', port: server.port }, { data() {} }).catch((error) => error)
      print([error.name, error instanceof second.NetError, error.code, error.message])
    }
    const client = net.connect(server.port, '127.0.0.1')
    client.end('hello')
    for await (const chunk of client) print(chunk.toString())
    await server.shutdown()
  `)
  expect(end, end.stderr).toMatchObject({ code: 0, signal: null })
  const lines = end.stdout.trim().split('\n')
  expect(lines.pop()).toBe('hello')
  expect(lines.length).toBe(3)
  for (const line of lines) {
    const [name, isNetError, code, message] = JSON.parse(line)
    expect({ name, isNetError, code }).toEqual({ name: 'NetError', isNetError: true, code: 'ERR_UNSUPPORTED_PLATFORM' })
    expect(message).toMatch(/two copies of edgewire/)
  }
})

test('importing raises the soft limit of open files to the hard one', async () => {
  const end = await run(`
    import { readFileSync } from 'node:fs'
    const [, soft, hard] = /Max open files +(\\S+) +(\\S+)/.exec(readFileSync('/proc/self/limits', 'utf8'))
    print(soft === hard ? 'raised' : soft + ' of ' + hard)
  `)
  expect(end.stdout).toBe('raised\n')
})

test.skipIf(isBun || isDeno)('where Node may not load addons, the import says so', async () => {
  const source = `import('edgewire').catch(({ code, message }) => console.log(JSON.stringify([code, message])))`
  const end = await new Program(['--no-addons', '--input-type=module', '-e', source]).end()
  expect(JSON.parse(end.stdout)).toEqual([
    'ERR_UNSUPPORTED_PLATFORM',
    'configure: this process may not load addons: it runs with --no-addons or without --allow-addons',
  ])
})
