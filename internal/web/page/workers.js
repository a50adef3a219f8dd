// Functions about workers. A worker here is an attachment (a worker at one endpoint) or one of
// its data-parallel ranks; each has one row and one cell.
import {current} from './state.js'
import {DASH, ofTotal, pct, duration} from './format.js'

const fraction = (active, total) => active == null || !total ? null : active / total
export const kvUse = w => w.kvUse
export const slotUse = w => fraction(w.slotsActive, w.slotsTotal)
export const endpointName = w => `${w.namespace ? w.namespace + '/' : ''}${w.component}/${w.endpoint}`

// The id of a static worker is a name, which has no hexadecimal form.
export const hexID = w => w.hex === w.id ? '' : w.hex ?? ''
export const displayID = w => w.hex || w.id
export const shortID = (w, digits = 4) => '…' + displayID(w).slice(-digits)
export const rankSuffix = w => w.dp == null ? '' : ` rank ${w.dp}`

// describeKV writes KV use in blocks and as a percentage, if they are known.
export function describeKV(w) {
  const u = kvUse(w), known = [w.kvActive != null && ofTotal(w.kvActive, w.kvTotal), u != null && pct(u)].filter(Boolean)
  return known.join(' · ') || DASH
}

// lastReport writes how long ago a worker last reported, counted up to now even if the
// snapshot is older.
export const lastReport = (w, extra = 0) => w.age == null ? 'never' : duration(w.age + current.lag + extra)

// countWorkers counts the ranks of a worker as one.
export const countWorkers = list => new Set(list.map(w => w.id)).size

export function describe(w) {
  const u = kvUse(w)
  return `${endpointName(w)} ${displayID(w)}${rankSuffix(w)}, ${w.state}, KV ${u == null ? 'not reported' : pct(u)}` +
    (w.slotsActive == null ? '' : `, slots ${w.slotsActive} of ${w.slotsTotal}`) +
    (w.hitRate == null ? '' : `, hit rate ${pct(w.hitRate)}`) + (w.waiting ? `, ${w.waiting} waiting` : '')
}

const STATE_ORDER = {malformed: 3, silent: 2, unregistered: 1, answering: 0}

// The values that workers are sorted and coloured by.
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

// sorted puts unknown values last. Ties stay in the order of the ids, in which list must be,
// so that rows do not swap places.
export function sorted(list, by, dir) {
  if (by === 'id') return dir === 'asc' ? list : list.slice().reverse()
  const valueOf = SORT_VALUES[by], sign = dir === 'asc' ? 1 : -1
  return list.map(w => [valueOf(w), w]).sort(([x], [y]) => {
    if (x === y) return 0
    if (x == null) return y == null ? 0 : 1
    if (y == null) return -1
    return x < y ? -sign : sign
  }).map(([, w]) => w)
}

const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0
const compareIDs = (a, b) => a.id.length - b.id.length || compare(a.id, b.id) || (a.dp ?? 0) - (b.dp ?? 0) || compare(a.key, b.key)

// sortedByID returns the workers in the order of their ids. The order is computed once for
// each set of workers, because 64-bit ids, which are strings here, are slow to compare.
export function sortedByID(workers) {
  if (lastKeys.length !== workers.length || workers.some((w, i) => w.key !== lastKeys[i])) {
    lastKeys = workers.map(w => w.key)
    lastOrder = lastKeys.map((_, i) => i).sort((i, j) => compareIDs(workers[i], workers[j]))
  }
  return lastOrder.map(i => workers[i])
}
let lastKeys = [], lastOrder = []
