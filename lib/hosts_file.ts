// The names of this machine: hosts(5).
//
// The file is looked at with synchronous calls, on purpose. The asynchronous ones go through libuv's thread pool, and
// that a crowd of slow calls there holds up every connection is what this resolver is there to prevent. A stat() of a
// local file takes microseconds, and is made once in five seconds at most; the file is read only when it has changed.

import { readFileSync, statSync } from 'node:fs'
import { literalFamily, nameAddress } from './host_name.js'
import type { NameAddress } from './names.js'

/** Between two looks whether the file has changed, milliseconds. */
export const HostsCheckEveryMs = 5_000

export class HostsFile {
  private names: ReadonlyMap<string, readonly NameAddress[]> = new Map()
  private checkedAtMs = Number.NEGATIVE_INFINITY
  private version = ''

  constructor(
    private readonly path: string,
    private readonly monotonicMs: () => number,
  ) {}

  /** Undefined when the file does not have the name. A file that is missing or cannot be read has no names. */
  addressesOf(name: string): readonly NameAddress[] | undefined {
    const now = this.monotonicMs()
    if (now - this.checkedAtMs >= HostsCheckEveryMs) {
      this.checkedAtMs = now
      this.refresh()
    }
    return this.names.get(name)
  }

  private refresh(): void {
    try {
      const file = statSync(this.path)
      // Opening a pipe would wait for its other end.
      const version = file.isFile() ? `${file.dev}:${file.ino}:${file.size}:${file.mtimeMs}` : ''
      if (version === this.version) return
      this.names = version === '' ? new Map() : parseHosts(readFileSync(this.path, 'utf8'))
      this.version = version
    } catch {
      this.names = new Map()
      this.version = ''
    }
  }
}

/** Each name in lower case, with its addresses: IPv6 first, otherwise in the file's order, none twice. */
export function parseHosts(text: string): Map<string, NameAddress[]> {
  const names = new Map<string, NameAddress[]>()
  for (const line of text.split('\n')) {
    const [address = '', ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/)
    const family = literalFamily(address)
    if (family === 0) continue
    for (const alias of aliases) {
      const name = alias.toLowerCase().replace(/\.$/, '')
      const known = names.get(name) ?? []
      if (!known.some((each) => each.address === address)) known.push(nameAddress(address, family))
      names.set(name, known)
    }
  }
  for (const known of names.values()) known.sort((one, other) => other.family - one.family)
  return names
}
