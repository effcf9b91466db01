// The installed package in each way that a program may use it.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { run } from './commands.ts'
import { echoServer, expectEchoFrom, modules, Project, samples } from './project.ts'
import { root } from './tarball.ts'

let project: Project

beforeEach(() => {
  project = new Project()
  project.install()
})

describe("README's first example", () => {
  test('as an ES module', async () => {
    await expectEchoFrom(project.start([project.write('server.mjs', echoServer())]))
  })

  test('in CommonJS, without a warning', async () => {
    await expectEchoFrom(project.start([project.write('server.cjs', inCommonJs(echoServer()))]))
  })
})

describe('TypeScript: strict, and with the declarations checked as well', () => {
  const compilers = { 'TypeScript 7': join(root, 'node_modules'), 'TypeScript 5': modules }
  const settings = {
    nodenext: { module: 'nodenext' },
    bundler: { module: 'esnext', moduleResolution: 'bundler' },
  }
  const cases = Object.keys(compilers).flatMap((compiler) =>
    Object.keys(settings).map((setting) => [compiler, setting] as [keyof typeof compilers, keyof typeof settings]),
  )

  test.each(cases)('%s, module resolution %s: type-checks, and serves', async (compiler, setting) => {
    const compilerOptions = {
      ...settings[setting],
      target: 'es2022',
      lib: ['es2022'],
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      outDir: 'out',
      rootDir: '.',
      // As `npm install --save-dev @types/node` would put it there.
      typeRoots: [join(root, 'node_modules', '@types')],
      types: ['node'],
    }
    project.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['server.mts', 'styles.mts', 'old.cts'] }))
    project.write('server.mts', echoServer())
    project.write('styles.mts', samples('ts').join(''))
    project.write('old.cts', "import { listen, NetError } from 'edgewire'\nexport const all = [listen, NetError]\n")
    const tsc = join(compilers[compiler], 'typescript', 'bin', 'tsc')
    const { code, output } = run(project.folder, process.execPath, [tsc, '-p', '.'], project.env)
    expect(output).toBe('')
    expect(code).toBe(0)
    await expectEchoFrom(project.start([join(project.folder, 'out', 'server.mjs')]))
  })

  test('a wrong argument is an error: the types are found', () => {
    project.write('wrong.mts', "import { listen } from 'edgewire'\nawait listen({ port: 'http' })\n")
    const args = ['--module', 'nodenext', '--noEmit', '--skipLibCheck', 'wrong.mts']
    const tsc = join(modules, 'typescript', 'bin', 'tsc')
    expect(run(project.folder, process.execPath, [tsc, ...args], project.env).output).toContain('TS2322')
  })
})

describe('the command', () => {
  test('npx edgewire --version', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
    const { code, stdout, stderr } = project.run('npx', 'edgewire', '--version')
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' })
  })

  test('edgewire echo', async () => {
    await expectEchoFrom(project.start(['node_modules/.bin/edgewire', 'echo', '--port', '0']))
  })
})

/** The same program for those whose files are CommonJS: require() instead of import, and no await outside a function. */
function inCommonJs(code: string): string {
  const body = code.replace("import { listen } from 'edgewire'", "const { listen } = require('edgewire')")
  expect(body).not.toContain('import ')
  return `async function main() {\n${body}}\nmain()\n`
}
