// The page: snapshots come in, and everything that they change is drawn in one go. It
// only draws: every aggregate and every sentence is the server's.
import {mix} from './colours.js'
import {$, say, still} from './dom.js'
import {empty} from './emptystate.js'
import {filter, only} from './filter.js'
import {heat, legend, onResize} from './heatmap.js'
import {globalKeys, store, stored} from './shortcuts.js'
import {live, pulse} from './livestatus.js'
import {follow, mapKeys} from './heatmapinput.js'
import {onShow, problems} from './problems.js'
import {eventSource} from './stream.js'
import {draw, drawWith, now} from './state.js'
import {table, tableKeys} from './table.js'
import {bar, overview, tiles} from './tiles.js'
import {askWith, fetchPast, open, worker} from './workerpanel.js'
import {inOrder} from './workers.js'

drawWith(() => {
  const none = !now.snap.workers.length && !!now.snap.looking
  $('skip').hidden = none
  $('empty').hidden = !none
  $('fleet').hidden = none
  bar()
  if (none) empty()
  else fleet()
  worker()
})

function fleet() {
  tiles()
  overview()
  problems()
  filter()
  heat()
  follow()
  table()
}

let pending = null // the latest snapshot, while paused

function take(s) {
  if (live.paused && now.snap) {
    s.history ??= pending?.history
    pending = s
    return
  }
  // Another version of the program has other files, and may have other snapshots.
  if (now.snap && now.snap.version !== s.version) return location.reload()
  s.history ??= now.snap?.history
  s.workers = inOrder(s.workers)
  now.snap = s
  now.byKey = new Map(s.workers.map(w => [w.key, w]))
  draw()
  fetchPast()
}

function pause() {
  live.paused = !live.paused
  const label = live.paused ? 'Resume updates' : 'Pause updates', b = $('pause')
  b.setAttribute('aria-pressed', live.paused)
  b.setAttribute('aria-label', label)
  b.title = label + ' (p)'
  b.querySelector('path').setAttribute('d', live.paused ? 'M5 3l8 5-8 5z' : 'M5.5 3v10M10.5 3v10')
  say(live.paused ? 'Paused' : 'Live')
  if (!live.paused && pending) {
    const s = pending
    pending = null
    take(s)
  }
  pulse()
}

const root = document.documentElement
function paintTheme(theme) {
  root.dataset.theme = theme
  $('theme').setAttribute('aria-pressed', theme === 'dark')
  mix()
  legend()
  draw()
}
function toggleTheme() {
  const theme = root.dataset.theme === 'dark' ? 'light' : 'dark'
  store('theme', theme)
  paintTheme(theme)
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', e => {
  if (!stored('theme')) paintTheme(e.matches ? 'dark' : 'light')
})

function toMap() {
  $('h-map').scrollIntoView({block: 'start', behavior: still() ? 'auto' : 'smooth'})
  $('h-map').focus({preventScroll: true})
}
onShow(open, p => {
  if (new Set(p.workers).size === 1) return open(p.workers[0])
  only({problem: p.id})
  toMap()
})
$('states').onclick = e => {
  const state = e.target.closest('button')?.dataset.state
  if (!state) return
  only({state})
  toMap()
}
$('skip').onclick = e => {
  e.preventDefault() // the fragment is the view's
  toMap()
}

// What sticks below the bar must know its height, which a banner or a narrow window changes.
new ResizeObserver(([bar]) => root.style.setProperty('--above', bar.target.offsetHeight + 'px')).observe(document.querySelector('.above'))

const source = eventSource('events', 'worker?key=')
paintTheme(root.dataset.theme)
onResize(draw)
mapKeys(open)
tableKeys(open)
globalKeys({pause, theme: toggleTheme})
askWith(source.worker)
source.start({
  open: live.open, lost: live.lost, asleep: live.asleep,
  snapshot(s) {
    take(s)
    live.came()
  },
})
