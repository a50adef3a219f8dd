// One set of filters rules the heat map and the table.
import {$, esc, html, say, text} from './dom.js'
import {STATES, draw, now} from './state.js'
import {many, num} from './format.js'
import {FILTERS, read, remember, reset, view} from './view.js'
import {count, endpointOf, hexOf, rank} from './workers.js'

const CHOICES = ['by', 'order', 'group']
let offered = ''

// options offers what there is to filter by.
function options() {
  const {endpoints, workers} = now.snap
  const of = {namespace: new Set, component: new Set, endpoint: new Set, state: new Set(STATES), source: new Set}
  for (const e of endpoints) {
    if (e.namespace) of.namespace.add(e.namespace)
    of.component.add(e.component)
    if (!view.component || view.component === e.component) of.endpoint.add(e.endpoint)
  }
  for (const w of workers) if (w.source) of.source.add(w.source)
  for (const k of FILTERS) if (view[k]) of[k].add(view[k]) // what was chosen stays chosen while there is none
  const values = FILTERS.map(k => [...of[k]].sort()), key = JSON.stringify([values, FILTERS.map(k => view[k])])
  if (key === offered) return
  offered = key
  FILTERS.forEach((k, i) => {
    const select = $('f-' + k)
    html(select, '<option value="">all</option>' + values[i].map(v => `<option>${esc(v)}</option>`).join(''))
    select.value = select.title = view[k]
    if (k === 'namespace') select.parentNode.hidden = !values[i].length
  })
}

export function filter() {
  options()
  const {workers, problems} = now.snap, words = wordsOf(view.q)
  const problem = view.problem && problems.find(p => p.id === view.problem), among = problem && new Set(problem.workers)
  const chosen = FILTERS.filter(k => view[k])
  now.shown = workers.filter(w => chosen.every(k => w[k] === view[k]) && (!among || among.has(w.key)) && (!words.length || says(w, words)))
  const any = words.length || chosen.length || view.problem
  const few = any ? `${num(count(now.shown))} of ${many(count(workers), 'worker')} shown` : ''
  text($('shown'), few + (problem ? ': ' + problem.title : view.problem ? ': their problem is over' : ''))
  tell(JSON.stringify([words, FILTERS.map(k => view[k]), view.problem]), few || 'All workers shown')
  $('clear').disabled = !any
  $('nomatch').hidden = now.shown.length > 0
  text($('nomatch'), any ? 'No worker matches these filters.' : 'There is no worker now.')
}

// Only who has chosen something is told how many there are of it: their number may change
// each second, and so may the words of their problem.
let told = null
function tell(choice, few) {
  if (told !== null && told !== choice) say(few, 'filter')
  told = choice
}

// A worker is found where it says every word: parts of names, or of an id in either form.
// In hexadecimal, leading zeros are no digits.
const wordsOf = q => q.toLowerCase().split(/\s+/).filter(Boolean).map(word => word.replace(/^0x0+(?=.)/, '0x'))

function says(w, words) {
  const hex = hexOf(w), said = `${w.id} ${hex && `${hex} 0x${hex}`} ${endpointOf(w)} ${w.model ?? ''}${rank(w)}`.toLowerCase()
  return words.every(word => said.includes(word))
}

// changed is for whoever has changed the view.
export function changed() {
  remember()
  fields()
  released()
  draw()
}

let released = () => {}
export const onChange = f => { released = f }

function fields() {
  for (const k of ['q', ...CHOICES]) $('f-' + k).value = view[k]
  for (const k of ['q', ...FILTERS]) $('f-' + k).parentNode.classList.toggle('set', !!view[k])
  for (const k of FILTERS) $('f-' + k).title = view[k]
}

// only shows what fits these values, and nothing else was chosen.
export function only(values) {
  reset()
  Object.assign(view, values)
  changed()
}

for (const k of ['q', ...FILTERS, ...CHOICES]) {
  $('f-' + k).addEventListener('input', e => {
    view[k] = e.target.value
    if (k === 'component') view.endpoint = ''
    view.page = '0'
    changed()
  })
}
$('filters').onsubmit = e => e.preventDefault()
$('clear').onclick = () => {
  only({})
  $('f-q').focus()
}
// Somebody has edited the address, or goes back.
addEventListener('hashchange', () => {
  read()
  changed()
})
fields()
