// The view: filters, order and the open worker. All of it is in the URL's fragment, so that
// a link shows the same view to other people.
const DEFAULTS = {
  q: '', namespace: '', component: '', endpoint: '', state: '', source: '', problem: '',
  by: 'kv', order: 'id', group: 'endpoint', sort: 'state', dir: 'desc', page: '0', w: '',
}

// A parameter with any other value is ignored.
const VALID = {
  by: /^(kv|slots|hit)$/,
  order: /^(id|kv|waiting|hit|age|state)$/,
  group: /^(endpoint|component|state|source|model|none)$/,
  sort: /^(state|id|endpoint|source|kv|slots|waiting|hit|hit2|age)$/,
  dir: /^(asc|desc)$/,
  page: /^\d{1,6}$/,
}

export const FILTERS = ['namespace', 'component', 'endpoint', 'state', 'source']

export const view = {}
readView()

export function readView() {
  const params = new URLSearchParams(location.hash.slice(1))
  for (const k in DEFAULTS) {
    const v = params.get(k)
    view[k] = v && (!VALID[k] || VALID[k].test(v)) ? v : DEFAULTS[k]
  }
}

function viewURL() {
  const params = new URLSearchParams(Object.entries(view).filter(([k, v]) => v !== DEFAULTS[k]))
  return location.pathname + location.search + (params.size ? '#' + params : '')
}

export function saveView() {
  if (!goingBack) history.replaceState(history.state, '', viewURL())
}

// An open worker is one entry of the browser's history, even if several are opened one after
// the other: Back closes the worker, and Forward opens it again.
let goingBack = false // history.back() was called, but popstate has not fired yet

export function openInView(key) {
  const isOpen = view.w || goingBack
  view.w = key
  if (isOpen) saveView()
  else history.pushState({worker: true}, '', viewURL())
}

export function closeInView() {
  view.w = ''
  if (goingBack || !history.state?.worker) return saveView()
  goingBack = true
  history.back()
}

addEventListener('popstate', () => {
  if (!goingBack) return
  goingBack = false
  saveView() // keeps what was changed while the worker was open
})

export function resetFilters() {
  for (const k of [...FILTERS, 'q', 'problem', 'page']) view[k] = DEFAULTS[k]
}
