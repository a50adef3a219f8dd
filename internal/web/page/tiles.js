// The bar, and the six tiles: the fleet now and in the last 15 minutes.
import {$, esc, glyph, html, textWithTitle, text} from './dom.js'
import {Plot, newPlotGroup, axisMax, fractionDomain, domainUpTo} from './plot.js'
import {STATES, current} from './state.js'
import {DASH, plural, num, pct, percentagePoints, ratio} from './format.js'
import {endpointName} from './workers.js'

const group = newPlotGroup()
const oneDecimal = x => ratio(x, 1)

// The workers that answer are a line. Below it, the other states are stacked, with a scale of
// their own: five silent workers among a thousand must be visible.
const notAnswering = d => Math.max(...d.upToMalformed)
const notAnsweringMax = d => Math.max(4, axisMax(notAnswering(d)))
const STACKED = [['upToMalformed', 'malformed'], ['upToUnregistered', 'unregistered'], ['silent', 'silent']]

const plots = [
  new Plot($('p-states'), {group, name: 'Workers by state', describe: (d, i) => STATES.filter(s => d[s][i] || s === 'answering').map(s => `${num(d[s][i])} ${s}`).join(', '),
    layers: [
      {className: 'line answering', y: 'answering', steps: true, domain: d => [0, Math.max(1, ...d.all)], strip: [4, 22], main: true, format: num,
        lowLabel: d => notAnswering(d) ? '0' : '', midLabel: d => notAnswering(d) ? num(notAnsweringMax(d)) : ''},
      ...STACKED.map(([y, state]) => ({className: 'fill ' + state, y, steps: true, domain: d => [0, notAnsweringMax(d)], strip: [32, 59]})),
    ]}),
  new Plot($('p-load'), {group, name: 'Mean load', describe: (d, i) => d.loadMean[i] == null ? DASH : `mean ${pct(d.loadMean[i])} ± ${percentagePoints(d.loadStd[i])}, ${pct(d.loadMin[i])} to ${pct(d.loadMax[i])}`,
    layers: [
      {className: 'range', lo: 'loadMin', hi: 'loadMax', domain: fractionDomain},
      {className: 'deviation', lo: 'below', hi: 'above', domain: fractionDomain},
      {className: 'line', y: 'loadMean', domain: fractionDomain, main: true, format: pct},
    ]}),
  new Plot($('p-imb'), {group, name: 'Imbalance', describe: (d, i) => ratio(d.imbalance[i]), layers: [
    {className: 'line', y: 'imbalance', domain: d => [1, Math.max(2, Math.ceil(Math.max(...d.imbalance) * 2) / 2)], main: true, format: oneDecimal}]}),
  new Plot($('p-hit'), {group, name: 'KV hit rate', describe: (d, i) => pct(d.hitRate[i], 1), layers: [{className: 'line', y: 'hitRate', domain: fractionDomain, main: true, format: pct}]}),
  new Plot($('p-wait'), {group, name: 'Requests waiting', describe: (d, i) => num(d.waiting[i]), layers: [
    {className: 'area', y: 'waiting', domain: domainUpTo('waiting')}, {className: 'line', y: 'waiting', domain: domainUpTo('waiting'), main: true, format: num}]}),
  new Plot($('p-ev'), {group, name: 'Events per second', describe: (d, i) => `${num(d.events[i])} a second`, layers: [
    {className: 'area', y: 'events', domain: domainUpTo('events')}, {className: 'line', y: 'events', domain: domainUpTo('events'), main: true, format: num}]}),
]

html($('states'), STATES.map(s => `<button data-state="${s}">${glyph(s)}<span></span></button>`).join(''))

const total = f => STATES.reduce((n, s) => n + f.states[s], 0)

export function drawBar() {
  const {namespace, connected, leader, fleet} = current.snapshot
  textWithTitle($('ns'), namespace)
  // ZeroMQ has many connections, which are seldom all lost. The detail has their number.
  const connectionText = (system, c) => c.on ? '<span class="sr"> connected</span>' : system === 'zmq' && c.detail ? ' ' + esc(c.detail) : c.refused ? ' denied' : c.lost === false ? ' not connected' : ' lost'
  html($('conns'), Object.entries(connected).map(([system, c]) => `<li class="${c.on ? 'on' : 'off'}" title="${esc(c.detail ?? '')}">` +
    `<i aria-hidden="true"></i>${esc(system)}${connectionText(system, c)}</li>`).join(''))
  html($('role'), `${esc(leader.role)}<small>${esc(leader.detail ?? '')}</small>`)
  $('role').title = leader.role + (leader.detail ? ': ' + leader.detail : '')
  document.title = (!current.outdated ? `${num(fleet.states.answering)}/${num(total(fleet))} ` : '') + `${namespace} · metrics`
}

export function drawTiles() {
  const {fleet: f, endpoints} = current.snapshot
  text($('n-workers'), num(total(f)))
  for (const b of $('states').children) {
    const n = f.states[b.dataset.state]
    text(b.lastChild, `${num(n)} ${b.dataset.state}`)
    b.className = n ? '' : 'zero'
  }
  html($('n-load'), f.loadMean == null ? DASH : `${pct(f.loadMean)} <small>± ${(f.loadStd * 100).toFixed(1)}</small>`)
  textWithTitle($('s-load'), f.blocksMean == null ? 'no load reported' : `${num(f.blocksMean)} ± ${num(f.blocksStd)} blocks · ${pct(f.loadMin)} to ${pct(f.loadMax)}`)
  text($('n-imb'), ratio(f.imbalance))
  const worst = endpoints.reduce((a, e) => (e.imbalance ?? 0) > (a?.imbalance ?? 0) ? e : a, null)
  textWithTitle($('s-imb'), worst ? (endpoints.length > 1 ? 'worst: ' : '') + endpointName(worst) : 'no load reported')
  text($('n-hit'), pct(f.hitRate, 1))
  textWithTitle($('s-hit'), f.hitRateTotal == null ? 'no hit-rate events yet' : `${pct(f.hitRateTotal, 1)} since the start`)
  text($('n-wait'), num(f.waiting))
  textWithTitle($('s-wait'), f.waiting == null ? 'not reported' : (f.waitingWorkers ? `in ${plural(f.waitingWorkers, 'worker')}` : 'none waiting') +
    (f.waitingReported < f.states.answering ? ` · of ${num(f.waitingReported)} that report` : ''))
  html($('n-ev'), `${num(f.eventsPerSecond)} <small>/s</small>`)
  textWithTitle($('s-ev'), f.gaps || f.drops ? `${plural(f.gaps, 'gap')} · ${plural(f.drops, 'drop')}` : 'no gaps, no drops')
}

let drawnHistory
export function drawHistory() {
  const h = current.snapshot.history
  if (!h || h === drawnHistory) return
  drawnHistory = h
  h.below = h.loadMean.map((m, i) => m == null ? null : Math.max(h.loadMin[i], m - h.loadStd[i]))
  h.above = h.loadMean.map((m, i) => m == null ? null : Math.min(h.loadMax[i], m + h.loadStd[i]))
  h.upToUnregistered = h.silent.map((n, i) => n + h.unregistered[i])
  h.upToMalformed = h.upToUnregistered.map((n, i) => n + h.malformed[i])
  h.all = h.upToMalformed.map((n, i) => n + h.answering[i])
  for (const p of plots) p.update(h, h.step)
}
