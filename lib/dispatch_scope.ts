// In which async context (AsyncLocalStorage, async_hooks) handlers run: in that of the call of listen() or dial() that
// they were passed to.
//
// Where each batch is one message, entering a context for it shows. As a rule all batches of a process belong to one
// listener. So the context that comes again and again becomes the scope: Node enters it by itself when the addon calls
// dispatch(), as it does for its own callbacks, and only others are entered from JavaScript.

import type { AsyncResource } from 'node:async_hooks'

/** So many batches away from the scope, with none in it, move the scope: that costs as much as entering some of them. */
const BatchesToMove = 32

export class DispatchScope {
  private context: AsyncResource | undefined
  private away = 0

  /** `setScope`: the addon's. It takes the context that it is called in; of undefined, none. False: it cannot. */
  constructor(private readonly setScope: (resource: object | undefined) => boolean) {}

  /** Serves, in `context`, what belongs to it; undefined: what runs no handler, in any. During a dispatch only. */
  run(context: AsyncResource | undefined, serve: (context: AsyncResource | undefined) => void, loop: unknown): void {
    if (context === undefined) {
      serve.call(loop, context)
    } else if (context === this.context) {
      this.away = 0
      serve.call(loop, context)
    } else {
      this.away++
      context.runInAsyncScope(serve, loop, context)
    }
  }

  /** Runs, in `context`, what does not come again and again. */
  enter(context: AsyncResource | undefined, run: () => void): void {
    if (context === undefined || context === this.context) run()
    else context.runInAsyncScope(run)
  }

  /** At the end of a dispatch, when nothing more is served in it. `last`: the context of what was served last. */
  settle(last: AsyncResource | undefined): void {
    if (this.away < BatchesToMove || last === undefined) return
    this.away = 0
    if (last.runInAsyncScope(this.setScope, undefined, last)) this.context = last
    else this.away = Number.NEGATIVE_INFINITY
  }

  /** Nothing of `context` will be served any more: what is stored in it can be collected. */
  leave(context: AsyncResource | undefined): void {
    if (context === undefined || context !== this.context) return
    this.context = undefined
    this.setScope(undefined)
  }
}
