// Where no binary fits: one sentence that can be acted upon, and the action it names works.

import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { echoServer, expectEchoFrom, Project } from './project.ts'
import { hostPrebuild, repack, temporaryFolder } from './tarball.ts'

const machine = `${process.platform}-${process.arch} with Node.js ${process.versions.node}`
const noBinary = `configure: no binary of edgewire fits ${machine}; build one with \`npx edgewire build\``
const badBinary = `configure: the binary of edgewire does not load on ${machine}; build one with \`npx edgewire build\``

let folder: string
/** The tarball as a machine sees it whose platform has no binary. */
let without: string

beforeAll(() => {
  folder = temporaryFolder()
  without = repack(inject('tarball'), folder, (files) => rmSync(join(files, 'prebuilds'), { recursive: true }))
})

afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** What a program sees that imports the package. */
function importError(project: Project): { name: string; code: string; op: string; message: string } {
  const program = `import('edgewire').then(
    () => console.log('{}'),
    ({ name, code, op, message }) => console.log(JSON.stringify({ name, code, op, message })),
  )`
  const { stdout, stderr } = project.node('-e', program)
  expect(stderr).toBe('')
  return JSON.parse(stdout)
}

describe('a platform without a binary', () => {
  test('the import fails with a NetError of one sentence', () => {
    const project = new Project()
    project.install('npm', [], without)
    const error = importError(project)
    expect(error).toEqual({ name: 'NetError', code: 'ERR_UNSUPPORTED_PLATFORM', op: 'configure', message: noBinary })
    const { code, stdout, stderr } = project.run('npx', 'edgewire', 'echo')
    expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: '', stderr: `edgewire: ${noBinary}\n` })
  })

  test('edgewire --version and --help work all the same', () => {
    const project = new Project()
    project.install('npm', [], without)
    for (const option of ['--version', '--help']) expect(project.run('npx', 'edgewire', option).code).toBe(0)
  })

  // The one test with a compiler: it needs the PATH of the machine.
  test('npx edgewire build makes one, which the loader finds', async () => {
    const project = new Project()
    project.install('npm', [], without)
    project.env.PATH = process.env.PATH
    const { code, output } = project.run('npx', 'edgewire', 'build')
    expect(code, output).toBe(0)
    const left = readdirSync(project.env.TMPDIR ?? '').filter((name) => name.startsWith('edgewire-build-'))
    expect(left).toEqual([])
    await expectEchoFrom(project.start([project.write('server.mjs', echoServer())]))
  })

  test('a build that fails says what is needed, and leaves nothing', () => {
    const project = new Project()
    project.install('npm', [], without)
    const { code, stderr } = project.run('npx', 'edgewire', 'build') // without a compiler in PATH
    expect(code).toBe(1)
    expect(stderr).toMatch(/^edgewire: .* ended with exit code 1; it needs Python 3, make, a C\+\+20 compiler.*$/m)
    expect(stderr).not.toMatch(/\n +at /)
    expect(existsSync(join(project.folder, 'node_modules', 'edgewire', 'build'))).toBe(false)
  })
})

describe('a binary that does not fit', () => {
  test('garbage: the import fails with a NetError of one sentence', () => {
    const project = new Project()
    project.install()
    writeFileSync(join(project.folder, 'node_modules', 'edgewire', hostPrebuild()), 'not a binary at all\n')
    const error = importError(project)
    expect(error).toEqual({ name: 'NetError', code: 'ERR_UNSUPPORTED_PLATFORM', op: 'configure', message: badBinary })
  })

  test.runIf(process.platform === 'linux')('only one for the other libc: it is not tried', () => {
    const project = new Project()
    project.install()
    const binaries = join(project.folder, 'node_modules', 'edgewire', dirname(hostPrebuild()))
    rmSync(binaries, { recursive: true })
    mkdirSync(binaries)
    const other = hostPrebuild().includes('.glibc.') ? 'musl' : 'glibc'
    writeFileSync(join(binaries, `edgewire.${other}.node`), 'not a binary at all\n')
    expect(importError(project).message).toBe(noBinary)
  })
})
