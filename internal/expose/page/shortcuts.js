// Keys and buttons of the whole page.
import {$, glyph} from './dom.js'
import {view} from './view.js'
import {close, step} from './workerpanel.js'

const dialog = $('keys')
let single = stored('keys') !== 'off'

const KEYS = [
  ['/', 'find a worker'], ['p', 'pause and go on'], ['t', 'light or dark'], ['j k', 'next and previous worker, when one is open'],
  ['c x', 'copy the decimal or hexadecimal id of the row'], ['?', 'open and close this'], ['Esc', 'close'],
]
const MEANINGS = [
  [glyph('answering'), '<b>answering</b>: answered the last poll, or is registered and has published its load'],
  [glyph('silent'), '<b>silent</b>: registered, but no load from it'],
  [glyph('unregistered'), '<b>unregistered</b>: answers, but has no key'],
  [glyph('malformed'), '<b>malformed</b>: answers what cannot be read'],
  ['–', 'not reported; never a zero'],
]

function help() {
  const terms = list => '<dl>' + list.map(([k, v]) => `<dt>${k}</dt><dd>${v}</dd>`).join('') + '</dl>'
  const keycaps = KEYS.map(([k, v]) => [k.split(' ').map(k => `<kbd>${k}</kbd>`).join(' '), v])
  dialog.innerHTML = `<h2 id="k-title">Keys and meanings</h2>${terms(keycaps)}
    <label><input type="checkbox" id="single"${single ? ' checked' : ''}> single-letter keys</label>${terms(MEANINGS)}<button class="btn" id="k-close">Close</button>`
  $('k-close').onclick = () => dialog.close()
  $('single').onchange = e => {
    single = e.target.checked
    store('keys', single ? 'on' : 'off')
  }
  dialog.showModal()
}

// globalKeys listens to the keys, and to the buttons that do the same.
export function globalKeys({pause, theme}) {
  $('pause').onclick = pause
  $('theme').onclick = theme
  $('help').onclick = help
  const does = {'/': () => $('f-q').focus(), p: pause, t: theme, '?': help, j: () => step(1), k: () => step(-1)}
  addEventListener('keydown', e => {
    if (dialog.open) {
      if (single && e.key === '?') dialog.close()
      return
    }
    if (e.key === 'Escape' && view.w) return close()
    if (!single || e.ctrlKey || e.metaKey || e.altKey || typesInto(e.target) || !does[e.key]) return
    e.preventDefault()
    does[e.key]()
  })
}

// Until the browser draws again, what had the focus in a dialog that has been closed still has it.
function typesInto(element) {
  return !dialog.contains(element) && element.closest?.('input, select, textarea')
}

// Storage may be switched off, and then nothing is kept.
export function stored(key) {
  try {
    return localStorage[key]
  } catch { /* switched off */ }
}
export function store(key, value) {
  try {
    localStorage[key] = value
  } catch { /* switched off */ }
}
