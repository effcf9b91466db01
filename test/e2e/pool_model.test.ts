// The pool against a model of it: random commands, also the server's misdeeds, after each of which the pool must be in a
// state that the model allows. What fails is shrunk to the fewest commands that still fail.

import { type Conn, createPool, type Lease, type Pool } from 'edgewire'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { seed, turn, until } from './harness.ts'
import { idOf, PoolServer } from './pool_server.ts'

const RUNS = 300
const COMMANDS_MAX = 40
const MAX_TOTAL = 3
const TEST_MS = 120_000
/** What a connection that does not answer costs each run in which there is one. */
const VALIDATE_TIMEOUT_MS = 50

interface Held {
  lease: Lease
  id: number
  /** The server has told the id: nothing is under way. */
  isKnown: boolean
  /** The server has ended it, one way or the other, while it was held. */
  isHurt: boolean
}

interface Waiting {
  number: number
  controller: AbortController
  outcome: Promise<void>
}

/** What should be. The real thing is World. */
interface Model {
  held: number
  waiting: number
  isUp: boolean
  /** The pool asks a connection whether it answers before it lends it. */
  readonly validates: boolean
}

class World {
  readonly held: Held[] = []
  readonly waiting: Waiting[] = []
  /** Numbers of the acquires in the order in which they were served. */
  private lastServed = 0
  private acquires = 0
  /** Connections that the server has hurt while nobody held them: none of them may be lent any more. */
  readonly hurt = new Set<number>()
  readonly failures: unknown[] = []

  constructor(
    readonly server: PoolServer,
    readonly pool: Pool,
  ) {}

  acquire(): void {
    const controller = new AbortController()
    const number = ++this.acquires
    const served = async (lease: Lease): Promise<void> => {
      if (number < this.lastServed) throw new Error(`acquire ${number} was served after ${this.lastServed}`)
      this.lastServed = number
      this.waiting.splice(this.waiting.indexOf(waiting), 1)
      const { localPort } = lease.conn
      const id = [...this.server.sockets].find(([, socket]) => socket.remotePort === localPort)?.[0]
      const held: Held = { lease, id: id ?? -1, isKnown: false, isHurt: false }
      this.held.push(held)
      held.id = await idOf(lease.conn)
      held.isKnown = true
      if (this.hurt.has(held.id)) throw new Error(`connection ${held.id} was lent although the server had hurt it`)
      const holders = this.held.filter((other) => other.id === held.id)
      if (holders.length > 1) throw new Error(`connection ${held.id} has ${holders.length} holders`)
    }
    const outcome = this.pool.acquire({ signal: controller.signal }).then(served, (error) => {
      if (error !== controller.signal.reason) throw error
    })
    outcome.catch((error) => this.failures.push(error))
    const waiting: Waiting = { number, controller, outcome }
    this.waiting.push(waiting)
  }

  /** Everything that is under way has come to its end, on both sides. */
  async settled(model: Model): Promise<void> {
    const isSettled = () => {
      const { dialing, validating, closing, busy, idle } = this.pool.stats()
      if (this.failures.length > 0) return true
      if (validating + closing > 0 || busy !== model.held) return false
      if (!model.isUp) return idle === 0
      const alive = this.held.filter(({ isHurt }) => !isHurt).length
      return dialing === 0 && this.server.sockets.size === idle + alive + this.halfOpen()
    }
    await until('all is quiet', isSettled, () => JSON.stringify([model, this.pool.stats(), this.server.sockets.size]))
    await turn()
    if (this.failures.length > 0) throw this.failures[0]
  }

  /** Held, ended by FIN from the server only, which waits for ours. */
  private halfOpen(): number {
    return this.held.filter(({ id, isHurt }) => isHurt && this.server.sockets.has(id)).length
  }

  check(model: Model): void {
    const stats = this.pool.stats()
    const { total, idle, busy, dialing, validating, closing, waiting } = stats
    expect(total).toBeLessThanOrEqual(MAX_TOTAL)
    expect(idle + busy + dialing + validating + closing).toBe(total)
    expect({ busy, waiting }).toEqual({ busy: model.held, waiting: model.waiting })
    expect(this.held.length).toBe(model.held)
    expect(this.waiting.length).toBe(model.waiting)
    // Nobody waits beside a connection, or room for one.
    if (model.isUp && waiting > 0) expect({ idle, total }).toEqual({ idle: 0, total: MAX_TOTAL })
    expect(stats.acquired - stats.released).toBe(busy)
  }

