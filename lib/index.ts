// edgewire: TCP and Unix sockets for Node on a reactor of its own. net.ts has every contract.

import { loadAddon } from './loop.js'

export { dial } from './dialer.js'
export { NetError, type Op, type OwnCode } from './errors.js'
export { listen } from './listener.js'
export type {
  FoundAddress,
  LookupFn,
  NameAddress,
  ResolvedName,
  ResolveOptions,
  Resolver,
  ResolverOptions,
  ResolverStats,
} from './names.js'
export type {
  Conn,
  ConnOptions,
  ConnState,
  Deadline,
  DialOptions,
  Handlers,
  LeakDetection,
  Listener,
  ListenerStats,
  ListenOptions,
  Overflow,
  Task,
  Writable,
} from './net.js'
export { createPool } from './pool.js'
export type {
  AcquireOptions,
  AddressSnapshot,
  Balance,
  BalanceCandidate,
  BalanceFn,
  BreakerState,
  Lease,
  Pool,
  PoolOptions,
  PoolSnapshot,
  PoolStats,
  Upstream,
} from './pool_api.js'
export { createResolver } from './resolver.js'
export { type Configuration, configure, type Stats, stats } from './stats.js'

// Now, so that a platform without a binary says so at the import, and the limit of open files is raised before the
// program opens any.
loadAddon()
