// The table: one page of rows, which are created once and then updated.
import {$, copy, phone, hasSelection, textWithTitle, text} from './dom.js'
import {viewChanged, onChange} from './filter.js'
import {current} from './state.js'
import {view} from './view.js'
import {DASH, plural, num, ofTotal, pct} from './format.js'
import {endpointName, hexID, lastReport, sorted, kvUse} from './workers.js'

const COLUMNS = [
  ['state', 'State', ''], ['id', 'Worker<span class="long">, decimal and hex</span>', ''], ['endpoint', 'Component / endpoint', 'c-ep'],
  ['source', 'Source', 'c-src'], ['kv', 'KV blocks', 'c-kv'], ['slots', 'Slots', 'r c-slots'], ['waiting', 'Waiting', 'r'],
  ['hit', 'Hit rate 5 min', 'r c-hit'], ['hit2', 'total', 'r c-hit2'], ['age', 'Age', 'r c-age'],
]
const ASCENDING = ['id', 'endpoint', 'source'] // the first click sorts these in ascending order

const ROW = `<td><span class="state"><svg class="glyph" role="img"><use/></svg><span aria-hidden="true"></span></span></td>
<td><span class="ids"><span class="dec"></span><span class="hex"></span><span class="dim"><span class="long">rank </span><span></span></span></span></td>
<td class="c-ep"></td><td class="c-src dim"></td>
<td class="c-kv"><div class="kv"><span class="track" aria-hidden="true"><i></i><b></b></span><span></span><span></span></div></td>
<td class="r c-slots"></td><td class="r"></td><td class="r c-hit"></td><td class="r c-hit2"></td><td class="r c-age"></td>`

$('cols').innerHTML = COLUMNS.map(([k, label, className]) => `<th scope="col" class="${className}" data-k="${k}"><button>${label}</button></th>`).join('')
const body = $('rows')
let keys = [], orderHeld = false

// While the pointer or the focus is in the rows, their order is held, so that a row does
// not move away under a click.
onChange(() => { orderHeld = false })

export function drawTable() {
  drawHeaders()
  const keep = orderHeld && keys.length > 0 && current.ordered.length === current.shown.length && current.ordered.every(w => current.byKey.has(w.key))
  text($('order-note'), keep ? 'order held while you are in the table' : '')
  current.ordered = keep ? current.ordered.map(w => current.byKey.get(w.key)) : sorted(current.shown, view.sort, view.dir)
  const {list, from} = currentPage()
  while (body.children.length > list.length) body.lastChild.remove()
  while (body.children.length < list.length) body.append(newRow())
  keys = list.map(w => w.key)
  const means = new Map(current.snapshot.endpoints.map(e => [endpointName(e), e.loadMean]))
  list.forEach((w, i) => writeRow(body.children[i], w, from + i, means.get(endpointName(w))))
  if (list.length && ![...body.children].some(tr => tr.tabIndex === 0)) body.firstChild.tabIndex = 0
}

function drawHeaders() {
  for (const th of $('cols').children) {
    const order = th.dataset.k !== view.sort ? '' : view.dir === 'asc' ? 'ascending' : 'descending'
    if (th._order === order) continue
    th._order = order
    if (order) th.setAttribute('aria-sort', order)
    else th.removeAttribute('aria-sort')
  }
}

// currentPage returns the rows of the page that is shown.
function currentPage() {
  const n = current.ordered.length, size = phone.matches ? 25 : 50, pages = Math.max(1, Math.ceil(n / size))
  const page = Math.min(pages - 1, +view.page), from = page * size, list = current.ordered.slice(from, from + size)
  text($('range'), n > size ? `${num(from + 1)} to ${num(from + list.length)} of ${num(n)}` : plural(n, 'row'))
  $('prev').disabled = page === 0
  $('next').disabled = page === pages - 1
  $('prev').hidden = $('next').hidden = pages === 1
  if ($('t')._rows !== n) $('t').setAttribute('aria-rowcount', ($('t')._rows = n) + 1)
  return {list, from}
}

function newRow() {
  const tr = document.createElement('tr')
  tr.tabIndex = -1
  tr.innerHTML = ROW
  const [state, ids, endpoint, source, kv, slots, waiting, hit, hit2, age] = tr.children
  const [, percent, blocks] = kv.firstChild.children, rankBox = ids.querySelector('.dim')
  tr._parts = {
    svg: state.querySelector('svg'), use: state.querySelector('use'), label: state.querySelector('span span'),
    dec: ids.querySelector('.dec'), hex: ids.querySelector('.hex'), rankBox, rank: rankBox.lastChild,
    endpoint, source, bar: kv.querySelector('i'), tick: kv.querySelector('b'), percent, blocks, slots, waiting, hit, hit2, age,
  }
  return tr
}

