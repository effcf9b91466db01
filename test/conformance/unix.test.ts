// The conformance suite over unix.

import { transports } from '../e2e/harness.ts'
import { testTransport } from './suite.ts'

for (const transport of transports) {
  if (transport.name === 'unix') testTransport(transport)
}
