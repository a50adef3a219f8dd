// The page redraws everything with each snapshot. It computes nothing: every aggregate and
// every sentence comes from the server.
import {loadPalette} from './colours.js'
import {$, announce, prefersReducedMotion} from './dom.js'
import {drawEmptyState} from './emptystate.js'
import {applyFilters, showOnly} from './filter.js'
import {drawHeatMap, drawLegend, onResize} from './heatmap.js'
import {installShortcuts, saveSetting, loadSetting} from './shortcuts.js'
import {liveStatus, updateStatus} from './livestatus.js'
import {updateTip, installMapInput} from './heatmapinput.js'
import {onProblemClick, drawProblems} from './problems.js'
import {eventSource} from './stream.js'
import {draw, onDraw, current} from './state.js'
import {drawTable, installTableInput} from './table.js'
import {drawBar, drawHistory, drawTiles} from './tiles.js'
import {onHistoryRequest, fetchHistory, openWorker, drawWorkerPanel} from './workerpanel.js'
import {sortedByID} from './workers.js'

onDraw(() => {
  const isEmpty = !current.snapshot.workers.length && !!current.snapshot.looking
  $('skip').hidden = isEmpty
  $('empty').hidden = !isEmpty
  $('fleet').hidden = isEmpty
  drawBar()
  if (isEmpty) drawEmptyState()
  else drawFleet()
  drawWorkerPanel()
})

function drawFleet() {
  drawTiles()
  drawHistory()
  drawProblems()
  applyFilters()
  drawHeatMap()
  updateTip()
  drawTable()
}

let pending = null // the latest snapshot, while paused

function receive(s) {
  if (liveStatus.paused && current.snapshot) {
    s.history ??= pending?.history
    pending = s
    return
  }
  // Another version of the program has other files, and its snapshots may differ.
  if (current.snapshot && current.snapshot.version !== s.version) return location.reload()
  s.history ??= current.snapshot?.history
  s.workers = sortedByID(s.workers)
  current.snapshot = s
  current.byKey = new Map(s.workers.map(w => [w.key, w]))
  draw()
  fetchHistory()
}

function pause() {
  liveStatus.paused = !liveStatus.paused
  const label = liveStatus.paused ? 'Resume updates' : 'Pause updates', b = $('pause')
  b.setAttribute('aria-pressed', liveStatus.paused)
  b.setAttribute('aria-label', label)
  b.title = label + ' (p)'
  b.querySelector('path').setAttribute('d', liveStatus.paused ? 'M5 3l8 5-8 5z' : 'M5.5 3v10M10.5 3v10')
  announce(liveStatus.paused ? 'Paused' : 'Live')
  if (!liveStatus.paused && pending) {
    const s = pending
    pending = null
    receive(s)
  }
  updateStatus()
}

const root = document.documentElement
function setTheme(theme) {
  root.dataset.theme = theme
  $('theme').setAttribute('aria-pressed', theme === 'dark')
  loadPalette()
  drawLegend()
  draw()
}
function toggleTheme() {
  const theme = root.dataset.theme === 'dark' ? 'light' : 'dark'
  saveSetting('theme', theme)
  setTheme(theme)
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', e => {
  if (!loadSetting('theme')) setTheme(e.matches ? 'dark' : 'light')
})

function scrollToMap() {
  $('h-map').scrollIntoView({block: 'start', behavior: prefersReducedMotion() ? 'auto' : 'smooth'})
  $('h-map').focus({preventScroll: true})
}
onProblemClick(openWorker, p => {
  if (new Set(p.workers).size === 1) return openWorker(p.workers[0])
  showOnly({problem: p.id})
  scrollToMap()
})
$('states').onclick = e => {
  const state = e.target.closest('button')?.dataset.state
  if (!state) return
  showOnly({state})
  scrollToMap()
}
$('skip').onclick = e => {
  e.preventDefault() // the URL's fragment holds the view
  scrollToMap()
}

// The table's header sticks below the bar, whose height depends on the banner and the window's width.
new ResizeObserver(([bar]) => root.style.setProperty('--header-height', bar.target.offsetHeight + 'px')).observe(document.querySelector('.header'))

const source = eventSource('events', 'worker?key=')
setTheme(root.dataset.theme)
onResize(draw)
installMapInput(openWorker)
installTableInput(openWorker)
installShortcuts({pause, theme: toggleTheme})
onHistoryRequest(source.worker)
source.start({
  opened: liveStatus.opened, lost: liveStatus.lost, suspended: liveStatus.suspended,
  snapshot(s) {
    receive(s)
    liveStatus.received()
  },
})
