// One worker, in a panel over the page so that no cell moves.
import {$, copy, esc, glyph, html, text} from './dom.js'
import {map} from './heatmap.js'
import {AXIS, Plot, newSet, unit, upTo} from './plot.js'
import {RANKS, ranks} from './ranks.js'
import {draw, now} from './state.js'
import {enter, leave, view} from './view.js'
import {DASH, clock, num, pair, pct} from './format.js'
import {blocks, endpointOf, hexOf, idOf, rank, reported} from './workers.js'

const panel = $('worker')
let back = null      // what had the focus before
let built = ''       // the key of the worker that the panel was made for
let missing = ''     // or of one that there is none of
let plots = []       // with the series each needs
let past = null      // its history
let last = null      // what was last said of it: it may be gone
let seen = 0         // when, by the program's clock
let ask = async () => null
let asked = ''       // the key of the worker whose history is on its way

// askWith says where the history of a worker comes from.
export const askWith = f => { ask = f }

const arrow = d => `<svg viewBox="0 0 16 16"><path d="${d}"/></svg>`
const CLOSE = `<button class="icon" id="w-close" aria-label="Close" title="Close (Escape)">${arrow('m4 4 8 8M12 4l-8 8')}</button>`
const TOP = `<div class="top"><h2 id="w-title" tabindex="-1"></h2>
<button class="icon" id="w-prev" aria-label="Previous worker" title="Previous (k)">${arrow('m4 10 4-4 4 4')}</button>
<button class="icon" id="w-next" aria-label="Next worker" title="Next (j)">${arrow('m4 6 4 4 4-4')}</button>
${CLOSE}</div>
<div class="sub2 st"><span id="w-endpoint"></span> · <span id="w-state"></span></div>`

const PLOTS = [
  ['kv', 'KV use', {
    layers: [{cls: 'peer', lo: 'peersLo', hi: 'peersHi', dom: unit}, {cls: 'peerline', y: 'peersMean', dom: unit}, {cls: 'line', y: 'kv', dom: unit, main: true, fmt: pct}],
    say: (d, i) => `${pct(d.kv[i])}, endpoint ${pct(d.peersMean[i])}`}],
  ['slots', 'Slots in use', {layers: [{cls: 'line', y: 'slots', dom: unit, main: true, fmt: pct}], say: (d, i) => pct(d.slots[i])}],
  ['waiting', 'Requests waiting', {
    layers: [{cls: 'area', y: 'waiting', dom: upTo('waiting')}, {cls: 'line', y: 'waiting', dom: upTo('waiting'), main: true, fmt: num}],
    say: (d, i) => num(d.waiting[i])}],
  ['hitRate', 'KV hit rate, 5 min', {layers: [{cls: 'line', y: 'hitRate', dom: unit, main: true, fmt: pct}], say: (d, i) => pct(d.hitRate[i], 1)}],
]

export function open(key, focus = true) {
  if (!now.byKey.has(key)) return
  enter(key)
  draw()
  if (focus) $('w-title').focus()
}

export function close() {
  leave()
  draw()
}

// show opens the panel, or closes it: by whatever the view has changed, a click, a key, or
// the browser's Back. What had the focus gets it back.
function show(yes) {
  const within = panel.contains(document.activeElement)
  panel.hidden = !yes
  built = missing = ''
  if (yes) back = document.activeElement
  else if (within) (back?.isConnected && back !== document.body ? back : map).focus()
}

// worker draws the panel of the worker that the view names, if it names one.
export function worker() {
  const w = now.byKey.get(view.w)
  if (panel.hidden === !!view.w) show(!!view.w)
  if (!view.w) return
  if (!w && built !== view.w) {
    if (missing !== view.w) unknown()
    return
  }
  if (w) {
    last = w
    seen = now.snap.now
    if (built !== w.key) {
      build(w)
      fetchPast()
    }
  }
  write(last, !w)
}

// write says how the worker is, or how it was: the numbers may be old, or it gone.
function write(w, gone) {
  const was = gone || now.old, then = v => was && v !== DASH ? 'was ' + v : v
  panel.classList.toggle('was', was)
  html($('w-state'), gone ? `gone: it was ${esc(w.state)} at ${clock(seen)}, is registered no more, and does not answer`
    : `${glyph(w.state)} ` + (was ? `was ${esc(w.state)} at ${clock(seen)}` : esc(w.state)))
  const values = [blocks(w), pair(w.slotsActive, w.slotsTotal), num(w.waiting), pct(w.hitRate, 1)]
  values.forEach((v, i) => text($('w-v' + i), then(v)))
  text($('w-age'), reported(w, (now.snap.now - seen) / 1000) + (w.age == null ? '' : ' ago'))
  text($('w-hit2'), then(pct(w.hitRateTotal, 1)))
  text($('w-oddhead'), `${past?.odd.length ? 'What' : 'Nothing'} ${was ? 'was' : 'is'} odd about it`)
  ranks(w)
}

