// The table: one page of rows, made once and written over.
import {$, copy, phone, selects, short, text} from './dom.js'
import {changed, onChange} from './filter.js'
import {now} from './state.js'
import {view} from './view.js'
import {DASH, many, num, pair, pct} from './format.js'
import {endpointOf, hexOf, reported, sorted, use} from './workers.js'

const COLUMNS = [
  ['state', 'State', ''], ['id', 'Worker<span class="long">, decimal and hex</span>', ''], ['endpoint', 'Component / endpoint', 'c-ep'],
  ['source', 'Source', 'c-src'], ['kv', 'KV blocks', 'c-kv'], ['slots', 'Slots', 'r c-slots'], ['waiting', 'Waiting', 'r'],
  ['hit', 'Hit rate 5 min', 'r c-hit'], ['hit2', 'total', 'r c-hit2'], ['age', 'Age', 'r c-age'],
]
const ASCENDING = ['id', 'endpoint', 'source'] // from small to large at the first click

const ROW = `<td><span class="st"><svg class="glyph" role="img"><use/></svg><span aria-hidden="true"></span></span></td>
<td><span class="ids"><span class="dec"></span><span class="hex"></span><span class="dim"><span class="long">rank </span><span></span></span></span></td>
<td class="c-ep"></td><td class="c-src dim"></td>
<td class="c-kv"><div class="kv"><span class="track" aria-hidden="true"><i></i><b></b></span><span></span><span></span></div></td>
<td class="r c-slots"></td><td class="r"></td><td class="r c-hit"></td><td class="r c-hit2"></td><td class="r c-age"></td>`

$('cols').innerHTML = COLUMNS.map(([k, label, cls]) => `<th scope="col" class="${cls}" data-k="${k}"><button>${label}</button></th>`).join('')
const body = $('rows')
let keys = [], held = false

// While a pointer rests on the rows or the focus is in them, the order holds still:
// nobody clicks a row that has moved.
onChange(() => { held = false })

export function table() {
  heads()
  const keep = held && keys.length > 0 && now.ordered.length === now.shown.length && now.ordered.every(w => now.byKey.has(w.key))
  text($('held'), keep ? 'order held while you are in the table' : '')
  now.ordered = keep ? now.ordered.map(w => now.byKey.get(w.key)) : sorted(now.shown, view.sort, view.dir)
  const {list, from} = turn()
  while (body.children.length > list.length) body.lastChild.remove()
  while (body.children.length < list.length) body.append(newRow())
  keys = list.map(w => w.key)
  const means = new Map(now.snap.endpoints.map(e => [endpointOf(e), e.loadMean]))
  list.forEach((w, i) => write(body.children[i], w, from + i, means.get(endpointOf(w))))
  if (list.length && ![...body.children].some(tr => tr.tabIndex === 0)) body.firstChild.tabIndex = 0
}

function heads() {
  for (const th of $('cols').children) {
    const order = th.dataset.k !== view.sort ? '' : view.dir === 'asc' ? 'ascending' : 'descending'
    if (th._order === order) continue
    th._order = order
    if (order) th.setAttribute('aria-sort', order)
    else th.removeAttribute('aria-sort')
  }
}

// turn is the page of the table that is looked at.
function turn() {
  const n = now.ordered.length, size = phone.matches ? 25 : 50, pages = Math.max(1, Math.ceil(n / size))
  const at = Math.min(pages - 1, +view.page), from = at * size, list = now.ordered.slice(from, from + size)
  text($('range'), n > size ? `${num(from + 1)} to ${num(from + list.length)} of ${num(n)}` : many(n, 'row'))
  $('prev').disabled = at === 0
  $('next').disabled = at === pages - 1
  $('prev').hidden = $('next').hidden = pages === 1
  if ($('t')._rows !== n) $('t').setAttribute('aria-rowcount', ($('t')._rows = n) + 1)
  return {list, from}
}

