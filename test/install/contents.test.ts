// What is in the tarball, exactly: every new file is a decision, made in tools/contents.mjs.

import { join } from 'node:path'
import { expect, inject, test } from 'vitest'
import { checkContents, PREBUILDS } from '../../tools/contents.mjs'
import { must, run } from './commands.ts'
import { modules } from './project.ts'
import { hostPrebuild, root } from './tarball.ts'

const tarball = inject('tarball')

test('holds what it should, within its sizes, and nothing else', () => {
  expect(checkContents(root, tarball, inject('complete') ? PREBUILDS : [hostPrebuild()])).toEqual([])
})

test("this machine's binary is one of the six", () => {
  expect(PREBUILDS).toContain(hostPrebuild())
})

test('publint has nothing to say', () => {
  const { output } = must(root, process.execPath, [join(modules, 'publint', 'src', 'cli.js'), '--strict', tarball])
  expect(output).toContain('All good!')
})

// The profile says that the package is an ES module and nothing else. What it leaves out is `require()` as TypeScript
// before 5.8 saw it, an error; every Node that we support has require() of ES modules, and usage.test.ts tries it.
test('are-the-types-wrong finds nothing, for a package of ES modules only', () => {
  const attw = join(modules, '@arethetypeswrong', 'cli', 'dist', 'index.js')
  const { code, output } = run(root, process.execPath, [attw, tarball, '--profile', 'esm-only', '--format', 'ascii'])
  expect(code, output).toBe(0)
})
