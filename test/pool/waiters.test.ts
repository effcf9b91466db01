// The queue of those who wait, against a list, with random steps; then each way out of it.

import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { WaiterQueue } from '../../dist/pool_waiters.js'
import { ManualClock } from './manual_clock.ts'

type Queue = WaiterQueue<number, string>

interface Told {
  timeouts: number
  aborts: number
}

function waitIn(queue: Queue, timeoutMs: number, told: Told, signal?: AbortSignal): Promise<string> {
  const promise = queue.wait({
    signal,
    timeoutMs,
    timeoutError: () => new Error('too late'),
    onTimeout: () => void told.timeouts++,
    onAbort: () => void told.aborts++,
    accept: (given) => `got ${given}`,
  })
  promise.catch(() => {})
  return promise
}

const outcomeOf = (promise: Promise<string>) =>
  promise.then(
    (value) => value,
    (error: unknown) => String(error instanceof Error ? error.message : error),
  )

type Step =
  | { kind: 'wait'; timeoutMs: number }
  | { kind: 'serve' }
  | { kind: 'abort'; which: number }
  | { kind: 'pass' }

const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('wait' as const), timeoutMs: fc.constantFrom(0, 10, 20, 35) }),
    fc.record({ kind: fc.constant('serve' as const) }),
    fc.record({ kind: fc.constant('abort' as const), which: fc.nat({ max: 9 }) }),
    fc.record({ kind: fc.constant('pass' as const) }),
  ),
  { maxLength: 60 },
)

test('it is a list: first come, first served; who leaves is missed by nobody', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      const clock = new ManualClock()
      const queue: Queue = new WaiterQueue(clock)
      const told = { timeouts: 0, aborts: 0 }
      const list: { number: number; endsAt: number; controller: AbortController }[] = []
      const outcomes: Promise<string>[] = []
      const expected: string[] = []
      const leave = (entry: (typeof list)[0], how: string) => {
        list.splice(list.indexOf(entry), 1)
        expected[entry.number] = how
      }
      const run = (step: Step) => {
        if (step.kind === 'wait') {
          const controller = new AbortController()
          const endsAt = step.timeoutMs === 0 ? Number.POSITIVE_INFINITY : clock.now() + step.timeoutMs
          list.push({ number: outcomes.length, endsAt, controller })
          outcomes.push(outcomeOf(waitIn(queue, step.timeoutMs, told, controller.signal)))
        } else if (step.kind === 'serve') {
          const first = list[0]
          expect(queue.serve(outcomes.length)).toBe(first !== undefined)
          if (first !== undefined) leave(first, `got ${outcomes.length}`)
        } else if (step.kind === 'abort') {
          const entry = list[step.which % Math.max(1, list.length)]
          if (entry === undefined) return
          entry.controller.abort('gone')
          leave(entry, 'gone')
        } else {
          clock.advance(7)
          for (const entry of [...list]) if (entry.endsAt <= clock.now()) leave(entry, 'too late')
        }
      }
      for (const step of all) {
        run(step)
        expect(queue.size).toBe(list.length)
      }
      expect(queue.failAll(() => new Error('over'))).toBe(list.length)
      for (const entry of [...list]) leave(entry, 'over')
      expect(await Promise.all(outcomes)).toEqual(expected)
      expect(told.timeouts).toBe(expected.filter((how) => how === 'too late').length)
      expect(told.aborts).toBe(expected.filter((how) => how === 'gone').length)
      expect({ size: queue.size, timers: clock.pending }).toEqual({ size: 0, timers: 0 })
    }),
  )
})

describe('who is out of the queue', () => {
  test('has left nothing at its signal', async () => {
    const queue: Queue = new WaiterQueue(new ManualClock())
    const { signal } = new AbortController()
    const remove = vi.spyOn(signal, 'removeEventListener')
    const promise = waitIn(queue, 0, { timeouts: 0, aborts: 0 }, signal)
    queue.serve(1)
    await promise
    expect(remove).toHaveBeenCalledTimes(1)
  })

  test('is not counted when its error is made', async () => {
    const clock = new ManualClock()
    const queue: Queue = new WaiterQueue(clock)
    const sizes: number[] = []
    const promise = queue.wait({
      signal: undefined,
      timeoutMs: 5,
      timeoutError: () => new Error('too late'),
      onTimeout: () => sizes.push(queue.size),
      onAbort: () => {},
      accept: String,
    })
    clock.advance(5)
    await expect(promise).rejects.toThrow('too late')
    expect(sizes).toEqual([0])
  })
})
