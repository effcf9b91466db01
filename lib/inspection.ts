// What console.log() and util.inspect() show of our objects: what a user knows of them, not the machinery behind.

import { type InspectOptionsStylized, inspect } from 'node:util'

/** The method that is asked: in Node, Bun and Deno alike. */
export const inspection: typeof inspect.custom = inspect.custom

/** `Conn { state: 'open', ... }`; inside of something that is shown to its depth only, `[Conn]`. */
export function shown(name: string, facts: object, depth: number, options: InspectOptionsStylized): string {
  return depth < 0 ? options.stylize(`[${name}]`, 'special') : `${name} ${inspect(facts, { ...options, depth })}`
}
