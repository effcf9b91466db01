// @ts-check
// The pictures of the report: panels of bars with whiskers, as SVG.
//
// ECharts draws them: it renders SVG as a string, without a browser or a DOM, from one package with two dependencies.
// It is installed with the peers, in bench/, so it is loaded when it is needed.
import { createRequire } from 'node:module'

/**
 * @typedef {object} Bar
 * @property {string} server  whose colour it has
 * @property {string} label
 * @property {number} value
 * @property {number} low     the whiskers
 * @property {number} high
 * @property {string} text    beside it
 * @property {boolean} [faint]  the spread swallows what it says
 */

/** @typedef {{ title: string, bars: Bar[], mark?: number }} Panel  mark: where a dashed line is drawn */

/** @typedef {{ title: string, subtitle: string, panels: Panel[] }} Chart */

const COLUMNS = 3
const PANEL_WIDTH = 370
const LABELS = 124 // of the servers, left of the bars
const BAR_PITCH = 22
const BAR_WIDTH = 14
const PANEL_TITLE = 40
const PANEL_GAP = 18
const HEADER = 68
const MARGIN = 20
const TEXT_ROOM = 1.5 // the axis is that much longer than the longest whisker, for the text behind it

const INK = '#24292f'
const PALE = '#57606a'
const FONT = 'Helvetica, Arial, sans-serif'

// Keeps a number readable where the dashed line runs through it.
const HALO = { stroke: '#ffffff', lineWidth: 3 }

// Of Okabe and Ito, which everybody can tell apart; edgewire in blues.
/** @type {Record<string, string>} */
const COLORS = {
  floor: '#8a8f98',
  net: '#e69f00',
  edgewire: '#0072b2',
  'edgewire-prepare': '#56b4e9',
  'edgewire-task': '#4a7fb0',
  'edgewire-waiter': '#9fc5e8',
  bun: '#cc79a7',
  deno: '#009e73',
  go: '#d55e00',
}

/** @returns {string | undefined} why no chart can be drawn, in one line */
export function noCharts() {
  try {
    createRequire(import.meta.url).resolve('echarts')
    return undefined
  } catch {
    return 'the charts need ECharts, which is installed with the peers: npm run bench -- --install-peers'
  }
}

/**
 * @param {Chart} chart
 * @returns {string} SVG
 */
export function svgOf(chart) {
  const echarts = createRequire(import.meta.url)('echarts')
  const places = placePanels(chart.panels)
  // The same for every chart, however few panels it has: the longest title fits, and all text has one size on the page.
  const width = 2 * MARGIN + COLUMNS * PANEL_WIDTH
  const height = Math.max(...places.map(({ bottom }) => bottom)) + MARGIN
  const picture = echarts.init(null, null, { renderer: 'svg', ssr: true, width, height })
  picture.setOption({
    animation: false,
    backgroundColor: '#ffffff', // of its own, so that it can be read on a dark page, too
    textStyle: { fontFamily: FONT, color: INK },
    title: [
      heading(chart.title, MARGIN, 14, 17, 'bold', INK),
      heading(chart.subtitle, MARGIN, 40, 12, 'normal', PALE),
      ...chart.panels.map(({ title }, i) => heading(title, places[i].left, places[i].top, 13, 'bold', INK)),
    ],
    grid: chart.panels.map(({ bars }, i) => ({
      left: places[i].left + LABELS,
      top: places[i].top + PANEL_TITLE - 14,
      width: PANEL_WIDTH - LABELS - MARGIN,
      height: bars.length * BAR_PITCH,
    })),
    xAxis: chart.panels.map(valueAxis),
    yAxis: chart.panels.map(serverAxis),
    series: chart.panels.flatMap(seriesOf),
  })
  const svg = picture.renderToSVGString()
  picture.dispose()
  return `${svg}\n`
}

/**
 * Rows of panels; a row is as high as its highest one.
 * @param {Panel[]} panels
 */
function placePanels(panels) {
  const places = []
  let top = HEADER
  for (let start = 0; start < panels.length; start += COLUMNS) {
    const inRow = panels.slice(start, start + COLUMNS)
    const bars = Math.max(...inRow.map(({ bars: { length } }) => length))
    const bottom = top + PANEL_TITLE + bars * BAR_PITCH
    for (const column of inRow.keys()) places.push({ left: MARGIN + column * PANEL_WIDTH, top, bottom })
    top = bottom + PANEL_GAP
  }
  return places
}

/**
 * @param {string} text
 * @param {number} left
 * @param {number} top
 * @param {number} fontSize
 * @param {string} fontWeight
 * @param {string} color
 */
function heading(text, left, top, fontSize, fontWeight, color) {
  return { text, left, top, padding: 0, textStyle: { fontSize, fontWeight, color, fontFamily: FONT } }
}

/**
 * @param {Panel} panel
 * @param {number} gridIndex
 */
function valueAxis({ bars, mark = 0 }, gridIndex) {
  const longest = Math.max(mark, ...bars.map(({ value, high }) => Math.max(value, high)))
  return { type: 'value', gridIndex, min: 0, max: longest * TEXT_ROOM, show: false }
}

/**
 * @param {Panel} panel
 * @param {number} gridIndex
 */
function serverAxis({ bars }, gridIndex) {
  return {
    type: 'category',
    gridIndex,
    inverse: true,
    data: bars.map(({ label }) => label),
    axisTick: { show: false },
    axisLine: { lineStyle: { color: '#afb8c1' } },
    axisLabel: { color: INK, fontSize: 12, fontFamily: FONT, interval: 0 },
  }
}

/**
 * @param {Panel} panel
 * @param {number} index
 */
function seriesOf({ bars, mark }, index) {
  const at = { xAxisIndex: index, yAxisIndex: index }
  return [
    {
      ...at,
      type: 'bar',
      barWidth: BAR_WIDTH,
      data: bars.map(({ server, value, faint }) => ({
        value,
        itemStyle: { color: COLORS[server] ?? PALE, opacity: faint ? 0.4 : 1 },
      })),
      ...(mark !== undefined && {
        markLine: {
          silent: true,
          symbol: 'none',
          label: { show: false },
          lineStyle: { color: INK, type: 'dashed', width: 1 },
          data: [{ xAxis: mark }],
        },
      }),
    },
    {
      ...at,
      type: 'custom',
      z: 10,
      renderItem: (/** @type {any} */ _, /** @type {any} */ api) => whiskerOf(bars[api.value(1)], api),
      data: bars.map(({ value }, row) => [value, row]),
      encode: { x: 0, y: 1 },
    },
  ]
}

/**
 * The whiskers of a bar, and its text behind them.
 * @param {Bar} bar
 * @param {any} api
 */
function whiskerOf({ value, low, high, text }, api) {
  const cap = 4
  const [left, y] = api.coord([low, api.value(1)])
  const [right] = api.coord([high, api.value(1)])
  const [end] = api.coord([Math.max(value, high), api.value(1)])
  const line = (/** @type {number[]} */ [x1, y1, x2, y2]) => ({
    type: 'line',
    shape: { x1, y1, x2, y2 },
    style: { stroke: INK, lineWidth: 1.2 },
  })
  const whiskers = [
    line([left, y, right, y]),
    line([left, y - cap, left, y + cap]),
    line([right, y - cap, right, y + cap]),
  ]
  return {
    type: 'group',
    children: [
      ...(low < high ? whiskers : []),
      {
        type: 'text',
        style: { ...HALO, x: end + 7, y, text, fill: INK, font: `12px ${FONT}`, verticalAlign: 'middle' },
      },
    ],
  }
}
