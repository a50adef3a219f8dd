// What the person chose. All of it is in the address, so that a view can be sent to
// somebody else.
const FRESH = {
  q: '', namespace: '', component: '', endpoint: '', state: '', source: '', problem: '',
  by: 'kv', order: 'id', group: 'endpoint', sort: 'state', dir: 'desc', page: '0', w: '',
}

// Whatever else an address may say is what nobody has chosen.
const ALLOWED = {
  by: /^(kv|slots|hit)$/,
  order: /^(id|kv|waiting|hit|age|state)$/,
  group: /^(endpoint|component|state|source|model|none)$/,
  sort: /^(state|id|endpoint|source|kv|slots|waiting|hit|hit2|age)$/,
  dir: /^(asc|desc)$/,
  page: /^\d{1,6}$/,
}

export const FILTERS = ['namespace', 'component', 'endpoint', 'state', 'source']

export const view = {}
read()

export function read() {
  const said = new URLSearchParams(location.hash.slice(1))
  for (const k in FRESH) {
    const v = said.get(k)
    view[k] = v && (!ALLOWED[k] || ALLOWED[k].test(v)) ? v : FRESH[k]
  }
}

function address() {
  const said = new URLSearchParams(Object.entries(view).filter(([k, v]) => v !== FRESH[k]))
  return location.pathname + location.search + (said.size ? '#' + said : '')
}

export function remember() {
  if (!leaving) history.replaceState(history.state, '', address())
}

// An open worker is one step in the browser's history, whichever one after the other it
// is: Back closes it, and Forward opens it again.
let leaving = false // on the way back, and not there yet

export function enter(key) {
  const another = view.w || leaving
  view.w = key
  if (another) remember()
  else history.pushState({worker: true}, '', address())
}

export function leave() {
  view.w = ''
  if (leaving || !history.state?.worker) return remember()
  leaving = true
  history.back()
}

addEventListener('popstate', () => {
  if (!leaving) return
  leaving = false
  remember() // what was chosen while the worker was open
})

export function reset() {
  for (const k of [...FILTERS, 'q', 'problem', 'page']) view[k] = FRESH[k]
}
