// The heat map: every worker on one canvas. A cell shows its value both by its colour and by
// a number or the height of its fill, and its worker's state by a pattern.
import {palette, percent} from './colours.js'
import {$, html, phone, textWithTitle, text} from './dom.js'
import {current} from './state.js'
import {view} from './view.js'
import {DASH, plural, num, ofTotal, pct, percentagePoints} from './format.js'
import {describeKV, countWorkers, endpointName, displayID, rankSuffix, lastReport, sorted, shortID, SORT_VALUES} from './workers.js'

// The sizes of a cell: width, height, gap. The first one with which all rows fit is used.
const SIZES = [[236, 66, 8], [132, 48, 5], [74, 36, 3], [48, 30, 3], [37, 26, 2], [26, 22, 2], [22, 20, 2], [18, 18, 2], [14, 14, 2], [11, 11, 1], [9, 9, 1], [6, 6, 1], [4, 4, 1]]
const MAX_LARGE_CELLS = 8 // with more workers, the largest cells are not used
const GROUP_GAP = 8       // height of the gap between two groups
const titleHeight = () => phone.matches ? 38 : 20 // of two lines or one

const GROUPS = {
  component: w => w.component,
  endpoint: endpointName,
  state: w => w.state,
  source: w => w.source ?? 'no source',
  model: w => w.model || 'model unknown',
  none: () => 'all workers',
}

export const mapElement = $('map')
const canvas = mapElement.querySelector('canvas'), ctx = canvas.getContext('2d', {alpha: false})

let groups = [], cell = {}, width = 0, height = 0
export let cells = []
export const highlights = {cursor: null, hover: null} // the keys of highlighted workers
export const columns = () => cell.columns

// drawHeatMap arranges and paints the workers that the filters let through.
export function drawHeatMap() {
  width ||= mapElement.clientWidth
  arrangeGroups()
  resizeCanvas()
  drawTitles()
  paint()
  text($('ramp'), COLOUR_NAMES[view.by])
}

function arrangeGroups() {
  const lists = new Map(), nameOf = GROUPS[view.group]
  for (const w of sorted(current.shown, view.order, view.order === 'id' ? 'asc' : 'desc')) {
    const k = nameOf(w)
    if (lists.has(k)) lists.get(k).push(w)
    else lists.set(k, [w])
  }
  groups = [...lists].map(([name, list]) => ({name, list})).sort((a, b) => a.name < b.name ? -1 : 1)
  cells = groups.flatMap(g => g.list)
  const budget = phone.matches ? 440 : 430
  for (const [w, h, gap] of SIZES) {
    if (h > 50 && cells.length > MAX_LARGE_CELLS) continue
    const end = layOut(w, h, gap)
    if (end <= budget && w <= width) break
  }
}

// layOut gives all cells this size and each group its position. It returns the height of it all.
function layOut(w, h, gap) {
  const columns = Math.max(1, Math.floor((width + gap) / (w + gap)))
  let y = 0, start = 0
  for (const g of groups) {
    g.y = y + titleHeight()
    g.start = start
    start += g.list.length
    y = g.y + Math.ceil(g.list.length / columns) * (h + gap) + GROUP_GAP
  }
  // If a row is full, the cells divide the whole width among them. The largest cells keep their width.
  const full = w < 200 && groups.some(g => g.list.length >= columns)
  cell = {w, h, gap, columns, pitch: full ? (width + gap) / columns : w + gap}
  height = Math.max(0, y - GROUP_GAP)
  return y
}

function resizeCanvas() {
  const dpr = devicePixelRatio || 1, w = Math.round(width * dpr), h = Math.round(height * dpr)
  if (canvas.width === w && canvas.height === h) return
  canvas.width = w
  canvas.height = h
  canvas.style.width = width + 'px'
  canvas.style.height = height + 'px'
}

function drawTitles() {
  const box = $('groups')
  while (box.children.length > groups.length) box.lastChild.remove()
  groups.forEach((g, i) => {
    let el = box.children[i]
    if (!el) {
      el = document.createElement('div')
      el.className = 'group'
      el.innerHTML = '<b></b><span></span>'
      box.append(el)
    }
    el.style.top = g.y - titleHeight() + 'px'
    textWithTitle(el.firstChild, g.name)
    textWithTitle(el.lastChild, groupSummary(g.list))
  })
}

// wholeEndpoint returns the endpoint whose workers are exactly those in list. Only then is
// there a mean to show: the server computes means per endpoint, and the page computes none.
function wholeEndpoint(list, n) {
  const name = endpointName(list[0])
  return list.every(w => endpointName(w) === name) ? current.snapshot.endpoints.find(e => endpointName(e) === name && e.workers === n) : null
}

// The aggregates of a whole endpoint, by what the colour shows.
const meanAndStd = (name, m, std) => m == null ? '' : ` · mean ${name} ${pct(m)} ± ${percentagePoints(std)}`
const GROUP_AGGREGATES = {
  kv: e => meanAndStd('KV use', e.loadMean, e.loadStd),
  slots: e => meanAndStd('slots', e.slotsMean, e.slotsStd),
  hit: e => e.hitRate == null ? '' : ` · hit rate ${pct(e.hitRate)}`,
}

