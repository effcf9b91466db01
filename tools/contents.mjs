// What the published tarball may hold. The release script and test/install/contents.test.ts look at it with this.

import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const KIB = 1024

/** Where node-gyp-build looks: npm run prebuild makes them all. On macOS there is one libc, so the name has none. */
export const PREBUILDS = [
  'prebuilds/darwin-arm64/edgewire.node',
  'prebuilds/darwin-x64/edgewire.node',
  'prebuilds/linux-arm64/edgewire.glibc.node',
  'prebuilds/linux-arm64/edgewire.musl.node',
  'prebuilds/linux-x64/edgewire.glibc.node',
  'prebuilds/linux-x64/edgewire.musl.node',
]

/** At most this much of each, unpacked: about half as much again as there was when the number was last chosen. */
const SIZES = [
  { what: 'prebuilds/', files: /^prebuilds\//, each: 600 * KIB, all: 2400 * KIB },
  { what: 'dist/', files: /^dist\//, each: 32 * KIB, all: 448 * KIB },
  { what: 'source/', files: /^source\//, each: 32 * KIB, all: 288 * KIB },
  { what: 'the documents', files: /\.md$|^LICENSE$|^package\.json$/, each: 16 * KIB, all: 64 * KIB },
]

const DOCUMENTS = [
  'CHANGELOG.md',
  'LICENSE',
  'README.md',
  'docs/dialing.md',
  'docs/errors.md',
  'docs/lifecycle.md',
  'docs/pool.md',
  'docs/tuning.md',
]

/** Every path in a tarball of this clone. */
function expected(root, prebuilds) {
  const compiled = filesUnder(join(root, 'lib'))
    .map((file) => `dist/${file.replace(/\.ts$/, '')}`)
    .flatMap((file) => [`${file}.js`, `${file}.d.ts`])
  const native = filesUnder(join(root, 'native')).map((file) => `source/native/${file}`)
  return [...DOCUMENTS, 'package.json', 'source/binding.gyp', ...native, ...compiled, ...prebuilds].sort()
}

/** Path and size of everything in a tarball. */
export function listing(tarball) {
  const { status, stdout, stderr } = spawnSync('tar', ['-tvzf', tarball], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`tar cannot read ${tarball}: ${stderr}`)
  // GNU tar: mode owner/group size date time path; macOS's: mode links owner group size month day time path.
  return stdout
    .trim()
    .split('\n')
    .map((line) => {
      const path = line.slice(line.indexOf(' package/') + ' package/'.length)
      const size = /^\S+ +\S+\/\S+ +(\d+) /.exec(line) ?? /^\S+ +\d+ +\S+ +\S+ +(\d+) /.exec(line)
      return { path, bytes: Number(size?.[1]) }
    })
}

/** Everything that is wrong with a tarball that should hold these binaries; empty if nothing is. */
export function checkContents(root, tarball, prebuilds = PREBUILDS) {
  const files = listing(tarball)
  const found = new Set(files.map(({ path }) => path))
  const wanted = expected(root, prebuilds)
  return [
    ...wanted.filter((path) => !found.has(path)).map((path) => `${path} is missing`),
    ...[...found].filter((path) => !wanted.includes(path)).map((path) => `${path} should not be there`),
    ...SIZES.flatMap((bound) => overSize(bound, files)),
  ]
}

function overSize({ what, files, each, all }, listed) {
  const group = listed.filter(({ path }) => files.test(path))
  const sum = group.reduce((total, { bytes }) => total + bytes, 0)
  const wrong = group.filter(({ bytes }) => !(bytes <= each)).map(({ path, bytes }) => `${path} has ${bytes} bytes`)
  return sum <= all ? wrong : [...wrong, `${what}: ${sum} bytes, at most ${all} are allowed`]
}

function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(folder.length + 1))
}
