// The conformance suite over tcp6.

import { transports } from '../e2e/harness.ts'
import { testTransport } from './suite.ts'

for (const transport of transports) {
  if (transport.name === 'tcp6') testTransport(transport)
}
