// The filters, which apply to both the heat map and the table.
import {$, esc, html, announce, text} from './dom.js'
import {STATES, draw, current} from './state.js'
import {plural, num} from './format.js'
import {FILTERS, readView, saveView, resetFilters, view} from './view.js'
import {countWorkers, endpointName, hexID, rankSuffix} from './workers.js'

const CHOICES = ['by', 'order', 'group']
let offered = ''

// updateOptions fills the selects with the values that the fleet has.
function updateOptions() {
  const {endpoints, workers} = current.snapshot
  const choices = {namespace: new Set, component: new Set, endpoint: new Set, state: new Set(STATES), source: new Set}
  for (const e of endpoints) {
    if (e.namespace) choices.namespace.add(e.namespace)
    choices.component.add(e.component)
    if (!view.component || view.component === e.component) choices.endpoint.add(e.endpoint)
  }
  for (const w of workers) if (w.source) choices.source.add(w.source)
  for (const k of FILTERS) if (view[k]) choices[k].add(view[k]) // a chosen value stays even if no worker has it now
  const values = FILTERS.map(k => [...choices[k]].sort()), key = JSON.stringify([values, FILTERS.map(k => view[k])])
  if (key === offered) return
  offered = key
  FILTERS.forEach((k, i) => {
    const select = $('f-' + k)
    html(select, '<option value="">all</option>' + values[i].map(v => `<option>${esc(v)}</option>`).join(''))
    select.value = select.title = view[k]
    if (k === 'namespace') select.parentNode.hidden = !values[i].length
  })
}

export function applyFilters() {
  updateOptions()
  const {workers, problems} = current.snapshot, terms = searchTerms(view.q)
  const problem = view.problem && problems.find(p => p.id === view.problem), among = problem && new Set(problem.workers)
  const chosen = FILTERS.filter(k => view[k])
  current.shown = workers.filter(w => chosen.every(k => w[k] === view[k]) && (!among || among.has(w.key)) && (!terms.length || matches(w, terms)))
  const any = terms.length || chosen.length || view.problem
  const countText = any ? `${num(countWorkers(current.shown))} of ${plural(countWorkers(workers), 'worker')} shown` : ''
  text($('shown'), countText + (problem ? ': ' + problem.title : view.problem ? ': their problem has ended' : ''))
  announceCount(JSON.stringify([terms, FILTERS.map(k => view[k]), view.problem]), countText || 'All workers shown')
  $('clear').disabled = !any
  $('no-match').hidden = current.shown.length > 0
  text($('no-match'), any ? 'No worker matches these filters.' : 'There is no worker now.')
}

// announceCount announces how many workers are shown, but only after the filters have
// changed: the number, and the title of a problem, may change each second.
let announcedChoice = null
function announceCount(choice, countText) {
  if (announcedChoice !== null && announcedChoice !== choice) announce(countText, 'filter')
  announcedChoice = choice
}

// searchTerms splits a query. A worker matches if it has every term: a part of a name, or
// of its id in decimal or hexadecimal. Leading zeros of a hexadecimal id are ignored.
const searchTerms = q => q.toLowerCase().split(/\s+/).filter(Boolean).map(term => term.replace(/^0x0+(?=.)/, '0x'))

function matches(w, terms) {
  const hex = hexID(w), searched = `${w.id} ${hex && `${hex} 0x${hex}`} ${endpointName(w)} ${w.model ?? ''}${rankSuffix(w)}`.toLowerCase()
  return terms.every(term => searched.includes(term))
}

// viewChanged must be called after each change of the view.
export function viewChanged() {
  saveView()
  updateFields()
  notifyChange()
  draw()
}

let notifyChange = () => {}
export const onChange = f => { notifyChange = f }

function updateFields() {
  for (const k of ['q', ...CHOICES]) $('f-' + k).value = view[k]
  for (const k of ['q', ...FILTERS]) $('f-' + k).parentNode.classList.toggle('active', !!view[k])
  for (const k of FILTERS) $('f-' + k).title = view[k]
}

// showOnly replaces all filters with these values.
export function showOnly(values) {
  resetFilters()
  Object.assign(view, values)
  viewChanged()
}

for (const k of ['q', ...FILTERS, ...CHOICES]) {
  $('f-' + k).addEventListener('input', e => {
    view[k] = e.target.value
    if (k === 'component') view.endpoint = ''
    view.page = '0'
    viewChanged()
  })
}
$('filters').onsubmit = e => e.preventDefault()
$('clear').onclick = () => {
  showOnly({})
  $('f-q').focus()
}
// The address was edited, or the browser went back.
addEventListener('hashchange', () => {
  readView()
  viewChanged()
})
updateFields()