function groupSummary(list) {
  const n = countWorkers(list), waiting = list.reduce((sum, w) => sum + (w.waiting ?? 0), 0), all = wholeEndpoint(list, n)
  return plural(n, 'worker') + (all ? GROUP_AGGREGATES[view.by](all) : '') + (waiting ? ` · ${num(waiting)} waiting` : '') +
    (list.some(w => w.dp != null) ? ` · ${plural(list.length, 'rank')}` : '')
}

// cellBox returns the left, top and width of a cell.
function cellBox(i) {
  let g = groups.length - 1
  while (g > 0 && groups[g].start > i) g--
  const k = i - groups[g].start, row = Math.floor(k / cell.columns), column = k % cell.columns, x = Math.round(column * cell.pitch)
  return [x, groups[g].y + row * (cell.h + cell.gap), Math.round((column + 1) * cell.pitch) - cell.gap - x]
}

export function paint() {
  const dpr = devicePixelRatio || 1, valueOf = SORT_VALUES[view.by]
  ctx.setTransform(dpr, 0, 0, dpr, 0, 0)
  ctx.fillStyle = palette.panel
  ctx.fillRect(0, 0, width, height)
  ctx.textBaseline = 'middle'
  cells.forEach((w, i) => paintCell(w, valueOf(w), ...cellBox(i)))
  for (const [key, colour, line] of [[view.w, palette.ink, 2], [highlights.cursor, palette.accent, 2], [highlights.hover, palette.ink, 1.5]]) {
    const i = key ? cells.findIndex(w => w.key === key) : -1
    if (i >= 0) paintRing(cellBox(i), colour, line)
  }
}

function paintCell(w, v, x, y, cw) {
  const {h} = cell
  if (w.state === 'silent') paintPattern(x, y, cw, palette.silent, 1, palette.hatch)
  else if (w.state === 'malformed') paintCross(x, y, cw)
  else if (v == null) paintUnknown(x, y, cw)
  else paintFill(w, v, x, y, cw)
  const blank = v == null || w.state === 'silent' || w.state === 'malformed'
  if (blank && w.state !== 'answering' && cell.w >= 70) paintLabel(w, x + cw / 2, y + h / 2)
  if (h > 50 && !blank) {
    ctx.font = `12px ${palette.sans}`
    ctx.textAlign = 'left'
    ctx.fillStyle = palette.onFill[percent(v)]
    const parts = [shortID(w, 6) + rankSuffix(w), w.waiting ? `${num(w.waiting)} wait` : '', w.slotsActive == null ? '' : `slots ${w.slotsActive}/${w.slotsTotal}`].filter(Boolean)
    ctx.fillText(partsThatFit(parts, cw - 22), x + 11, y + h * .74)
  }
}

// partsThatFit joins as many parts as there is room for. The tooltip has all of them.
function partsThatFit(parts, wide) {
  const s = parts.join(' · ')
  return parts.length > 1 && ctx.measureText(s).width > wide ? partsThatFit(parts.slice(0, -1), wide) : s
}

function paintPattern(x, y, cw, colour, line, pattern) {
  ctx.fillStyle = palette.sunk
  ctx.fillRect(x, y, cw, cell.h)
  if (pattern) {
    ctx.fillStyle = pattern
    ctx.fillRect(x, y, cw, cell.h)
  }
  ctx.strokeStyle = colour
  ctx.lineWidth = line
  ctx.strokeRect(x + .5, y + .5, cw - 1, cell.h - 1)
}

function paintCross(x, y, cw) {
  const {h} = cell
  paintPattern(x, y, cw, palette.malformed, h > 12 ? 2 : 1)
  if (cell.w >= 70) return // there is room for a label
  const m = Math.min(cw, h) * (cell.w >= 37 ? .22 : .36), cx = x + cw / 2, cy = y + h / 2
  ctx.beginPath()
  for (const d of [m, -m]) {
    ctx.moveTo(cx - m, cy - d)
    ctx.lineTo(cx + m, cy + d)
  }
  ctx.stroke()
}

function paintUnknown(x, y, cw) {
  ctx.fillStyle = palette.sunk
  ctx.fillRect(x, y, cw, cell.h)
  if (cell.h < 14) return
  ctx.fillStyle = palette['ink-3']
  ctx.textAlign = 'center'
  ctx.font = `11px ${palette.sans}`
  ctx.fillText(DASH, x + cw / 2, y + cell.h / 2)
}

