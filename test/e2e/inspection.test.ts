// console.log() of what we hand out: a line or a few, and nothing of the loop and its tables.

import { inspect } from 'node:util'
import { createPool, createResolver, dial } from 'edgewire'
import { expect, test } from 'vitest'
import { atEnd, mainTransports, placeOf, serve } from './harness.ts'

const [tcp] = mainTransports
const shownMax = 1500

test('a connection, a listener, a pool, a lease and a resolver show what a user knows of them', async () => {
  const listener = await serve(tcp, { data() {} })
  const conn = await dial(placeOf(listener))
  const pool = createPool(placeOf(listener))
  atEnd(() => pool.drain())
  const lease = await pool.acquire()
  const named = { Conn: conn, Listener: listener, Pool: pool, Lease: lease, Resolver: createResolver() }
  for (const [name, object] of Object.entries(named)) {
    const text = inspect(object)
    expect(text).toMatch(new RegExp(`^${name} \\{`))
    expect(text.length, text).toBeLessThan(shownMax)
    expect(inspect([[[object]]]), 'as deep as inspect() goes').toContain(`[${name}]`)
    expect(text).not.toMatch(/Loop|native|doubles/)
  }
  lease.release()
  conn.close()
})

test('a connection says where it is, what it has moved and what its user keeps with it', async () => {
  const listener = await serve(tcp, { data() {} })
  const conn = await dial(placeOf(listener))
  conn.data = { user: 'ada' }
  conn.write('four')
  await conn.flushed()
  const text = inspect(conn)
  expect(text).toContain("state: 'open'")
  expect(text).toContain(`remote: '${conn.remoteAddress}:${listener.port}'`)
  expect(text).toContain('bytesWritten: 4')
  expect(text).toContain("user: 'ada'")
  conn.close()
  await conn.closed
  expect(inspect(conn)).toContain("state: 'closed'")
})
