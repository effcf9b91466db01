// @ts-check
// Where edgewire is behind, computed from a run.
import { metrics } from './metrics.mjs'
import { titleOf } from './scenarios.mjs'
import { EDGEWIRE, FLOOR } from './servers.mjs'
import { isBehind, isOpen, ratio } from './stats.mjs'
import { ratiosTo, ratioText } from './summary.mjs'

/** @import { Metric } from './metrics.mjs' */
/** @import { RunRecord } from './record.mjs' */

/** @typedef {{ load: string, server: string, points: string[] }} Loss */

/** @typedef {{ peers: Loss[], floor: Loss[], undecided: number, compared: number }} Losses */

/** @type {Metric[]} */
const JUDGED = ['cpuUsPerMessage', 'messagesPerSecond', 'p50Us', 'p99Us']
/**
 * Of an open loop. All servers are asked for the same rate, which is no merit of any; the latencies are what it is for.
 * @type {Metric[]}
 */
const JUDGED_AT_RATE = ['cpuUsPerMessage', 'p50Us', 'p99Us', 'p999Us']

/**
 * Every load and metric in which another server is ahead by more than the spread. The floor stands apart: nobody is
 * meant to be ahead of it. The other drivers and the other style of edgewire are no peers.
 * @param {Pick<RunRecord, 'loads' | 'memory'>} record
 * @returns {Losses}
 */
export function lossesIn({ loads, memory }) {
  /** @type {Losses} */
  const found = { peers: [], floor: [], undecided: 0, compared: 0 }
  const note = (/** @type {string} */ server, /** @type {Loss} */ loss) => {
    if (loss.points.length > 0) found[server === FLOOR ? 'floor' : 'peers'].push(loss)
  }
  for (const load of loads) {
    for (const { server } of load.servers.filter((each) => !each.server.name.startsWith(EDGEWIRE))) {
      const ratios = ratiosTo(load, EDGEWIRE, server.name) ?? {}
      const points = (load.rate === undefined ? JUDGED : JUDGED_AT_RATE).flatMap((metric) => {
        const each = ratios[metric]
        if (each === undefined) return []
        found.compared++
        if (isOpen(each)) found.undecided++
        const { title, moreIsBetter } = metrics[metric]
        return isBehind(each, moreIsBetter) ? [`${title} ${ratioText(each)}`] : []
      })
      note(server.name, { load: titleOf(load.scenario), server: server.label, points })
    }
  }
  for (const { server, bytes } of memory.filter((each) => !each.server.name.startsWith(EDGEWIRE))) {
    const mine = memory.find((each) => each.server.name === EDGEWIRE)?.bytes
    if (mine === undefined || mine.length !== bytes.length) continue
    const each = ratio(mine, bytes)
    found.compared++
    if (isOpen(each)) found.undecided++
    const points = isBehind(each) ? [`bytes each ${ratioText(each)}`] : []
    note(server.name, { load: 'idle connection', server: server.label, points })
  }
  return found
}
