// What can be said of a worker. Each is one row and one cell: a worker at an endpoint,
// or one of its data-parallel ranks.
import {now} from './state.js'
import {DASH, pair, pct, span} from './format.js'

const part = (active, total) => active == null || !total ? null : active / total
export const use = w => w.kvUse
export const slots = w => part(w.slotsActive, w.slotsTotal)
export const endpointOf = w => `${w.namespace ? w.namespace + '/' : ''}${w.component}/${w.endpoint}`

// A static worker has a name for an id, and no hexadecimal form of it.
export const hexOf = w => w.hex === w.id ? '' : w.hex ?? ''
export const idOf = w => w.hex || w.id
export const tail = (w, digits = 4) => '…' + idOf(w).slice(-digits)
export const rank = w => w.dp == null ? '' : ` rank ${w.dp}`

// blocks is KV use in blocks and as a fraction, as far as either is known.
export function blocks(w) {
  const u = use(w), known = [w.kvActive != null && pair(w.kvActive, w.kvTotal), u != null && pct(u)].filter(Boolean)
  return known.join(' · ') || DASH
}

// reported is how long ago it last said something: by now, however old what is shown is.
export const reported = (w, more = 0) => w.age == null ? 'never' : span(w.age + now.behind + more)

// count is of workers: the ranks of one are one.
export const count = list => new Set(list.map(w => w.id)).size

export function describe(w) {
  const u = use(w)
  return `${endpointOf(w)} ${idOf(w)}${rank(w)}, ${w.state}, KV ${u == null ? 'not reported' : pct(u)}` +
    (w.slotsActive == null ? '' : `, slots ${w.slotsActive} of ${w.slotsTotal}`) +
    (w.hitRate == null ? '' : `, hit rate ${pct(w.hitRate)}`) + (w.waiting ? `, ${w.waiting} waiting` : '')
}

const TROUBLE = {malformed: 3, silent: 2, unregistered: 1, answering: 0}

// What workers are ordered and coloured by.
export const value = {
  kv: use,
  slots,
  waiting: w => w.waiting,
  hit: w => w.hitRate,
  hit2: w => w.hitRateTotal,
  age: w => w.state === 'silent' && w.age == null ? Infinity : w.age,
  state: w => TROUBLE[w.state] * 2 + (use(w) ?? 0),
  endpoint: endpointOf,
  source: w => w.source,
}

// sorted puts unknown values last, and ties in the order of the ids, which lists have
// before: rows do not dance.
export function sorted(list, by, dir) {
  if (by === 'id') return dir === 'asc' ? list : list.slice().reverse()
  const of = value[by], sign = dir === 'asc' ? 1 : -1
  return list.map(w => [of(w), w]).sort(([x], [y]) => {
    if (x === y) return 0
    if (x == null) return y == null ? 0 : 1
    if (y == null) return -1
    return x < y ? -sign : sign
  }).map(([, w]) => w)
}

const text = (a, b) => a < b ? -1 : a > b ? 1 : 0
const byId = (a, b) => a.id.length - b.id.length || text(a.id, b.id) || (a.dp ?? 0) - (b.dp ?? 0) || text(a.key, b.key)

// inOrder are the workers in the order of their ids. That is worked out once for each set
// of workers: ids are as wide as 64 bits, and dear to compare.
export function inOrder(workers) {
  if (keys.length !== workers.length || workers.some((w, i) => w.key !== keys[i])) {
    keys = workers.map(w => w.key)
    order = keys.map((_, i) => i).sort((i, j) => byId(workers[i], workers[j]))
  }
  return order.map(i => workers[i])
}
let keys = [], order = []
