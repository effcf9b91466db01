// Which driver gives the reactor its turns: see native/node/driver.h.

import { constants } from 'node:os'
import * as abi from './abi.js'
import { invalidArgument, NetError, systemError } from './errors.js'

/**
 * 'uv_poll' nests epoll in libuv; 'waiter' waits on a thread; 'waiter-tsfn' does so without any libuv; 'prepare' nests
 * libuv in epoll.
 */
export type Driver = 'uv_poll' | 'waiter' | 'waiter-tsfn' | 'prepare'

/** Bun, Deno: runtimes that load Node's addons without being Node. Their libuv is partial, or ends the process. */
const foreignRuntime = ['bun', 'deno'].find((name) => name in process.versions)

const numbers: Record<Driver, number> = {
  uv_poll: abi.DriverUvPoll,
  waiter: abi.DriverWaiter,
  'waiter-tsfn': abi.DriverWaiterTsfn,
  prepare: abi.DriverPrepare,
}
const names = Object.keys(numbers) as Driver[]

export function driverNumber(driver: Driver): number {
  return numbers[driver]
}

export function driverName(number: number): Driver {
  return names.find((name) => numbers[name] === number) as Driver
}

/** EDGEWIRE_DRIVER, or the one that fits, for a loop that is opened now. Throws when it names none that runs here. */
export function driverFromEnvironment(): Driver {
  const wanted = process.env.EDGEWIRE_DRIVER
  const possible = possibleHere()
  if (wanted === undefined || wanted === '') return byDefault()
  const driver = possible.find((name) => name === wanted)
  if (driver === 'prepare') claimThread()
  if (driver !== undefined) return driver
  throw invalidArgument('configure', `EDGEWIRE_DRIVER must be one of ${possible.join(', ')} here`, wanted)
}

/** 'prepare' waits inside uv_run, which Electron calls in order not to wait; and macOS does not nest kqueues. */
function possibleHere(): Driver[] {
  if (foreignRuntime !== undefined) return ['waiter-tsfn']
  const mayWait = process.platform === 'linux' && !('electron' in process.versions)
  return mayWait ? names : names.filter((name) => name !== 'prepare')
}

/**
 * Who waits in place of this thread's libuv, over all copies of edgewire that it has loaded: two would wait for each
 * other's sockets in vain.
 */
const waiting = globalThis as { [key: symbol]: boolean | undefined }
const PrepareRuns = Symbol.for('edgewire.driver.prepare')

function claimThread(): void {
  if (waiting[PrepareRuns])
    throw unsupported('this thread runs two copies of edgewire: EDGEWIRE_DRIVER=prepare allows one')
  waiting[PrepareRuns] = true
}

/** What the addon's open() means when it gives no memory. A number: nothing is open, and it may be tried again. */
export function refusal(driver: Driver, answer: number | undefined): NetError {
  if (answer === undefined) {
    return unsupported('this thread runs two copies of edgewire over one addon, or its environment is ending')
  }
  if (driver === 'prepare') waiting[PrepareRuns] = false
  if (answer !== -constants.errno.ENOTSUP) return systemError(answer, { op: 'configure' })
  return unsupported(`EDGEWIRE_DRIVER=${driver} needs libuv 1.46 or a later 1.x, this is ${process.versions.uv}`)
}

function unsupported(reason: string): NetError {
  return new NetError('ERR_UNSUPPORTED_PLATFORM', { op: 'configure' }, reason)
}

function byDefault(): Driver {
  if (foreignRuntime !== undefined) return 'waiter-tsfn'
  // A kqueue in libuv's kqueue is never or always readable on macOS.
  return process.platform === 'darwin' ? 'waiter' : 'uv_poll'
}
