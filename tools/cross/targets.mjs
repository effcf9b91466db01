// The six binaries that are released. Everything that differs between them stands here.

/**
 * @typedef {object} Target
 * @property {string} name      what `npm run prebuild -- NAME` takes
 * @property {'linux' | 'darwin'} platform
 * @property {'x64' | 'arm64'} arch
 * @property {'glibc' | 'musl' | undefined} libc
 * @property {string} triple    for zig: the C library's or the system's version stands last
 * @property {string} file      below prebuilds/, where node-gyp-build looks
 */

// glibc 2.17 (2012) is older than what any supported Node needs, so Node is what decides where the addon runs.
/** @type {Target[]} */
export const targets = [
  ['linux-x64', 'linux', 'x64', 'glibc', 'x86_64-linux-gnu.2.17'],
  ['linux-arm64', 'linux', 'arm64', 'glibc', 'aarch64-linux-gnu.2.17'],
  ['linux-x64-musl', 'linux', 'x64', 'musl', 'x86_64-linux-musl'],
  ['linux-arm64-musl', 'linux', 'arm64', 'musl', 'aarch64-linux-musl'],
  ['darwin-x64', 'darwin', 'x64', undefined, 'x86_64-macos.11.0'],
  ['darwin-arm64', 'darwin', 'arm64', undefined, 'aarch64-macos.11.0'],
].map(([name, platform, arch, libc, triple]) => {
  const file = `${platform}-${arch}/edgewire${libc === undefined ? '' : `.${libc}`}.node`
  return /** @type {Target} */ ({ name, platform, arch, libc, triple, file })
})