  /** Connections that nobody holds, as the server sees them. */
  idleSockets() {
    const held = new Set(this.held.map(({ id }) => id))
    return [...this.server.sockets].filter(([id]) => !held.has(id))
  }
}

type Command = fc.AsyncCommand<Model, World>

/** A command that then waits until all is quiet, and looks. */
abstract class Step implements Command {
  check(_model: Readonly<Model>): boolean {
    return true
  }
  async run(model: Model, world: World): Promise<void> {
    await this.act(model, world)
    await this.isServed(model, world)
    await world.settled(model)
    world.check(model)
  }
  /** While the server is up, as many are served as there may be connections. */
  private async isServed(model: Model, world: World): Promise<void> {
    if (!model.isUp) return
    while (model.waiting > 0 && model.held < MAX_TOTAL) {
      model.waiting--
      model.held++
    }
    const isServed = () => world.held.length === model.held && world.held.every(({ isKnown }) => isKnown)
    await until('who waits is served', () => isServed() || world.failures.length > 0)
  }
  abstract act(model: Model, world: World): Promise<void> | void
  toString() {
    return this.constructor.name
  }
}

class Acquire extends Step {
  async act(model: Model, world: World) {
    world.acquire()
    model.waiting++
    await turn()
  }
}

abstract class OfOneHeld extends Step {
  constructor(protected readonly which: number) {
    super()
  }
  override check(model: Readonly<Model>) {
    return model.held > 0
  }
  protected pick(world: World): Held {
    return world.held[this.which % world.held.length] as Held
  }
  protected giveBack(model: Model, world: World, how: (held: Held) => void) {
    const held = this.pick(world)
    world.held.splice(world.held.indexOf(held), 1)
    if (held.isHurt) world.hurt.add(held.id)
    how(held)
    model.held--
  }
}

class Release extends OfOneHeld {
  act(model: Model, world: World) {
    this.giveBack(model, world, ({ lease }) => lease.release())
  }
}

class Discard extends OfOneHeld {
  act(model: Model, world: World) {
    this.giveBack(model, world, (held) => {
      world.hurt.add(held.id)
      held.lease.discard()
    })
  }
}

/** With a question whose answer is not read: the next holder must not find it. */
class ReleaseUnread extends OfOneHeld {
  /** Who waits is given the connection at once, and would be sooner than the answer. */
  override check(model: Readonly<Model>) {
    return model.held > 0 && model.waiting === 0
  }
  async act(model: Model, world: World) {
    const held = this.pick(world)
    if (!held.isHurt) {
      const { answers } = world.server
      held.lease.conn.write('?')
      // Half of the times the answer comes before the release, otherwise after it.
      if (this.which % 2 === 0) await until('the server answers', () => world.server.answers > answers)
      else await held.lease.conn.flushed()
      world.hurt.add(held.id)
    }
    this.giveBack(model, world, ({ lease }) => lease.release())
    // An answer that is still under way cannot be known of. When it comes, the connection goes.
    const { sockets } = world.server
    await until('the connection is closed', () => !sockets.has(held.id))
  }
}

/** What the server has done has reached this side. */
const isSeen = (held: Held) => until('its holder can see it', () => held.lease.conn.state !== 'open')

class HurtHeld extends OfOneHeld {
  override check(model: Readonly<Model>) {
    return model.held > 0 && model.isUp
  }
  async act(_model: Model, world: World) {
    const held = this.pick(world)
    const socket = world.server.sockets.get(held.id)
    if (socket === undefined || held.isHurt) return
    held.isHurt = true
    if (this.which % 2 === 0) socket.end()
    else socket.resetAndDestroy()
    await isSeen(held)
  }
}

class AbortWaiting extends Step {
  constructor(private readonly which: number) {
    super()
  }
  override check(model: Readonly<Model>) {
    return model.waiting > 0
  }
  async act(model: Model, world: World) {
    const waiting = world.waiting[this.which % world.waiting.length] as Waiting
    waiting.controller.abort()
    await waiting.outcome
    world.waiting.splice(world.waiting.indexOf(waiting), 1)
    model.waiting--
  }
}

