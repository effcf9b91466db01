// When the async context of handlers becomes the scope of the dispatch itself. What handlers see of it is in
// context.test.ts: nothing.

import { AsyncResource } from 'node:async_hooks'
import { beforeEach, expect, test } from 'vitest'
import { DispatchScope } from '../../dist/dispatch_scope.js'

const contexts = [new AsyncResource('ONE'), new AsyncResource('OTHER')] as const
let scopes: (object | undefined)[]
let scope: DispatchScope

beforeEach(() => {
  scopes = []
  scope = new DispatchScope((resource) => {
    scopes.push(resource)
    return true
  })
})

/** Batches, each of which belongs to the next of these. */
function serve(batches: number, ...of: (AsyncResource | undefined)[]): void {
  for (let i = 0; i < batches; i++) {
    const context = of[i % of.length]
    scope.run(context, () => {}, undefined)
    scope.settle(context)
  }
}

test('the context that comes again and again becomes the scope, and another that comes instead', () => {
  serve(200, contexts[0])
  expect(scopes).toEqual([contexts[0]])
  serve(200, contexts[1])
  expect(scopes).toEqual([contexts[0], contexts[1]])
})

test('also beside connections that have none', () => {
  serve(200, contexts[0], undefined)
  expect(scopes).toEqual([contexts[0]])
})

test('two that take turns do not push each other out', () => {
  serve(200, contexts[0])
  serve(200, contexts[0], contexts[1])
  expect(scopes).toEqual([contexts[0]])
})

test('it is left when nothing of it will come, and only then', () => {
  serve(200, contexts[0])
  scope.leave(contexts[1])
  scope.leave(undefined)
  expect(scopes).toEqual([contexts[0]])
  scope.leave(contexts[0])
  expect(scopes).toEqual([contexts[0], undefined])
})

test('where there is no such thing it is asked for once', () => {
  let asked = 0
  scope = new DispatchScope(() => {
    asked++
    return false
  })
  serve(1000, contexts[0])
  expect(asked).toBe(1)
})
