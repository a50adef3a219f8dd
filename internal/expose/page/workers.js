// What can be said of a worker. Each is one row and one cell: a worker at an endpoint,
// or one of its data-parallel ranks.
import {current} from './state.js'
import {DASH, ofTotal, pct, duration} from './format.js'

const fraction = (active, total) => active == null || !total ? null : active / total
export const kvUse = w => w.kvUse
export const slotUse = w => fraction(w.slotsActive, w.slotsTotal)
export const endpointName = w => `${w.namespace ? w.namespace + '/' : ''}${w.component}/${w.endpoint}`

// A static worker has a name for an id, and no hexadecimal form of it.
export const hexID = w => w.hex === w.id ? '' : w.hex ?? ''
export const displayID = w => w.hex || w.id
export const shortID = (w, digits = 4) => '…' + displayID(w).slice(-digits)
export const rankSuffix = w => w.dp == null ? '' : ` rank ${w.dp}`

// blocks is KV use in blocks and as a fraction, as far as either is known.
export function describeKV(w) {
  const u = kvUse(w), known = [w.kvActive != null && ofTotal(w.kvActive, w.kvTotal), u != null && pct(u)].filter(Boolean)
  return known.join(' · ') || DASH
}

// reported is how long ago it last said something: by now, however old what is shown is.
export const lastReport = (w, extra = 0) => w.age == null ? 'never' : duration(w.age + current.lag + extra)

// count is of workers: the ranks of one are one.
export const countWorkers = list => new Set(list.map(w => w.id)).size

export function describe(w) {
  const u = kvUse(w)
  return `${endpointName(w)} ${displayID(w)}${rankSuffix(w)}, ${w.state}, KV ${u == null ? 'not reported' : pct(u)}` +
    (w.slotsActive == null ? '' : `, slots ${w.slotsActive} of ${w.slotsTotal}`) +
    (w.hitRate == null ? '' : `, hit rate ${pct(w.hitRate)}`) + (w.waiting ? `, ${w.waiting} waiting` : '')
}

const STATE_ORDER = {malformed: 3, silent: 2, unregistered: 1, answering: 0}

// What workers are ordered and coloured by.
export const SORT_VALUES = {
  kv: kvUse,
  slots: slotUse,
  waiting: w => w.waiting,
  hit: w => w.hitRate,
  hit2: w => w.hitRateTotal,
  age: w => w.state === 'silent' && w.age == null ? Infinity : w.age,
  state: w => STATE_ORDER[w.state] * 2 + (kvUse(w) ?? 0),
  endpoint: endpointName,
  source: w => w.source,
}

// sorted puts unknown values last, and ties in the order of the ids, which lists have
// before: rows do not dance.
export function sorted(list, by, dir) {
  if (by === 'id') return dir === 'asc' ? list : list.slice().reverse()
  const of = SORT_VALUES[by], sign = dir === 'asc' ? 1 : -1
  return list.map(w => [of(w), w]).sort(([x], [y]) => {
    if (x === y) return 0
    if (x == null) return y == null ? 0 : 1
    if (y == null) return -1
    return x < y ? -sign : sign
  }).map(([, w]) => w)
}

const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0
const compareIDs = (a, b) => a.id.length - b.id.length || compare(a.id, b.id) || (a.dp ?? 0) - (b.dp ?? 0) || compare(a.key, b.key)

// inOrder are the workers in the order of their ids. That is worked out once for each set
// of workers: ids are as wide as 64 bits, and dear to compare.
export function sortedByID(workers) {
  if (lastKeys.length !== workers.length || workers.some((w, i) => w.key !== lastKeys[i])) {
    lastKeys = workers.map(w => w.key)
    lastOrder = lastKeys.map((_, i) => i).sort((i, j) => compareIDs(workers[i], workers[j]))
  }
  return lastOrder.map(i => workers[i])
}
let lastKeys = [], lastOrder = []
