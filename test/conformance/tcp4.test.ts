// The conformance suite over tcp4.

import { transports } from '../e2e/harness.ts'
import { testTransport } from './suite.ts'

for (const transport of transports) {
  if (transport.name === 'tcp4') testTransport(transport)
}
