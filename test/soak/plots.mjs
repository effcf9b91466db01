// @ts-check
// The samples as plots for the terminal.
import pc from 'picocolors'
import { plot } from 'simple-ascii-chart'
import { ticksUpTo, timeTicks } from './ticks.mjs'

/** @import { Sample } from './campaign.mjs' */

const WIDTH = 90
const HEIGHT = 9
const COLORS = /** @type {const} */ (['ansiCyan', 'ansiYellow'])

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {(sample: Sample) => number | undefined} of
 */

/** @param {Sample[]} samples */
export function terminalPlots(samples) {
  const mib = 2 ** 20
  return [
    chart(samples, 'server memory, MiB', [
      { name: 'resident', of: ({ rss }) => rss / mib },
      { name: 'pool in use', of: ({ slabInUse }) => slabInUse / mib },
    ]),
    chart(samples, 'open connections', [{ name: 'server', of: ({ open }) => open }]),
    chart(samples, 'latency of the pinger, ms', [
      { name: 'p99', of: ({ p99 }) => p99 },
      { name: 'p50', of: ({ p50 }) => p50 },
    ]),
  ].join('\n')
}

/**
 * The lines are named from the top.
 * @param {Sample[]} samples
 * @param {string} title
 * @param {Line[]} lines
 */
function chart(samples, title, lines) {
  const most = Math.max(1, ...samples.flatMap((sample) => lines.map(({ of }) => of(sample) ?? 0)))
  const ticks = ticksUpTo(most, 4)
  const seconds = samples[samples.length - 1].seconds
  const points = lines.map(({ of }) => thin(samples, of, seconds))
  const names = lines.map(({ name }, i) => (i === 0 ? name : `${name} below`)).join(', ')
  const text = plot(points, {
    title: `${title}${lines.length > 1 ? `: ${names}` : ''}`,
    width: WIDTH,
    height: HEIGHT,
    yRange: [0, ticks[ticks.length - 1]],
    customYAxisTicks: ticks,
    customXAxisTicks: timeTicks(seconds),
    formatter: (value, { axis }) => (axis === 'x' ? `${value} s` : `${value}`),
    ...(pc.isColorSupported ? { color: lines.map((_, i) => COLORS[i]) } : {}),
  })
  return text.replace(/[ \t]+$/gm, '').replace(/^\n+/, '')
}

/**
 * One point a column: of the seconds that share it the largest, so that no peak is lost.
 * @param {Sample[]} samples
 * @param {Line['of']} of
 * @param {number} seconds
 * @returns {[number, number][]}
 */
function thin(samples, of, seconds) {
  /** @type {Map<number, number>} */
  const columns = new Map()
  for (const sample of samples) {
    const value = of(sample) ?? 0
    const column = Math.floor((sample.seconds / seconds) * (WIDTH - 1))
    columns.set(column, Math.max(value, columns.get(column) ?? 0))
  }
  return [...columns].map(([column, value]) => [(column / (WIDTH - 1)) * seconds, value])
}
