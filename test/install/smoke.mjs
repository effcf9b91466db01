// `node test/install/smoke.mjs TARBALL`: installs it into an empty folder, and has an echo served from there as an ES
// module and in CommonJS. Needs Node and npm only, so that it runs where the package is to run: any Node that we
// support, a macOS machine, an Alpine container.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

const RUN_MS = 60_000
const MESSAGE = 'hello, '.repeat(50_000)

const serve = `(async () => {
  const listener = await listen({ host: '127.0.0.1', port: 0 }, async (conn) => {
    for await (const chunk of conn) if (!conn.write(chunk)) await conn.drained()
  })
  console.log(listener.port)
})()\n`

const programs = {
  'server.mjs': `import { listen } from 'edgewire'\n;${serve}`,
  'server.cjs': `const { listen } = require('edgewire')\n;${serve}`,
}

async function echoed(port) {
  const socket = net.connect(port, '127.0.0.1')
  socket.end(MESSAGE)
  let text = ''
  for await (const part of socket.setEncoding('utf8')) text += part
  return text
}

async function check(folder, file, code) {
  writeFileSync(join(folder, file), code)
  const child = spawn(process.execPath, [join(folder, file)], { stdio: ['ignore', 'pipe', 'pipe'] })
  let complaints = ''
  child.stderr.on('data', (text) => {
    complaints += text
  })
  try {
    const [line] = await Promise.race([once(createInterface(child.stdout), 'line'), once(child, 'close')])
    if (!/^\d+$/.test(String(line)) || child.exitCode !== null) throw new Error(`it did not start:\n${complaints}`)
    if ((await echoed(Number(line))) !== MESSAGE) throw new Error('the echo is not what was sent')
  } finally {
    child.kill()
  }
  if (complaints !== '') throw new Error(`it served, but said:\n${complaints}`)
}

const [tarball] = process.argv.slice(2)
if (tarball === undefined) throw new Error('usage: node test/install/smoke.mjs TARBALL')
const overdue = setTimeout(() => {
  console.error(`not done after ${RUN_MS} ms`)
  process.exit(1)
}, RUN_MS)
const folder = mkdtempSync(join(tmpdir(), 'edgewire-smoke-'))
try {
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
  execFileSync('npm', ['install', '--no-audit', '--no-fund', resolve(tarball)], { cwd: folder, stdio: 'inherit' })
  for (const [file, code] of Object.entries(programs)) await check(folder, file, code)
  console.log(`smoke: ${process.platform}-${process.arch}, Node ${process.versions.node}: ok`)
} finally {
  rmSync(folder, { recursive: true, force: true })
  clearTimeout(overdue)
}
