// Who waits for a connection, in the order of coming. Each waits until it is served, its time is over or its signal
// aborts, whichever comes first, and is then out of the queue at once: it costs nobody a place or a connection.

import type { Clock, Timer } from './pool_clock.js'

export interface Wait<Given, Got> {
  signal: AbortSignal | undefined
  /** Milliseconds; 0: without end. */
  timeoutMs: number
  /** What it is rejected with after its time. */
  timeoutError: () => Error
  onTimeout: () => void
  onAbort: () => void
  /** Makes what the wait resolves with of what it is served. */
  accept: (given: Given) => Got
}

class Waiter<Given, Got> {
  next: Waiter<Given, Got> | undefined
  previous: Waiter<Given, Got> | undefined
  timer: Timer | undefined
  onSignal: (() => void) | undefined

  constructor(
    readonly wait: Wait<Given, Got>,
    readonly resolve: (value: Got) => void,
    readonly reject: (error: unknown) => void,
  ) {}
}

export class WaiterQueue<Given, Got> {
  size = 0
  private first: Waiter<Given, Got> | undefined
  private last: Waiter<Given, Got> | undefined

  constructor(private readonly clock: Clock) {}

  /** Queues behind all others. An aborted signal is the caller's to look at. */
  wait(wait: Wait<Given, Got>): Promise<Got> {
    return new Promise((resolve, reject) => {
      const waiter = new Waiter(wait, resolve, reject)
      this.append(waiter)
      if (wait.timeoutMs > 0) {
        waiter.timer = this.clock.after(wait.timeoutMs, false, () => {
          const error = wait.timeoutError()
          this.remove(waiter)
          reject(error)
          wait.onTimeout()
        })
      }
      const { signal } = wait
      if (signal === undefined) return
      waiter.onSignal = () => {
        this.remove(waiter)
        reject(signal.reason)
        wait.onAbort()
      }
      signal.addEventListener('abort', waiter.onSignal, { once: true })
    })
  }

  /** Serves who has waited longest. False if nobody waits. */
  serve(given: Given): boolean {
    const waiter = this.first
    if (waiter === undefined) return false
    this.remove(waiter)
    waiter.resolve(waiter.wait.accept(given))
    return true
  }

  /** Rejects all who wait now. Returns their number. */
  failAll(errorOf: () => Error): number {
    const count = this.size
    for (let left = count; left > 0; left--) {
      const waiter = this.first as Waiter<Given, Got>
      this.remove(waiter)
      waiter.reject(errorOf())
    }
    return count
  }

  private append(waiter: Waiter<Given, Got>): void {
    waiter.previous = this.last
    if (this.last === undefined) this.first = waiter
    else this.last.next = waiter
    this.last = waiter
    this.size++
  }

  private remove(waiter: Waiter<Given, Got>): void {
    const { previous, next } = waiter
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.last = previous
    else next.previous = previous
    this.size--
    waiter.timer?.cancel()
    if (waiter.onSignal !== undefined) waiter.wait.signal?.removeEventListener('abort', waiter.onSignal)
  }
}
