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

export function remember() {
  const said = new URLSearchParams(Object.entries(view).filter(([k, v]) => v !== FRESH[k]))
  history.replaceState(null, '', location.pathname + location.search + (said.size ? '#' + said : ''))
}

export function reset() {
  for (const k of [...FILTERS, 'q', 'problem', 'page']) view[k] = FRESH[k]
}
