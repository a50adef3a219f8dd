// One set of filters rules the heat map and the table.
import {$, esc, html, text} from './dom.js'
import {STATES, draw, now} from './state.js'
import {many, num} from './words.js'
import {FILTERS, read, remember, reset, view} from './view.js'
import {count, endpointOf} from './workers.js'

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
    select.value = view[k]
    if (k === 'namespace') select.parentNode.hidden = !values[i].length
  })
}

export function filter() {
  options()
  const {workers, problems} = now.snap, q = view.q.trim().toLowerCase()
  const problem = view.problem && problems.find(p => p.id === view.problem), among = problem && new Set(problem.workers)
  const chosen = FILTERS.filter(k => view[k])
  now.shown = workers.filter(w => chosen.every(k => w[k] === view[k]) && (!among || among.has(w.key)) && (!q || says(w, q)))
  const any = q || chosen.length || among
  text($('shown'), any ? `${num(count(now.shown))} of ${many(count(workers), 'worker')} shown${problem ? ': ' + problem.title : ''}` : '')
  $('clear').disabled = !any
  $('nomatch').hidden = now.shown.length > 0
}

const says = (w, q) => w.id.toLowerCase().includes(q) || !!w.hex?.includes(q) || endpointOf(w).toLowerCase().includes(q) || !!w.model?.toLowerCase().includes(q)

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