// unknown is for an address of a worker that has gone, or never was.
function unknown() {
  missing = view.w
  built = ''
  const {leftOut} = now.snap
  panel.innerHTML = `<div class="top"><h2 id="w-title" tabindex="-1">No worker ${esc(view.w.slice(0, 200))} here</h2>${CLOSE}</div>
    <p class="sub2">The address of this page names it. It has gone, or it is another program's. If it comes, it is shown here.</p>` +
    (leftOut?.workers ? `<p class="sub2">Or it is one of ${num(leftOut.workers)} that the page has no room for.</p>` : '')
}

function build(w) {
  built = w.key
  missing = ''
  past = null
  const fact = (name, value) => `<dt>${name}</dt><dd${value.startsWith('<') ? ' class="mono"' : ''}>${value}</dd>`
  const id = s => `<span>${esc(s)}</span> <button class="link" data-copy="${esc(s)}">copy</button>`
  panel.innerHTML = TOP + '<h3 id="w-oddhead" hidden></h3><ul class="odd" id="w-odd"></ul>' + RANKS + '<p class="sub2" id="w-note" hidden></p>' +
    PLOTS.map(([, name], i) => `<div class="ph"><span class="label">${name}${i ? '' : ' · dashed: mean of the endpoint, grey: ± 1 std'}</span><b id="w-v${i}"></b></div><div id="w-p${i}"></div>`).join('') +
    '<h3>Who it is</h3><dl class="facts">' + fact('id, decimal', id(w.id)) + (hexOf(w) ? fact('id, hexadecimal', id(w.hex)) : '') +
    fact('data-parallel rank', w.dp == null ? DASH : String(w.dp)) + fact('model', esc(w.model || DASH)) + fact('source', esc(w.source ?? DASH)) +
    '<dt>last report</dt><dd id="w-age"></dd><dt>hit rate since the start</dt><dd id="w-hit2"></dd></dl>'
  text($('w-title'), idOf(w) + rank(w))
  text($('w-endpoint'), endpointOf(w))
  const set = newSet()
  plots = PLOTS.map(([series, name, what], i) => {
    const last = i === PLOTS.length - 1
    const p = new Plot($('w-p' + i), {set, name, axis: '<p class="sub2" hidden></p>' + (last ? AXIS : ''), ...what})
    return [p, series]
  })
}

// fetchPast asks for the history of the open worker, and for what is odd about it: when it is
// opened, and with each snapshot, since sentences must not differ from the numbers beside them.
export async function fetchPast() {
  if (!now.byKey.has(built) || asked === built) return
  const key = asked = built, answer = await ask(key)
  if (asked === key) asked = ''
  if (key !== built || !answer) return
  past = answer
  const {mean, std} = past.peersKv
  past.peersMean = mean
  past.peersLo = mean.map((m, i) => m == null ? null : m - std[i])
  past.peersHi = mean.map((m, i) => m == null ? null : m + std[i])
  for (const [p, series] of plots) {
    const any = past[series].some(v => v != null)
    p.el.hidden = !any
    p.el.nextElementSibling.hidden = any
    if (any) p.update(past, past.step)
  }
  plots.forEach(([p], i) => text(p.el.nextElementSibling, $('w-v' + i).textContent === DASH ? 'Not reported.' : past.note ? 'No history.' : 'No history yet.'))
  $('w-note').hidden = !past.note
  text($('w-note'), past.note ?? '')
  $('w-oddhead').hidden = false
  write(last, !now.byKey.has(key))
  html($('w-odd'), past.odd.map(o => `<li>${esc(o.text)}${o.check ? `<p>${esc(o.check)}</p>` : ''}</li>`).join(''))
}

// step opens the next worker of the table's order, or the one before.
export function step(d) {
  const i = now.ordered.findIndex(w => w.key === view.w), w = now.ordered[i + d]
  if (i >= 0 && w) open(w.key)
}

panel.onclick = e => {
  const b = e.target.closest('button')
  if (!b) return
  if (b.dataset.copy) copy(b.dataset.copy, 'id')
  else if (b.dataset.open) open(b.dataset.open)
  else if (b.id === 'w-close') close()
  else step(b.id === 'w-next' ? 1 : -1)
}
