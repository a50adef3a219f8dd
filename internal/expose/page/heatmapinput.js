// Pointer and keys in the heat map, which is one stop for the tabulator.
import {say} from './dom.js'
import {at, cellOf, cells, columns, map, marks, paint, tip} from './heatmap.js'
import {describe} from './workers.js'

const MOVES = {
  ArrowRight: (i) => i + 1, ArrowLeft: (i) => i - 1, ArrowDown: (i, n) => i + n, ArrowUp: (i, n) => i - n,
  Home: () => 0, End: () => Infinity, PageDown: (i, n) => i + 5 * n, PageUp: (i, n) => i - 5 * n,
}

// mapKeys calls open with the key of a worker whose cell is clicked or entered.
export function mapKeys(open) {
  const canvas = map.querySelector('canvas')
  const under = e => {
    const box = canvas.getBoundingClientRect()
    return at(e.clientX - box.left, e.clientY - box.top)
  }
  canvas.onpointermove = e => {
    if (e.pointerType !== 'touch') hover(under(e))
  }
  canvas.onpointerleave = () => hover(-1)
  canvas.onclick = e => {
    const w = cells[under(e)]
    if (!w) return
    marks.cursor = null
    open(w.key)
  }
  map.onkeydown = e => {
    if (!cells.length || e.ctrlKey || e.metaKey || e.altKey) return
    const i = cellOf(marks.cursor)
    if ((e.key === 'Enter' || e.key === ' ') && i >= 0) {
      e.preventDefault()
      open(cells[i].key)
    } else if (MOVES[e.key]) {
      e.preventDefault()
      move(i < 0 ? 0 : MOVES[e.key](i, columns()))
    } else if (e.key === 'Escape') leave()
  }
  map.onblur = leave
}

function hover(i) {
  const key = cells[i]?.key ?? null
  if (key === marks.hover) return
  marks.hover = key
  tip(i)
  paint()
}

function move(to) {
  const i = Math.max(0, Math.min(cells.length - 1, to))
  marks.cursor = cells[i].key
  marks.hover = null
  tip(i)
  paint()
  say(describe(cells[i]), 'cell')
}

function leave() {
  marks.cursor = null
  tip(-1)
  paint()
}

// follow keeps the tip on its worker when cells are painted anew.
export function follow() {
  if (marks.hover || marks.cursor) tip(cellOf(marks.hover ?? marks.cursor))
}