function newRow() {
  const tr = document.createElement('tr')
  tr.tabIndex = -1
  tr.innerHTML = ROW
  const [state, ids, endpoint, source, kv, slots, waiting, hit, hit2, age] = tr.children
  const [, percent, blocks] = kv.firstChild.children, ofRank = ids.querySelector('.dim')
  tr._ = {
    svg: state.querySelector('svg'), use: state.querySelector('use'), word: state.querySelector('span span'),
    dec: ids.querySelector('.dec'), hex: ids.querySelector('.hex'), ofRank, rank: ofRank.lastChild,
    endpoint, source, bar: kv.querySelector('i'), tick: kv.querySelector('b'), percent, blocks, slots, waiting, hit, hit2, age,
  }
  return tr
}

function write(tr, w, place, mean) {
  const _ = tr._, u = use(w)
  if (tr._key !== w.key || tr._state !== w.state || tr._source !== w.source) name(tr, w)
  if (tr._place !== place) tr.setAttribute('aria-rowindex', (tr._place = place) + 2)
  const on = w.key === view.w
  if (tr._on !== on) tr.classList.toggle('on', tr._on = on)
  const long = u == null ? 0 : Math.round(Math.min(1, u) * 1000) / 1000
  if (_.bar._long !== long) _.bar.style.transform = `scaleX(${_.bar._long = long})`
  const at = u == null || mean == null ? -1 : Math.round(mean * 100) // the tick: the mean of its endpoint
  if (_.tick._at !== at) {
    _.tick._at = at
    _.tick.hidden = at < 0
    _.tick.style.left = at + '%'
  }
  text(_.percent, pct(u))
  text(_.blocks, w.kvActive == null ? '' : pair(w.kvActive, w.kvTotal))
  text(_.slots, pair(w.slotsActive, w.slotsTotal))
  text(_.waiting, num(w.waiting))
  if (_.waiting._zero !== !w.waiting) _.waiting.classList.toggle('zero', _.waiting._zero = !w.waiting)
  text(_.hit, pct(w.hitRate, 1))
  text(_.hit2, pct(w.hitRateTotal, 1))
  text(_.age, reported(w))
}

// name writes what a row seldom changes.
function name(tr, w) {
  const _ = tr._
  tr._key = w.key
  tr._state = tr.dataset.s = w.state
  tr._source = w.source
  _.use.setAttribute('href', '#g-' + w.state)
  _.svg.setAttribute('class', 'glyph ' + w.state)
  _.svg.setAttribute('aria-label', w.state)
  text(_.word, w.state)
  const hex = hexOf(w)
  short(_.dec, w.id)
  short(_.hex, hex)
  _.dec.classList.toggle('twin', !!hex)
  _.hex.hidden = !hex
  _.ofRank.hidden = w.dp == null
  text(_.rank, w.dp ?? '')
  text(_.endpoint, endpointOf(w))
  text(_.source, w.source ?? DASH)
}

function copyId(w, hex) {
  if (hex && hexOf(w)) copy(w.hex, 'hexadecimal id')
  else copy(w.id, 'decimal id')
}

// tableKeys calls open with the key of a worker whose row is clicked or entered.
export function tableKeys(open) {
  $('cols').onclick = e => {
    const k = e.target.closest('th')?.dataset.k
    if (!k) return
    view.dir = view.sort !== k ? ASCENDING.includes(k) ? 'asc' : 'desc' : view.dir === 'asc' ? 'desc' : 'asc'
    view.sort = k
    view.page = '0'
    changed()
  }
  const leaf = by => () => {
    view.page = String(Math.max(0, +view.page + by))
    changed()
  }
  $('prev').onclick = leaf(-1)
  $('next').onclick = leaf(1)
  body.onpointerenter = () => { held = true }
  body.onpointerleave = () => { held = body.contains(document.activeElement) }
  body.addEventListener('focusin', e => enter(e.target.closest('tr')))
  body.addEventListener('focusout', e => {
    if (!body.contains(e.relatedTarget)) held = body.matches(':hover')
  })
  body.onclick = e => {
    const tr = e.target.closest('tr'), w = now.byKey.get(tr?._key)
    if (w && !selects(tr)) open(w.key)
  }
  body.onkeydown = e => rowKey(e, open)
}

// enter makes a row the table's stop for the tabulator.
function enter(tr) {
  held = true
  for (const other of body.children) {
    const tab = other === tr ? 0 : -1
    if (other.tabIndex !== tab) other.tabIndex = tab
  }
}

function rowKey(e, open) {
  const tr = e.target.closest('tr'), w = now.byKey.get(tr?._key)
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
