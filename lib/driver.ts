// Which driver gives the reactor its turns: see native/node/driver.h.

import * as abi from './abi.js'
import { invalidArgument } from './errors.js'

/** 'uv_poll' nests epoll in libuv; 'waiter' waits on a thread; 'waiter-tsfn' does so without any libuv. */
export type Driver = 'uv_poll' | 'waiter' | 'waiter-tsfn'

/** Bun, Deno: runtimes that load Node's addons without being Node. Their libuv is partial, or ends the process. */
const foreignRuntime = ['bun', 'deno'].find((name) => name in process.versions)

const numbers: Record<Driver, number> = {
  uv_poll: abi.DriverUvPoll,
  waiter: abi.DriverWaiter,
  'waiter-tsfn': abi.DriverWaiterTsfn,
}
const names = Object.keys(numbers) as Driver[]

export function driverNumber(driver: Driver): number {
  return numbers[driver]
}

export function driverName(number: number): Driver {
  return names.find((name) => numbers[name] === number) as Driver
}

/** EDGEWIRE_DRIVER, or the one that fits. Throws when it names none that runs here. */
export function driverFromEnvironment(): Driver {
  const wanted = process.env.EDGEWIRE_DRIVER
  const possible: Driver[] = foreignRuntime === undefined ? names : ['waiter-tsfn']
  if (wanted === undefined || wanted === '') return byDefault()
  const driver = possible.find((name) => name === wanted)
  if (driver !== undefined) return driver
  throw invalidArgument('configure', `EDGEWIRE_DRIVER must be one of ${possible.join(', ')} here`, wanted)
}

function byDefault(): Driver {
  if (foreignRuntime !== undefined) return 'waiter-tsfn'
  // A kqueue in libuv's kqueue is never or always readable on macOS.
  return process.platform === 'darwin' ? 'waiter' : 'uv_poll'
}
