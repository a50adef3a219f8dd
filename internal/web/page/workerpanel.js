// The panel of the open worker. It lies over the page, so that no cell moves.
import {$, copy, esc, glyph, html, text} from './dom.js'
import {mapElement} from './heatmap.js'
import {AXIS, Plot, newPlotGroup, fractionDomain, domainUpTo} from './plot.js'
import {RANKS_HTML, drawRanks} from './ranks.js'
import {draw, current} from './state.js'
import {openInView, closeInView, view} from './view.js'
import {DASH, clock, num, ofTotal, pct} from './format.js'
import {describeKV, endpointName, hexID, displayID, rankSuffix, lastReport} from './workers.js'

const panel = $('worker')
let previousFocus = null // the element that had the focus before
let builtKey = ''        // the key of the worker that the panel was built for
let missingKey = ''      // the key in the URL that no worker has
let plots = []           // each with the name of its series
let workerHistory = null
let lastWorker = null    // the worker in the last snapshot that had it
let lastSeenAt = 0       // the time of that snapshot, by the program's clock
let requestHistory = async () => null
let requestedKey = ''    // the key of the worker whose history has been requested

// onHistoryRequest sets the function that fetches the history of a worker.
export const onHistoryRequest = f => { requestHistory = f }

const arrow = d => `<svg viewBox="0 0 16 16"><path d="${d}"/></svg>`
const CLOSE = `<button class="icon" id="w-close" aria-label="Close" title="Close (Escape)">${arrow('m4 4 8 8M12 4l-8 8')}</button>`
const HEADER = `<div class="top"><h2 id="w-title" tabindex="-1"></h2>
<button class="icon" id="w-prev" aria-label="Previous worker" title="Previous (k)">${arrow('m4 10 4-4 4 4')}</button>
<button class="icon" id="w-next" aria-label="Next worker" title="Next (j)">${arrow('m4 6 4 4 4-4')}</button>
${CLOSE}</div>
<div class="detail state"><span id="w-endpoint"></span> · <span id="w-state"></span></div>`

const PLOTS = [
  ['kv', 'KV use', {
    layers: [{className: 'peers', lo: 'peersLo', hi: 'peersHi', domain: fractionDomain}, {className: 'peers-mean', y: 'peersMean', domain: fractionDomain}, {className: 'line', y: 'kv', domain: fractionDomain, main: true, format: pct}],
    describe: (d, i) => `${pct(d.kv[i])}, endpoint ${pct(d.peersMean[i])}`}],
  ['slots', 'Slots in use', {layers: [{className: 'line', y: 'slots', domain: fractionDomain, main: true, format: pct}], describe: (d, i) => pct(d.slots[i])}],
  ['waiting', 'Requests waiting', {
    layers: [{className: 'area', y: 'waiting', domain: domainUpTo('waiting')}, {className: 'line', y: 'waiting', domain: domainUpTo('waiting'), main: true, format: num}],
    describe: (d, i) => num(d.waiting[i])}],
  ['hitRate', 'KV hit rate, 5 min', {layers: [{className: 'line', y: 'hitRate', domain: fractionDomain, main: true, format: pct}], describe: (d, i) => pct(d.hitRate[i], 1)}],
]

export function openWorker(key, focus = true) {
  if (!current.byKey.has(key)) return
  openInView(key)
  draw()
  if (focus) $('w-title').focus()
}

export function closeWorker() {
  closeInView()
  draw()
}

// setPanelOpen opens or closes the panel, whether a click, a key or the browser's Back has
// changed the view. After closing, the focus returns to where it was.
function setPanelOpen(yes) {
  const within = panel.contains(document.activeElement)
  panel.hidden = !yes
  builtKey = missingKey = ''
  if (yes) previousFocus = document.activeElement
  else if (within) (previousFocus?.isConnected && previousFocus !== document.body ? previousFocus : mapElement).focus()
}

// drawWorkerPanel draws the panel of the worker that the view names, if it names one.
export function drawWorkerPanel() {
  const w = current.byKey.get(view.w)
  if (panel.hidden === !!view.w) setPanelOpen(!!view.w)
  if (!view.w) return
  if (!w && builtKey !== view.w) {
    if (missingKey !== view.w) showMissing()
    return
  }
  if (w) {
    lastWorker = w
    lastSeenAt = current.snapshot.now
    if (builtKey !== w.key) {
      buildPanel(w)
      fetchHistory()
    }
  }
  writePanel(lastWorker, !w)
}

// writePanel writes the worker's values. It marks them as old if the data is outdated or the
// worker is gone.
function writePanel(w, gone) {
  const outdated = gone || current.outdated, markOld = v => outdated && v !== DASH ? 'was ' + v : v
  panel.classList.toggle('outdated', outdated)
  html($('w-state'), gone ? `gone: it was ${esc(w.state)} at ${clock(lastSeenAt)}, is no longer registered, and does not answer`
    : `${glyph(w.state)} ` + (outdated ? `was ${esc(w.state)} at ${clock(lastSeenAt)}` : esc(w.state)))
  const values = [describeKV(w), ofTotal(w.slotsActive, w.slotsTotal), num(w.waiting), pct(w.hitRate, 1)]
  values.forEach((v, i) => text($('w-v' + i), markOld(v)))
  text($('w-age'), lastReport(w, (current.snapshot.now - lastSeenAt) / 1000) + (w.age == null ? '' : ' ago'))
  text($('w-hit2'), markOld(pct(w.hitRateTotal, 1)))
  text($('w-anomalies-title'), (workerHistory?.odd.length ? 'Anomalies' : 'No anomalies') + (outdated ? ' at that time' : ''))
  drawRanks(w)
}

