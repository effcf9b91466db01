// testConn(): all that must hold of a connection, whatever it is made of.

import { describe } from 'vitest'
import type { Transport } from '../e2e/harness.ts'
import { backpressure } from './backpressure.ts'
import { deadlines } from './deadlines.ts'
import { endings } from './endings.ts'
import type { MakePipe, Style } from './ends.ts'
import { nettest } from './nettest.ts'
import { order } from './order.ts'
import { pipeMaker } from './pipes.ts'

export function testConn(name: string, makePipe: MakePipe): void {
  describe(name, () => {
    describe('nettest', () => nettest(makePipe))
    describe('deadlines', () => deadlines(makePipe))
    describe('endings', () => endings(makePipe))
    describe('order', () => order(makePipe))
    describe('backpressure', () => backpressure(makePipe))
  })
}

const styles: [Style, string][] = [
  ['task', 'task style'],
  ['events', 'event style'],
  ['oracle', 'net.Socket, the oracle'],
]

/** Every style over one transport. */
export function testTransport(transport: Transport): void {
  for (const [style, name] of styles) testConn(`${transport.name}, ${name}`, pipeMaker(transport, style))
}
