// One set of filters rules the heat map and the table.
import {$, esc, html, announce, text} from './dom.js'
import {STATES, draw, current} from './state.js'
import {plural, num} from './format.js'
import {FILTERS, readView, saveView, resetFilters, view} from './view.js'
import {countWorkers, endpointName, hexID, rankSuffix} from './workers.js'

const CHOICES = ['by', 'order', 'group']
let offered = ''

// options offers what there is to filter by.
function updateOptions() {
  const {endpoints, workers} = current.snapshot
  const choices = {namespace: new Set, component: new Set, endpoint: new Set, state: new Set(STATES), source: new Set}
  for (const e of endpoints) {
    if (e.namespace) choices.namespace.add(e.namespace)
    choices.component.add(e.component)
    if (!view.component || view.component === e.component) choices.endpoint.add(e.endpoint)
  }
  for (const w of workers) if (w.source) choices.source.add(w.source)
  for (const k of FILTERS) if (view[k]) choices[k].add(view[k]) // what was chosen stays chosen while there is none
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
  text($('shown'), countText + (problem ? ': ' + problem.title : view.problem ? ': their problem is over' : ''))
  announceCount(JSON.stringify([terms, FILTERS.map(k => view[k]), view.problem]), countText || 'All workers shown')
  $('clear').disabled = !any
  $('no-match').hidden = current.shown.length > 0
  text($('no-match'), any ? 'No worker matches these filters.' : 'There is no worker now.')
}

// Only who has chosen something is told how many there are of it: their number may change
// each second, and so may the words of their problem.
let announcedChoice = null
function announceCount(choice, countText) {
  if (announcedChoice !== null && announcedChoice !== choice) announce(countText, 'filter')
  announcedChoice = choice
}

// A worker is found where it says every word: parts of names, or of an id in either form.
// In hexadecimal, leading zeros are no digits.
const searchTerms = q => q.toLowerCase().split(/\s+/).filter(Boolean).map(word => word.replace(/^0x0+(?=.)/, '0x'))

function matches(w, terms) {
  const hex = hexID(w), searched = `${w.id} ${hex && `${hex} 0x${hex}`} ${endpointName(w)} ${w.model ?? ''}${rankSuffix(w)}`.toLowerCase()
  return terms.every(word => searched.includes(word))
}

// changed is for whoever has changed the view.
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

// only shows what fits these values, and nothing else was chosen.
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
// Somebody has edited the address, or goes back.
addEventListener('hashchange', () => {
  readView()
  viewChanged()
})
updateFields()