function paintFill(w, v, x, y, cw) {
  const {h} = cell, p = percent(v), numbered = cell.w >= 37
  ctx.fillStyle = palette.fill[p]
  if (numbered) ctx.fillRect(x, y, cw, h)
  else {
    const level = Math.max(1, Math.round(h * p / 100))
    ctx.fillRect(x, y + h - level, cw, level)
    ctx.fillStyle = palette.sunk
    ctx.fillRect(x, y, cw, h - level)
  }
  if (w.state === 'unregistered') {
    ctx.strokeStyle = numbered ? palette.onFill[p] : palette.unregistered
    ctx.lineWidth = numbered ? 1.5 : 2
    ctx.setLineDash([3, 2])
    ctx.strokeRect(x + 1, y + 1, cw - 2, h - 2)
    ctx.setLineDash([])
  }
  if (numbered) paintNumber(w, p, x, y, cw)
}

function paintNumber(w, p, x, y, cw) {
  const {h} = cell
  ctx.fillStyle = palette.onFill[p]
  if (cell.w < 120) {
    const roomy = cell.w >= 70
    ctx.textAlign = 'center'
    ctx.font = `${roomy ? 12 : 11}px ${palette.sans}`
    ctx.fillText(roomy ? p + ' %' : p, x + cw / 2, y + h / 2 + .5)
    return
  }
  ctx.textAlign = 'left'
  ctx.font = `600 ${h > 50 ? 20 : 15}px ${palette.sans}`
  ctx.fillText(p + ' %', x + 11, y + h * (h > 50 ? .36 : .52))
  if (h > 50) return
  ctx.textAlign = 'right'
  ctx.font = `11px ${palette.sans}`
  ctx.fillText(shortID(w), x + cw - 9, y + h * .52)
}

function paintLabel(w, cx, cy) {
  const s = (cell.w >= 120 ? shortID(w) + ' ' : '') + w.state
  ctx.textAlign = 'center'
  ctx.font = `11px ${palette.sans}`
  const wide = ctx.measureText(s).width
  ctx.fillStyle = palette.panel
  ctx.fillRect(cx - wide / 2 - 4, cy - 8, wide + 8, 16)
  ctx.fillStyle = palette[w.state]
  ctx.fillText(s, cx, cy + .5)
}

function paintRing([x, y, cw], colour, line) {
  for (const [style, wide] of [[palette.panel, line + 2], [colour, line]]) {
    ctx.strokeStyle = style
    ctx.lineWidth = wide
    ctx.strokeRect(x - .5, y - .5, cw + 1, cell.h + 1)
  }
}

// cellAt returns the index of the cell at a point of the canvas, or -1.
export function cellAt(x, y) {
  for (const g of groups) {
    const row = Math.floor((y - g.y) / (cell.h + cell.gap)), column = Math.floor(x / cell.pitch), k = row * cell.columns + column
    if (row >= 0 && column >= 0 && column < cell.columns && k < g.list.length) return g.start + k
  }
  return -1
}

// showTip shows a tooltip with everything about a cell; -1 hides it.
export function showTip(i) {
  const box = $('tip'), w = cells[i]
  box.hidden = !w
  if (!w) return
  const facts = {
    state: (current.outdated ? 'was ' : '') + w.state,
    'KV blocks': describeKV(w),
    slots: ofTotal(w.slotsActive, w.slotsTotal),
    waiting: num(w.waiting),
    'hit rate, 5 min': pct(w.hitRate, 1),
    'last report': lastReport(w) + (w.age == null ? '' : ' ago'),
  }
  if (!box.firstChild) html(box, '<b class="mono"></b><dl>' + Object.keys(facts).map(k => `<dt>${k}</dt><dd></dd>`).join('') + '</dl>')
  text(box.firstChild, displayID(w) + rankSuffix(w))
  const values = box.querySelectorAll('dd')
  Object.values(facts).forEach((v, i) => text(values[i], v))
  const [x, y, cw] = cellBox(i), left = mapElement.offsetLeft, wide = box.offsetWidth
  box.style.left = Math.max(6, Math.min(left + x + cw / 2 - wide / 2, left + width - wide)) + 'px'
  box.style.top = mapElement.offsetTop + y + cell.h + 8 + 'px'
}

export const cellIndex = key => key ? cells.findIndex(w => w.key === key) : -1

// onResize calls f when the map has become wider or narrower.
export function onResize(f) {
  new ResizeObserver(() => {
    if (!mapElement.clientWidth || mapElement.clientWidth === width) return
    width = mapElement.clientWidth
    f()
  }).observe(mapElement)
}

const COLOUR_NAMES = {kv: 'KV use', slots: 'slots in use', hit: 'hit rate'}
const LEGEND = '<span class="ramp"><span id="ramp"></span><span>0 %</span><canvas width="120" height="10" aria-label="from pale to strong, 0 to 100 percent" role="img"></canvas><span>100 %</span></span>' +
  [['silent', 'hatch'], ['malformed', 'cross'], ['unregistered', 'dash']].map(([s, c]) => `<span class="key"><i class="swatch ${c}"></i>${s}</span>`).join('') +
  '<span class="key">– not reported</span>'

export function drawLegend() {
  html($('legend'), LEGEND)
  const ramp = $('legend').querySelector('canvas').getContext('2d')
  palette.fill.forEach((colour, i) => {
    ramp.fillStyle = colour
    ramp.fillRect(i * 1.2, 0, 2, 10)
  })
}