class HurtIdle extends Step {
  constructor(private readonly which: number) {
    super()
  }
  override check(model: Readonly<Model>) {
    return model.isUp
  }
  async act(_model: Model, world: World) {
    const sockets = world.idleSockets()
    const chosen = sockets[this.which % Math.max(1, sockets.length)]
    if (chosen === undefined) return
    const [id, socket] = chosen
    const { stirred } = world.pool.stats()
    world.hurt.add(id)
    if (this.which % 3 === 0) socket.end()
    else if (this.which % 3 === 1) socket.write('nobody has asked')
    else socket.resetAndDestroy()
    await until('the pool has noticed', () => world.pool.stats().stirred > stirred)
  }
}

/** From now on it answers nothing, which only asking it shows. */
class StallIdle extends Step {
  constructor(private readonly which: number) {
    super()
  }
  override check(model: Readonly<Model>) {
    return model.isUp && model.validates
  }
  act(_model: Model, world: World) {
    const sockets = world.idleSockets()
    const chosen = sockets[this.which % Math.max(1, sockets.length)]
    if (chosen === undefined) return
    world.hurt.add(chosen[0])
    world.server.stalled.add(chosen[0])
  }
}

class Vanish extends Step {
  override check(model: Readonly<Model>) {
    return model.isUp
  }
  async act(model: Model, world: World) {
    for (const held of world.held) held.isHurt = true
    for (const [id] of world.idleSockets()) world.hurt.add(id)
    await world.server.vanish()
    for (const held of world.held) await isSeen(held)
    model.isUp = false
  }
}

class Return extends Step {
  override check(model: Readonly<Model>) {
    return !model.isUp
  }
  async act(model: Model, world: World) {
    await world.server.appear()
    model.isUp = true
  }
}

const which = fc.nat({ max: 11 })
const commands = fc.commands(
  [
    fc.constant(new Acquire()),
    fc.constant(new Acquire()),
    which.map((index) => new Release(index)),
    which.map((index) => new Release(index)),
    which.map((index) => new Discard(index)),
    which.map((index) => new ReleaseUnread(index)),
    which.map((index) => new HurtHeld(index)),
    which.map((index) => new HurtIdle(index)),
    which.map((index) => new StallIdle(index)),
    which.map((index) => new AbortWaiting(index)),
    fc.constant(new Vanish()),
    fc.constant(new Return()),
  ],
  { maxCommands: COMMANDS_MAX },
)

const validate = async (conn: Conn) => (await idOf(conn)) > 0

test('random commands against real servers', { timeout: TEST_MS }, async () => {
  const property = fc.asyncProperty(commands, fc.nat({ max: 2 }), fc.boolean(), async (cmds, minIdle, validates) => {
    const server = await PoolServer.start()
    const pool = createPool({
      host: server.host,
      port: server.port,
      maxTotal: MAX_TOTAL,
      minIdle,
      acquireTimeoutMs: 0,
      // Whoever waits while the server is away waits on.
      breakerFailures: 1_000_000,
      backoffMs: 1,
      backoffMaxMs: 5,
      ...(validates && { validate, validateAfterMs: 0, validateEveryMs: 0, validateTimeoutMs: VALIDATE_TIMEOUT_MS }),
    })
    const world = new World(server, pool)
    try {
      const setup = () => ({ model: { held: 0, waiting: 0, isUp: true, validates }, real: world })
      await fc.asyncModelRun(setup, cmds)
      await endsInOrder(world)
    } finally {
      for (const { lease } of world.held) lease.discard()
      await pool.drain()
      await server.vanish()
    }
  })
  await fc.assert(property, { numRuns: RUNS, seed, endOnFailure: process.env.EDGEWIRE_SHRINK !== '1' })
})

/** After whatever: everybody gives back, all who wait are served, and nothing is left. */
async function endsInOrder(world: World): Promise<void> {
  await world.server.appear()
  while (world.held.length + world.waiting.length > 0) {
    await until('all questions are answered', () => world.held.every(({ isKnown }) => isKnown))
    for (const { lease } of world.held.splice(0)) lease.release()
    await until('somebody is served', () => world.held.length > 0 || world.waiting.length === 0)
  }
  await world.pool.drain()
  const { total, waiting } = world.pool.stats()
  expect({ total, waiting }).toEqual({ total: 0, waiting: 0 })
  await until('the server has no connection left', () => world.server.sockets.size === 0)
  if (world.failures.length > 0) throw world.failures[0]
}
