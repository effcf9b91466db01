import { defineConfig } from 'vitest/config'

// Tests wait for sockets, child processes and memory, not for computation; what hangs is found here.
const TEST_TIMEOUT_MS = 30_000

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Needs the registry, and has a configuration of its own: `.ci/run install`.
    exclude: ['**/node_modules/**', 'test/install/**'],
    // A process per file: what a test leaks, or crashes, is its own.
    pool: 'forks',
    maxWorkers: 2,
    execArgv: ['--expose-gc'],
    testTimeout: TEST_TIMEOUT_MS,
    hookTimeout: TEST_TIMEOUT_MS,
    server: {
      // The package is what its users get: dist/, loaded by Node itself.
      deps: { external: [/\/dist\//] },
    },
  },
})
