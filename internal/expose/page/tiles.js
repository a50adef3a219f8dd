// The bar's facts, and the six tiles: the fleet now, and in the last 15 minutes.
import {$, esc, glyph, html, short, text} from './dom.js'
import {Plot, newSet, round, unit, upTo} from './plot.js'
import {STATES, now} from './state.js'
import {DASH, many, num, pct, points, times} from './format.js'
import {endpointOf} from './workers.js'

const set = newSet()
const fraction = x => times(x, 1)

// The answering are a line, and below it the others lie on one another, at a scale of
// their own: five silent among a thousand must be seen.
const trouble = d => Math.max(...d.upToMalformed)
const troubleTop = d => Math.max(4, round(trouble(d)))
const stacked = [['upToMalformed', 'malformed'], ['upToUnregistered', 'unregistered'], ['silent', 'silent']]

const plots = [
  new Plot($('p-states'), {set, name: 'Workers by state', say: (d, i) => STATES.filter(s => d[s][i] || s === 'answering').map(s => `${num(d[s][i])} ${s}`).join(', '),
    layers: [
      {cls: 'line answering', y: 'answering', steps: true, dom: d => [0, Math.max(1, ...d.all)], part: [4, 22], main: true, fmt: num,
        lo2: d => trouble(d) ? '0' : '', mid: d => trouble(d) ? num(troubleTop(d)) : ''},
      ...stacked.map(([y, state]) => ({cls: 'fill ' + state, y, steps: true, dom: d => [0, troubleTop(d)], part: [32, 59]})),
    ]}),
  new Plot($('p-load'), {set, name: 'Mean load', say: (d, i) => d.loadMean[i] == null ? DASH : `mean ${pct(d.loadMean[i])} ± ${points(d.loadStd[i])}, ${pct(d.loadMin[i])} to ${pct(d.loadMax[i])}`,
    layers: [
      {cls: 'b1', lo: 'loadMin', hi: 'loadMax', dom: unit},
      {cls: 'b2', lo: 'below', hi: 'above', dom: unit},
      {cls: 'line', y: 'loadMean', dom: unit, main: true, fmt: pct},
    ]}),
  new Plot($('p-imb'), {set, name: 'Imbalance', say: (d, i) => times(d.imbalance[i]), layers: [
    {cls: 'line', y: 'imbalance', dom: d => [1, Math.max(2, Math.ceil(Math.max(...d.imbalance) * 2) / 2)], main: true, fmt: fraction}]}),
  new Plot($('p-hit'), {set, name: 'KV hit rate', say: (d, i) => pct(d.hitRate[i], 1), layers: [{cls: 'line', y: 'hitRate', dom: unit, main: true, fmt: pct}]}),
  new Plot($('p-wait'), {set, name: 'Requests waiting', say: (d, i) => num(d.waiting[i]), layers: [
    {cls: 'area', y: 'waiting', dom: upTo('waiting')}, {cls: 'line', y: 'waiting', dom: upTo('waiting'), main: true, fmt: num}]}),
  new Plot($('p-ev'), {set, name: 'Events per second', say: (d, i) => `${num(d.events[i])} a second`, layers: [
    {cls: 'area', y: 'events', dom: upTo('events')}, {cls: 'line', y: 'events', dom: upTo('events'), main: true, fmt: num}]}),
]

html($('states'), STATES.map(s => `<button data-state="${s}">${glyph(s)}<span></span></button>`).join(''))

const total = f => STATES.reduce((n, s) => n + f.states[s], 0)

export function bar() {
  const {namespace, connected, leader, fleet} = now.snap
  short($('ns'), namespace)
  // Of ZeroMQ there are many connections, and seldom are all of them lost.
  const says = (system, c) => c.on ? '<span class="sr"> connected</span>' : system === 'zmq' && c.detail ? ' ' + esc(c.detail) : c.refused ? ' denied' : c.lost === false ? ' not connected' : ' lost'
  html($('conns'), Object.entries(connected).map(([system, c]) => `<li class="${c.on ? 'on' : 'off'}" title="${esc(c.detail ?? '')}">` +
    `<i aria-hidden="true"></i>${esc(system)}${says(system, c)}</li>`).join(''))
  html($('role'), `${esc(leader.role)}<small>${esc(leader.detail ?? '')}</small>`)
  $('role').title = leader.role + (leader.detail ? ': ' + leader.detail : '')
  document.title = (!now.old ? `${num(fleet.states.answering)}/${num(total(fleet))} ` : '') + `${namespace} · metrics`
}

export function tiles() {
  const {fleet: f, endpoints} = now.snap
  text($('n-workers'), num(total(f)))
  for (const b of $('states').children) {
    const n = f.states[b.dataset.state]
    text(b.lastChild, `${num(n)} ${b.dataset.state}`)
    b.className = n ? '' : 'zero'
  }
  html($('n-load'), f.loadMean == null ? DASH : `${pct(f.loadMean)} <small>± ${(f.loadStd * 100).toFixed(1)}</small>`)
  short($('s-load'), f.blocksMean == null ? 'no load known' : `${num(f.blocksMean)} ± ${num(f.blocksStd)} blocks · ${pct(f.loadMin)} to ${pct(f.loadMax)}`)
  text($('n-imb'), times(f.imbalance))
  const worst = endpoints.reduce((a, e) => (e.imbalance ?? 0) > (a?.imbalance ?? 0) ? e : a, null)
  short($('s-imb'), worst ? (endpoints.length > 1 ? 'worst: ' : '') + endpointOf(worst) : 'no load known')
  text($('n-hit'), pct(f.hitRate, 1))
  short($('s-hit'), f.hitRateTotal == null ? 'no hit-rate events yet' : `${pct(f.hitRateTotal, 1)} since the start`)
  text($('n-wait'), num(f.waiting))
  short($('s-wait'), f.waiting == null ? 'not reported' : (f.waitingWorkers ? `in ${many(f.waitingWorkers, 'worker')}` : 'none waits') +
    (f.waitingReported < f.states.answering ? ` · of ${num(f.waitingReported)} that report` : ''))
  html($('n-ev'), `${num(f.eventsPerSecond)} <small>/s</small>`)
  short($('s-ev'), f.gaps || f.drops ? `${many(f.gaps, 'gap')} · ${many(f.drops, 'drop')}` : 'no gaps, no drops')
}

let drawn
export function overview() {
  const h = now.snap.history
  if (!h || h === drawn) return
  drawn = h
  h.below = h.loadMean.map((m, i) => m == null ? null : Math.max(h.loadMin[i], m - h.loadStd[i]))
  h.above = h.loadMean.map((m, i) => m == null ? null : Math.min(h.loadMax[i], m + h.loadStd[i]))
  h.upToUnregistered = h.silent.map((n, i) => n + h.unregistered[i])
  h.upToMalformed = h.upToUnregistered.map((n, i) => n + h.malformed[i])
  h.all = h.upToMalformed.map((n, i) => n + h.answering[i])
  for (const p of plots) p.update(h, h.step)
}
