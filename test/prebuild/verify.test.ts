// The checks of `npm run prebuild`, fed with what they must refuse. What needs the six binaries is skipped until they
// have been built; EDGEWIRE_REQUIRE_PREBUILDS=1 makes their absence a failure.

import { execFileSync } from 'node:child_process'
import { appendFileSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { targets } from '../../tools/cross/targets.mjs'
import { SIZE_MAX_BYTES, verify } from '../../tools/cross/verify.mjs'

const root = fileURLToPath(new URL('../..', import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), 'edgewire-verify-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const named = (name: string) => targets.find((target) => target.name === name)!
const binary = (name: string) => join(root, 'prebuilds', named(name).file)
const problems = (name: string, path: string) => verify(named(name), path).problems

const absent = targets.filter(({ name }) => !existsSync(binary(name)))
if (absent.length > 0 && process.env.EDGEWIRE_REQUIRE_PREBUILDS === '1')
  throw new Error(`not built: ${absent.map(({ name }) => name).join(', ')}`)
const onLinuxX64 = process.platform === 'linux' && process.arch === 'x64'

describe.skipIf(!onLinuxX64)('a binary of this system', () => {
  const entry = 'void napi_register_module_v1(void) {} int node_api_module_get_api_version_v1(void) { return 8; }'

  /** `source` as a shared library, made by the system's compiler. */
  function compiled(source: string, flags = ['-s']) {
    const path = join(scratch, 'made.node')
    const args = ['-x', 'c', '-', '-shared', '-fPIC', '-nostdlib', ...flags, '-o', path]
    execFileSync('g++', args, { input: source, stdio: ['pipe', 'ignore', 'inherit'] })
    return path
  }

  test('with the two exports and nothing else is right', () => {
    expect(problems('linux-x64', compiled(entry))).toEqual([])
  })

  test('with a third export', () => {
    expect(problems('linux-x64', compiled(`${entry} int more;`))).toEqual(['exports more'])
  })

  test('without the exports', () => {
    expect(problems('linux-x64', compiled('static int nothing;'))).toEqual([
      'does not export napi_register_module_v1',
      'does not export node_api_module_get_api_version_v1',
    ])
  })

  test('with an import that neither libc nor Node provides', () => {
    const source = `extern int v8_secret(void); ${entry.replace('return 8', 'return v8_secret()')}`
    expect(problems('linux-x64', compiled(source))).toEqual(['imports v8_secret, which neither libc nor Node provides'])
  })

  test('that is not stripped', () => {
    expect(problems('linux-x64', compiled(entry, []))).toEqual(['not stripped'])
  })

  test('from the development build: the C++ runtime and the glibc of this machine', () => {
    const found = problems('linux-x64', join(root, 'build', 'Release', 'edgewire.node'))
    expect(found).toContain('needs libstdc++.so.6')
    expect(found).toContainEqual(expect.stringMatching(/^needs the symbol version GLIBCXX_/))
    expect(found).toContainEqual(expect.stringMatching(/^needs GLIBC_2\.[\d.]+; at most GLIBC_2\.17 is allowed$/))
  })
})

test('a file that is no binary', () => {
  const path = join(scratch, 'text.node')
  writeFileSync(path, 'version https://git-lfs.github.com/spec/v1\n')
  expect(problems('linux-x64', path)).toEqual(['not an ELF file'])
  expect(problems('darwin-x64', path)).toEqual(['not a 64-bit Mach-O file'])
})

describe.skipIf(absent.length > 0)('the six binaries', () => {
  /** A copy of one with `change` made to its bytes. */
  function changed(name: string, change: (bytes: Buffer) => void) {
    const path = join(scratch, 'changed.node')
    const bytes = readFileSync(binary(name))
    change(bytes)
    writeFileSync(path, bytes)
    return path
  }

  test.each(targets)('$name is right', ({ name }) => {
    expect(problems(name, binary(name))).toEqual([])
  })

  test.each(targets)('$name is refused in the place of any other', ({ name }) => {
    for (const other of targets.filter((target) => target.name !== name))
      expect(problems(other.name, binary(name)), `as ${other.name}`).not.toEqual([])
  })

  test.each(targets)('$name is refused when it is cut off', ({ name }) => {
    const path = join(scratch, 'cut.node')
    const bytes = readFileSync(binary(name))
    writeFileSync(path, bytes.subarray(0, bytes.length / 2))
    expect(problems(name, path)).not.toEqual([])
  })

  test('one of another architecture', () => {
    expect(problems('linux-x64', binary('linux-arm64'))).toContain('made for arm64, not x64')
    expect(problems('darwin-arm64', binary('darwin-x64'))).toContain('made for x64, not arm64')
  })

  test('one for the other C library', () => {
    expect(problems('linux-x64', binary('linux-x64-musl'))).toContain('needs libc.so')
    expect(problems('linux-x64-musl', binary('linux-x64'))).toContain('needs libc.so.6')
  })

  test('one that is too large', () => {
    const path = join(scratch, 'large.node')
    copyFileSync(binary('linux-x64'), path)
    appendFileSync(path, Buffer.alloc(SIZE_MAX_BYTES))
    expect(problems('linux-x64', path)).toEqual([expect.stringMatching(/^\d+ bytes; 512000 are allowed$/)])
  })

  test('one for macOS that expects something else of its host', () => {
    const path = changed('darwin-x64', (bytes) => bytes.write('nopi', bytes.lastIndexOf('napi_create_object\0')))
    expect(problems('darwin-x64', path)).toContain('imports nopi_create_object, which neither macOS nor Node provides')
  })

  test('one for macOS whose bytes are not those that were signed', () => {
    const path = changed('darwin-arm64', (bytes) => bytes.writeUInt8(bytes[0x8000]! ^ 1, 0x8000))
    expect(problems('darwin-arm64', path)).toEqual([expect.stringMatching(/^code signature: page \d+ does not match/)])
  })

  test('one for macOS on arm64 without a signature', () => {
    // LC_CODE_SIGNATURE, 16 bytes long, becomes a command that nobody looks at.
    const command = Buffer.from([0x1d, 0, 0, 0, 16, 0, 0, 0])
    const path = changed('darwin-arm64', (bytes) => bytes.writeUInt8(0x26, bytes.indexOf(command)))
    expect(problems('darwin-arm64', path)).toEqual(['has no code signature'])
  })

  test('one for a newer macOS', () => {
    // LC_BUILD_VERSION for platform 1; the version follows as xxxx.yy.zz.
    const path = changed('darwin-x64', (bytes) => {
      const at = bytes.indexOf(Buffer.from([0, 0, 0, 1, 0, 0, 0, 0, 0, 11, 0]))
      expect(at).toBeGreaterThan(0)
      bytes.writeUInt8(13, at + 9)
    })
    expect(problems('darwin-x64', path)).toEqual(['is for macOS 13.0, not macOS 11.0'])
  })
})
