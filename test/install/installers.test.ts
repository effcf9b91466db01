// Each package manager installs the tarball into an empty project: no script to run or to approve, no complaint, and
// README's first example serves an echo from there.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject, test } from 'vitest'
import { type Command, echoServer, expectEchoFrom, Project } from './project.ts'

type Case = [title: string, Command, string[]]

// It fails, rather than warns, where a package has a script that nobody approved.
const pnpm12: Case = ['pnpm 12', 'pnpm 12', []]

const cases: Case[] = [
  ['npm', 'npm', []],
  ['npm --ignore-scripts', 'npm', ['--ignore-scripts']],
  ['npm --strict-allow-scripts', 'npm', ['--strict-allow-scripts']],
  ['pnpm 10', 'pnpm', []],
  ...(process.platform === 'linux' && process.arch === 'x64' ? [pnpm12] : []),
  ['bun', 'bun', []],
]

test.each(cases)('%s', async (_, command, args) => {
  const project = new Project()
  project.install(command, args)
  await expectEchoFrom(project.start([project.write('server.mjs', echoServer())]))
})

test('yarn with node_modules', async () => {
  const project = new Project()
  project.write('yarn.lock', '')
  project.write('.yarnrc.yml', 'nodeLinker: node-modules\n')
  project.install('yarn')
  await expectEchoFrom(project.start([project.write('server.mjs', echoServer())]))
})

test("yarn with Plug'n'Play, which unpacks the package because a .node file is in it", async () => {
  const project = new Project()
  project.write('yarn.lock', '')
  project.write('.yarnrc.yml', 'nodeLinker: pnp\n')
  // It says of every ES module that its own support for them is experimental.
  project.install('yarn', [], inject('tarball'), /YN0092|Done with warnings/)
  expect(existsSync(join(project.folder, 'node_modules', 'edgewire'))).toBe(false)
  const pnp = ['--require', './.pnp.cjs', '--no-warnings', '--experimental-loader', './.pnp.loader.mjs']
  await expectEchoFrom(project.start([...pnp, project.write('server.mjs', echoServer())]))
})

test('it brings two small packages along, and no more', () => {
  const project = new Project()
  project.install()
  const listed = JSON.parse(project.run('npm', 'ls', '--all', '--json').stdout) as {
    dependencies: { edgewire: { dependencies: object } }
  }
  expect(Object.keys(listed.dependencies.edgewire.dependencies).sort()).toEqual([
    'commander',
    'lru-cache',
    'node-gyp-build',
  ])
})
