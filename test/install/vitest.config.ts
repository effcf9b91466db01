// Apart from `npm test`: this needs the npm registry, and package managers of its own (`npm ci` in this folder).

import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

// A package manager installs three small packages; `edgewire build` compiles twenty files.
const TEST_TIMEOUT_MS = 300_000

export default defineConfig({
  test: {
    root: fileURLToPath(new URL('../..', import.meta.url)),
    include: ['test/install/*.test.ts'],
    globalSetup: ['test/install/pack.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: TEST_TIMEOUT_MS,
    hookTimeout: TEST_TIMEOUT_MS,
  },
})
