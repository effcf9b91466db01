// @ts-check
// What is printed at the end, besides the plots.
import Table from 'cli-table3'
import pc from 'picocolors'

/** @import { Outcome, Sample } from './campaign.mjs' */
/** @import { Check } from './verdict.mjs' */

/** @param {Outcome['end']['client']['tallies']} tallies */
export function sessionTable(tallies) {
  const table = newTable(['sessions', 'done', 'failed', 'bytes verified'])
  for (const { name, polite, done, failed, bytes } of tallies) {
    table.push([
      polite ? name : pc.dim(name),
      whole(done),
      failed === 0 ? '0' : pc.red(`${failed}`),
      polite ? whole(bytes) : '',
    ])
  }
  const total = (/** @type {'done' | 'failed' | 'bytes'} */ key) => tallies.reduce((sum, tally) => sum + tally[key], 0)
  table.push(['all', whole(total('done')), whole(total('failed')), whole(total('bytes'))])
  return table.toString()
}

/** @param {Outcome['end']['server']} server */
export function listenerTable({ listeners }) {
  const table = newTable(['listener', 'accepted', 'MiB in', 'MiB out', 'overflow aborts', 'handler errors'])
  for (const { name, accepted, bytesRead, bytesWritten, overflowAborts, handlerErrors } of listeners) {
    const counts = [accepted, bytesRead / 2 ** 20, bytesWritten / 2 ** 20, overflowAborts, handlerErrors]
    table.push([name, ...counts.map(whole)])
  }
  return table.toString()
}

/** @param {Outcome['end']['server']} server */
export function endsLine({ book, stats }) {
  const ends = Object.entries(book.ends)
    .sort(([, a], [, b]) => b - a)
    .map(([code, count]) => `${code === '' ? 'in order' : code} ${whole(count)}`)
  const { evictions, starvedReads, midTurnFlushes, growths } = stats
  return [
    `Connections of the server ended: ${ends.join(', ')}.`,
    `Server: ${whole(evictions)} evictions, ${whole(starvedReads)} starved reads, ` +
      `${whole(midTurnFlushes)} mid-turn flushes, ${whole(growths)} growths.`,
  ].join('\n')
}

/** @param {Check[]} checks */
export function checkTable(checks) {
  const table = newTable(['what must hold at the end', 'found', 'wanted', ''])
  for (const { what, value, wanted, holds } of checks) {
    table.push([what, value, wanted, holds ? pc.green('ok') : pc.red('VIOLATED')])
  }
  return table.toString()
}

/** @param {string[]} head */
function newTable(head) {
  const colAligns = head.map((_, column) => (column === 0 ? 'left' : 'right'))
  return new Table({ head, colAligns: /** @type {any} */ (colAligns), style: { head: [], border: [], compact: true } })
}

/** @param {number} value */
function whole(value) {
  return Math.round(value).toLocaleString('en')
}

/**
 * @param {Sample} sample
 * @param {{ sessions: number, done: number, bytes: number }} client
 */
export function progressLine(sample, client) {
  const { seconds, phase, rss, slabInUse, open, p50, p99, messages } = sample
  const mib = (/** @type {number} */ bytes) => (bytes / 2 ** 20).toFixed(0)
  return (
    `${seconds.toFixed(0).padStart(4)} s  ${phase.padEnd(7)}  ${`${open}`.padStart(4)} open  ` +
    `${whole(client.done).padStart(6)} sessions done  rss ${mib(rss).padStart(3)} MiB  ` +
    `pool ${mib(slabInUse).padStart(2)} MiB  ` +
    `ping p50 ${(p50 ?? 0).toFixed(2)} p99 ${(p99 ?? 0).toFixed(1)} ms  ${whole(messages).padStart(6)} messages/s`
  )
}