// showMissing shows that the URL names a worker which has left, or never existed.
function showMissing() {
  missingKey = view.w
  builtKey = ''
  const {leftOut} = current.snapshot
  panel.innerHTML = `<div class="top"><h2 id="w-title" tabindex="-1">No worker ${esc(view.w.slice(0, 200))} here</h2>${CLOSE}</div>
    <p class="detail">The address of this page names it. It has left, or another instance of this program watches it. If it joins, it is shown here.</p>` +
    (leftOut?.workers ? `<p class="detail">Or it is one of ${num(leftOut.workers)} workers beyond the limit of this page.</p>` : '')
}

function buildPanel(w) {
  builtKey = w.key
  missingKey = ''
  workerHistory = null
  const fact = (name, value) => `<dt>${name}</dt><dd${value.startsWith('<') ? ' class="mono"' : ''}>${value}</dd>`
  const id = s => `<span>${esc(s)}</span> <button class="link" data-copy="${esc(s)}">copy</button>`
  panel.innerHTML = HEADER + '<h3 id="w-anomalies-title" hidden></h3><ul class="anomalies" id="w-anomalies"></ul>' + RANKS_HTML + '<p class="detail" id="w-note" hidden></p>' +
    PLOTS.map(([, name], i) => `<div class="plot-head"><span class="label">${name}${i ? '' : ' · dashed: mean of the endpoint, grey: ± 1 std'}</span><b id="w-v${i}"></b></div><div id="w-p${i}"></div>`).join('') +
    '<h3>Identity</h3><dl class="facts">' + fact('id, decimal', id(w.id)) + (hexID(w) ? fact('id, hexadecimal', id(w.hex)) : '') +
    fact('data-parallel rank', w.dp == null ? DASH : String(w.dp)) + fact('model', esc(w.model || DASH)) + fact('source', esc(w.source ?? DASH)) +
    '<dt>last report</dt><dd id="w-age"></dd><dt>hit rate since the start</dt><dd id="w-hit2"></dd></dl>'
  text($('w-title'), displayID(w) + rankSuffix(w))
  text($('w-endpoint'), endpointName(w))
  const group = newPlotGroup()
  plots = PLOTS.map(([series, name, what], i) => {
    const isLast = i === PLOTS.length - 1
    const p = new Plot($('w-p' + i), {group, name, axis: '<p class="detail" hidden></p>' + (isLast ? AXIS : ''), ...what})
    return [p, series]
  })
}

// fetchHistory requests the history and the anomalies of the open worker, when it is opened
// and with each snapshot: the sentences must agree with the numbers beside them.
export async function fetchHistory() {
  if (!current.byKey.has(builtKey) || requestedKey === builtKey) return
  const key = requestedKey = builtKey, answer = await requestHistory(key)
  if (requestedKey === key) requestedKey = ''
  if (key !== builtKey || !answer) return
  workerHistory = answer
  const {mean, std} = workerHistory.peersKv
  workerHistory.peersMean = mean
  workerHistory.peersLo = mean.map((m, i) => m == null ? null : m - std[i])
  workerHistory.peersHi = mean.map((m, i) => m == null ? null : m + std[i])
  for (const [p, series] of plots) {
    const any = workerHistory[series].some(v => v != null)
    p.el.hidden = !any
    p.el.nextElementSibling.hidden = any
    if (any) p.update(workerHistory, workerHistory.step)
  }
  plots.forEach(([p], i) => text(p.el.nextElementSibling, $('w-v' + i).textContent === DASH ? 'Not reported.' : workerHistory.note ? 'No history.' : 'No history yet.'))
  $('w-note').hidden = !workerHistory.note
  text($('w-note'), workerHistory.note ?? '')
  $('w-anomalies-title').hidden = false
  writePanel(lastWorker, !current.byKey.has(key))
  html($('w-anomalies'), workerHistory.odd.map(o => `<li>${esc(o.text)}${o.check ? `<p>${esc(o.check)}</p>` : ''}</li>`).join(''))
}

// openNeighbour opens the worker that is d rows further in the table's order.
export function openNeighbour(d) {
  const i = current.ordered.findIndex(w => w.key === view.w), w = current.ordered[i + d]
  if (i >= 0 && w) openWorker(w.key)
}

panel.onclick = e => {
  const b = e.target.closest('button')
  if (!b) return
  if (b.dataset.copy) copy(b.dataset.copy, 'id')
  else if (b.dataset.open) openWorker(b.dataset.open)
  else if (b.id === 'w-close') closeWorker()
  else openNeighbour(b.id === 'w-next' ? 1 : -1)
}
