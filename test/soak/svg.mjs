// @ts-check
// The samples as a picture: four panels over one time axis.
import { ticksUpTo, timeTicks } from './ticks.mjs'

/** @import { Sample } from './campaign.mjs' */

const WIDTH = 960
const LEFT = 64
const RIGHT = 24
const TOP = 56
const PANEL = 150
const GAP = 54
const BOTTOM = 40
const TICKS = 4
const MIB = 2 ** 20

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {string} color
 * @property {(sample: Sample) => number | undefined} of undefined: nothing was measured, the line has a gap
 */

/** @typedef {{ title: string, lines: Line[], isLog?: boolean }} Panel */

// Colours of Okabe and Ito, which everybody can tell apart.
const BLUE = '#0072b2'
const ORANGE = '#e69f00'
const GREEN = '#009e73'
const RED = '#d55e00'
const GREY = '#8a8f98'

/** @type {Panel[]} */
const panels = [
  {
    title: 'Memory, MiB',
    lines: [
      { name: 'server, resident', color: BLUE, of: ({ rss }) => rss / MIB },
      { name: 'client, resident', color: GREY, of: ({ clientRss }) => clientRss / MIB },
      { name: 'server, JavaScript heap', color: GREEN, of: ({ heap }) => heap / MIB },
      { name: 'pool, mapped', color: ORANGE, of: ({ slabMapped }) => slabMapped / MIB },
      { name: 'pool, in use', color: RED, of: ({ slabInUse }) => slabInUse / MIB },
    ],
  },
  { title: 'Open connections', lines: [{ name: 'server', color: BLUE, of: ({ open }) => open }] },
  {
    title: 'Latency of the pinger, ms, logarithmic',
    isLog: true,
    lines: [
      { name: 'p99', color: RED, of: ({ p99 }) => p99 },
      { name: 'p50', color: BLUE, of: ({ p50 }) => p50 },
    ],
  },
  {
    title: 'Throughput of the server, a second',
    lines: [
      { name: 'thousand messages', color: BLUE, of: ({ messages }) => messages / 1000 },
      { name: 'MiB, both ways', color: ORANGE, of: ({ bytes }) => bytes / MIB },
    ],
  },
]

/**
 * @param {Sample[]} samples at least one
 * @param {string} title
 */
export function svgOf(samples, title) {
  const height = TOP + panels.length * (PANEL + GAP) - GAP + BOTTOM
  const seconds = samples[samples.length - 1].seconds
  const x = (/** @type {number} */ at) => LEFT + (at / seconds) * (WIDTH - LEFT - RIGHT)
  const bottom = height - BOTTOM
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ` +
      'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#333">',
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    text(LEFT, 22, title, 'font-size="15" font-weight="bold"'),
    text(WIDTH - RIGHT, 22, 'grey: at rest, everything is closed', `text-anchor="end" fill="${GREY}"`),
    ...panels.flatMap((panel, i) => panelOf(panel, samples, TOP + i * (PANEL + GAP), x)),
    ...timeTicks(seconds).map((at) => text(x(at), bottom + 18, `${at} s`, 'text-anchor="middle"')),
    '</svg>\n',
  ].join('\n')
}

/**
 * @param {Panel} panel
 * @param {Sample[]} samples
 * @param {number} top
 * @param {(seconds: number) => number} x
 */
function panelOf({ title, lines, isLog = false }, samples, top, x) {
  const values = samples.flatMap((sample) => lines.flatMap(({ of }) => of(sample) ?? []))
  const scale = isLog ? logScale(values) : linearScale(values)
  const y = (/** @type {number} */ value) => top + PANEL * (1 - scale.part(value))
  const right = WIDTH - RIGHT
  return [
    ...restsOf(samples).map(
      ([from, to]) =>
        `<rect x="${f(x(from))}" y="${top}" width="${f(x(to) - x(from))}" height="${PANEL}" fill="#eee"/>`,
    ),
    ...scale.ticks.flatMap((tick) => [
      `<line x1="${LEFT}" x2="${right}" y1="${f(y(tick))}" y2="${f(y(tick))}" stroke="#ddd"/>`,
      text(LEFT - 8, y(tick) + 4, `${tick}`, 'text-anchor="end"'),
    ]),
    text(LEFT, top - 10, title, 'font-weight="bold"'),
    ...legend(lines, top - 10),
    ...lines.map(
      ({ of, color }) =>
        `<path d="${pathOf(samples, of, x, y)}" fill="none" stroke="${color}" stroke-width="1.5" stroke-linejoin="round"/>`,
    ),
  ]
}

/**
 * @param {Line[]} lines
 * @param {number} y
 */
function legend(lines, y) {
  let right = WIDTH - RIGHT
  return [...lines].reverse().flatMap(({ name, color }) => {
    const width = name.length * 7.2 + 34
    right -= width
    return [
      `<line x1="${f(right + 6)}" x2="${f(right + 22)}" y1="${y - 4}" y2="${y - 4}" stroke="${color}" stroke-width="3"/>`,
      text(right + 26, y, name),
    ]
  })
}

/**
 * @typedef {object} Scale
 * @property {number[]} ticks
 * @property {(value: number) => number} part 0: at the bottom, 1: at the top
 */

/**
 * @param {number[]} values
 * @returns {Scale}
 */
function linearScale(values) {
  const ticks = ticksUpTo(Math.max(1, ...values), TICKS)
  return { ticks, part: (value) => value / ticks[ticks.length - 1] }
}

/**
 * From power of ten to power of ten.
 * @param {number[]} values
 * @returns {Scale}
 */
function logScale(values) {
  const present = values.filter((value) => value > 0)
  const low = Math.floor(Math.log10(Math.min(1, ...present)))
  const high = Math.ceil(Math.log10(Math.max(10, ...present)))
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => Number((10 ** (low + i)).toPrecision(1)))
  return { ticks, part: (value) => (Math.log10(Math.max(value, ticks[0])) - low) / (high - low) }
}

/**
 * @param {Sample[]} samples
 * @param {Line['of']} of
 * @param {(seconds: number) => number} x
 * @param {(value: number) => number} y
 */
function pathOf(samples, of, x, y) {
  let drawing = false
  return samples
    .flatMap((sample) => {
      const value = of(sample)
      const move = drawing ? 'L' : 'M'
      drawing = value !== undefined
      return value === undefined ? [] : [`${move}${f(x(sample.seconds))} ${f(y(value))}`]
    })
    .join('')
}

/**
 * @param {Sample[]} samples
 * @returns {[number, number][]} when nothing was going on
 */
function restsOf(samples) {
  /** @type {[number, number][]} */
  const rests = []
  for (const [i, { seconds, phase }] of samples.entries()) {
    if (phase !== 'rest') continue
    if (samples[i - 1]?.phase === 'rest') rests[rests.length - 1][1] = seconds
    else rests.push([samples[i - 1]?.seconds ?? seconds, seconds])
  }
  return rests
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} content
 * @param {string} [attributes]
 */
function text(x, y, content, attributes = '') {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${f(x)}" y="${f(y)}" ${attributes}>${escaped}</text>`
}

/** @param {number} value */
function f(value) {
  return value.toFixed(1)
}
