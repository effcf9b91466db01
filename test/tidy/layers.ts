// The layers of both languages, lowest first, and who includes whom. docs/ARCHITECTURE.md draws the same picture.
//
// A file may use its own layer and those below. A file that no layer names fails the test: a new part is given its
// place here, on purpose.

import { posix } from 'node:path'
import { filesIn, read } from './tree.ts'

export interface Layer {
  name: string
  files: RegExp
}

export const nativeLayers: Layer[] = [
  { name: 'abi', files: /^native\/abi\.h$/ },
  { name: 'check', files: /^native\/core\/check\.h$/ },
  { name: 'sys', files: /^native\/core\/(sys|sockaddr)\.(h|cc)$/ },
  {
    name: 'slab, timer_wheel, ring, poller, waiter',
    files: /^native\/core\/(slab|timer_wheel|ring|poller(_\w+)?|waiter)\.(h|cc)$/,
  },
  {
    name: 'conn, conn_table, out_queue, listener',
    files: /^native\/core\/(conn|conn_table|out_queue|listener)\.(h|cc)$/,
  },
  { name: 'reactor', files: /^native\/core\/reactor(_\w+)?\.(h|cc)$/ },
  { name: 'driver, uv_api, uv_handles', files: /^native\/node\/(driver(_\w+)?|uv_api|uv_handles)\.(h|cc)$/ },
  { name: 'env', files: /^native\/node\/env\.(h|cc)$/ },
  { name: 'binding', files: /^native\/node\/binding\.(h|cc)$/ },
]

export const libLayers: Layer[] = [
  {
    name: 'abi, errors, addr, net, names, driver, inspection',
    files: /^lib\/(abi|errors|addr|net|names|driver|inspection)\.ts$/,
  },
  { name: 'binding', files: /^lib\/binding\.ts$/ },
  { name: 'loop, slab_views, dispatch_scope', files: /^lib\/(loop|slab_views|dispatch_scope)\.ts$/ },
  { name: 'lease, deadline', files: /^lib\/(lease|deadline)\.ts$/ },
  { name: 'inbox', files: /^lib\/inbox\.ts$/ },
  { name: 'conn', files: /^lib\/conn(_\w+)?\.ts$/ },
  { name: 'resolver', files: /^lib\/(host_name|hosts_file|dns_query|resolver)\.ts$/ },
  { name: 'listener, dialer', files: /^lib\/(leak_watch|listener|dialer|dial_error|dial_race)\.ts$/ },
  { name: 'pool, balancer', files: /^lib\/(pool(_\w+)?|balancer)\.ts$/ },
  { name: 'everything optional', files: /^lib\/(index|stats|cli\/\w+)\.ts$/ },
]

export interface Edge {
  from: string
  to: string
  line: number
}

export const rankOf = (layers: Layer[], path: string) => layers.findIndex(({ files }) => files.test(path))

/** Every `#include "..."` that names a file of the project. Paths are relative to native/, or to the file itself. */
export function nativeEdges(): Edge[] {
  const files = filesIn('native', /\.(cc|h)$/)
  const known = new Set(files)
  return edges(files, /^\s*#\s*include\s+"([^"]+)"/, (from, named) =>
    [posix.join('native', named), posix.join(posix.dirname(from), named)].find((path) => known.has(path)),
  )
}

/** Every import, type imports as well: a type is a dependency of the reader, if not of the machine. */
export function libEdges(): Edge[] {
  return edges(filesIn('lib', /\.ts$/), /(?:\bfrom|\bimport)\s*\(?\s*['"](\.[^'"]*)['"]/, (from, named) =>
    posix.join(posix.dirname(from), named).replace(/\.js$/, '.ts'),
  )
}

function edges(files: string[], pattern: RegExp, resolve: (from: string, named: string) => string | undefined): Edge[] {
  return files.flatMap((from) =>
    read(from)
      .split('\n')
      .flatMap((text, index) => {
        const named = pattern.exec(text)?.[1]
        const to = named === undefined ? undefined : resolve(from, named)
        return to === undefined ? [] : [{ from, to, line: index + 1 }]
      }),
  )
}

/** One way round through files that import each other, or undefined. A .cc and its .h are never in one: nobody includes a .cc. */
export function findCycle(all: Edge[]): string[] | undefined {
  const next = new Map<string, Edge[]>()
  for (const edge of all) next.set(edge.from, [...(next.get(edge.from) ?? []), edge])
  const done = new Set<string>()
  const visit = (file: string, path: string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const { to } of next.get(file) ?? []) {
      const cycle = visit(to, [...path, file])
      if (cycle !== undefined) return cycle
    }
    done.add(file)
    return undefined
  }
  for (const file of next.keys()) {
    const cycle = visit(file, [])
    if (cycle !== undefined) return cycle
  }
  return undefined
}