function writeRow(tr, w, index, mean) {
  const parts = tr._parts, u = kvUse(w)
  if (tr._key !== w.key || tr._state !== w.state || tr._source !== w.source) writeNames(tr, w)
  if (tr._index !== index) tr.setAttribute('aria-rowindex', (tr._index = index) + 2)
  const selected = w.key === view.w
  if (tr._selected !== selected) tr.classList.toggle('selected', tr._selected = selected)
  const barLength = u == null ? 0 : Math.round(Math.min(1, u) * 1000) / 1000
  if (parts.bar._length !== barLength) parts.bar.style.transform = `scaleX(${parts.bar._length = barLength})`
  const tickAt = u == null || mean == null ? -1 : Math.round(mean * 100) // the tick shows the endpoint's mean
  if (parts.tick._at !== tickAt) {
    parts.tick._at = tickAt
    parts.tick.hidden = tickAt < 0
    parts.tick.style.left = tickAt + '%'
  }
  text(parts.percent, pct(u))
  text(parts.blocks, w.kvActive == null ? '' : ofTotal(w.kvActive, w.kvTotal))
  text(parts.slots, ofTotal(w.slotsActive, w.slotsTotal))
  text(parts.waiting, num(w.waiting))
  if (parts.waiting._zero !== !w.waiting) parts.waiting.classList.toggle('zero', parts.waiting._zero = !w.waiting)
  text(parts.hit, pct(w.hitRate, 1))
  text(parts.hit2, pct(w.hitRateTotal, 1))
  text(parts.age, lastReport(w))
}

// writeNames writes the parts of a row that seldom change.
function writeNames(tr, w) {
  const parts = tr._parts
  tr._key = w.key
  tr._state = tr.dataset.s = w.state
  tr._source = w.source
  parts.use.setAttribute('href', '#g-' + w.state)
  parts.svg.setAttribute('class', 'glyph ' + w.state)
  parts.svg.setAttribute('aria-label', w.state)
  text(parts.label, w.state)
  const hex = hexID(w)
  textWithTitle(parts.dec, w.id)
  textWithTitle(parts.hex, hex)
  parts.dec.classList.toggle('has-hex', !!hex)
  parts.hex.hidden = !hex
  parts.rankBox.hidden = w.dp == null
  text(parts.rank, w.dp ?? '')
  text(parts.endpoint, endpointName(w))
  text(parts.source, w.source ?? DASH)
}

function copyId(w, hex) {
  if (hex && hexID(w)) copy(w.hex, 'hexadecimal id')
  else copy(w.id, 'decimal id')
}

// installTableInput calls open with the worker's key when a row is clicked or Enter is pressed on it.
export function installTableInput(open) {
  $('cols').onclick = e => {
    const k = e.target.closest('th')?.dataset.k
    if (!k) return
    view.dir = view.sort !== k ? ASCENDING.includes(k) ? 'asc' : 'desc' : view.dir === 'asc' ? 'desc' : 'asc'
    view.sort = k
    view.page = '0'
    viewChanged()
  }
  const turnPage = by => () => {
    view.page = String(Math.max(0, +view.page + by))
    viewChanged()
  }
  $('prev').onclick = turnPage(-1)
  $('next').onclick = turnPage(1)
  body.onpointerenter = () => { orderHeld = true }
  body.onpointerleave = () => { orderHeld = body.contains(document.activeElement) }
  body.addEventListener('focusin', e => setTabStop(e.target.closest('tr')))
  body.addEventListener('focusout', e => {
    if (!body.contains(e.relatedTarget)) orderHeld = body.matches(':hover')
  })
  body.onclick = e => {
    const tr = e.target.closest('tr'), w = current.byKey.get(tr?._key)
    if (w && !hasSelection(tr)) open(w.key)
  }
  body.onkeydown = e => rowKey(e, open)
}

// setTabStop makes a row the table's only tab stop.
function setTabStop(tr) {
  orderHeld = true
  for (const other of body.children) {
    const tab = other === tr ? 0 : -1
    if (other.tabIndex !== tab) other.tabIndex = tab
  }
}

function rowKey(e, open) {
  const tr = e.target.closest('tr'), w = current.byKey.get(tr?._key)
  if (!w || e.ctrlKey || e.metaKey || e.altKey) return
  const to = {ArrowDown: tr.nextSibling, ArrowUp: tr.previousSibling, Home: body.firstChild, End: body.lastChild}[e.key]
  if (to) {
    e.preventDefault()
    to.focus()
  } else if (e.key === 'Enter' && e.target === tr) {
    e.preventDefault()
    open(w.key)
  } else if (e.key === 'c' || e.key === 'x') copyId(w, e.key === 'x')
}
