// Pointer and keyboard input of the heat map, which is a single tab stop.
import {announce} from './dom.js'
import {cellAt, cellIndex, cells, columns, mapElement, highlights, paint, showTip} from './heatmap.js'
import {describe} from './workers.js'

const MOVES = {
  ArrowRight: (i) => i + 1, ArrowLeft: (i) => i - 1, ArrowDown: (i, n) => i + n, ArrowUp: (i, n) => i - n,
  Home: () => 0, End: () => Infinity, PageDown: (i, n) => i + 5 * n, PageUp: (i, n) => i - 5 * n,
}

// installMapInput calls open with the worker's key when a cell is clicked or Enter is pressed on it.
export function installMapInput(open) {
  const canvas = mapElement.querySelector('canvas')
  const cellUnder = e => {
    const box = canvas.getBoundingClientRect()
    return cellAt(e.clientX - box.left, e.clientY - box.top)
  }
  canvas.onpointermove = e => {
    if (e.pointerType !== 'touch') hover(cellUnder(e))
  }
  canvas.onpointerleave = () => hover(-1)
  canvas.onclick = e => {
    const w = cells[cellUnder(e)]
    if (!w) return
    highlights.cursor = null
    open(w.key)
  }
  mapElement.onkeydown = e => {
    if (!cells.length || e.ctrlKey || e.metaKey || e.altKey) return
    const i = cellIndex(highlights.cursor)
    if ((e.key === 'Enter' || e.key === ' ') && i >= 0) {
      e.preventDefault()
      open(cells[i].key)
    } else if (MOVES[e.key]) {
      e.preventDefault()
      move(i < 0 ? 0 : MOVES[e.key](i, columns()))
    } else if (e.key === 'Escape') clearCursor()
  }
  mapElement.onblur = clearCursor
}

function hover(i) {
  const key = cells[i]?.key ?? null
  if (key === highlights.hover) return
  highlights.hover = key
  showTip(i)
  paint()
}

function move(to) {
  const i = Math.max(0, Math.min(cells.length - 1, to))
  highlights.cursor = cells[i].key
  highlights.hover = null
  showTip(i)
  paint()
  announce(describe(cells[i]), 'cell')
}

function clearCursor() {
  highlights.cursor = null
  showTip(-1)
  paint()
}

// updateTip keeps the tooltip at its worker after the cells have been painted again.
export function updateTip() {
  if (highlights.hover || highlights.cursor) showTip(cellIndex(highlights.hover ?? highlights.cursor))
}
