// Keyboard shortcuts, and the buttons that do the same.
import {$, glyph} from './dom.js'
import {view} from './view.js'
import {closeWorker, openNeighbour} from './workerpanel.js'

const dialog = $('keys')
let singleKeys = loadSetting('keys') !== 'off'

const KEYS = [
  ['/', 'find a worker'], ['p', 'pause and resume'], ['t', 'light or dark'], ['j k', 'next and previous worker, when one is open'],
  ['c x', 'copy the decimal or hexadecimal id of the row'], ['?', 'open and close this help'], ['Esc', 'close'],
]
const MEANINGS = [
  [glyph('answering'), '<b>answering</b>: answered the last poll, or is registered and has published its load'],
  [glyph('silent'), '<b>silent</b>: registered, but reports no load'],
  [glyph('unregistered'), '<b>unregistered</b>: answers, but is not registered'],
  [glyph('malformed'), '<b>malformed</b>: answers, but the answer cannot be decoded'],
  ['–', 'not reported; never a zero'],
]

function openHelp() {
  const definitionList = list => '<dl>' + list.map(([k, v]) => `<dt>${k}</dt><dd>${v}</dd>`).join('') + '</dl>'
  const keycaps = KEYS.map(([k, v]) => [k.split(' ').map(k => `<kbd>${k}</kbd>`).join(' '), v])
  dialog.innerHTML = `<h2 id="k-title">Keys and meanings</h2>${definitionList(keycaps)}
    <label><input type="checkbox" id="single-keys"${singleKeys ? ' checked' : ''}> single-letter keys</label>${definitionList(MEANINGS)}<button class="btn" id="k-close">Close</button>`
  $('k-close').onclick = () => dialog.close()
  $('single-keys').onchange = e => {
    singleKeys = e.target.checked
    saveSetting('keys', singleKeys ? 'on' : 'off')
  }
  dialog.showModal()
}

// installShortcuts listens to keys and buttons.
export function installShortcuts({pause, theme}) {
  $('pause').onclick = pause
  $('theme').onclick = theme
  $('help').onclick = openHelp
  const actions = {'/': () => $('f-q').focus(), p: pause, t: theme, '?': openHelp, j: () => openNeighbour(1), k: () => openNeighbour(-1)}
  addEventListener('keydown', e => {
    if (dialog.open) {
      if (singleKeys && e.key === '?') dialog.close()
      return
    }
    if (e.key === 'Escape' && view.w) return closeWorker()
    if (!singleKeys || e.ctrlKey || e.metaKey || e.altKey || isTextField(e.target) || !actions[e.key]) return
    e.preventDefault()
    actions[e.key]()
  })
}

// isTextField reports whether an element takes letters. An element in the dialog does not
// count: it keeps the focus after the dialog has closed, until the browser draws again.
function isTextField(element) {
  return !dialog.contains(element) && element.closest?.('input, select, textarea')
}

// loadSetting and saveSetting use the local storage. If it is switched off, nothing is saved.
export function loadSetting(key) {
  try {
    return localStorage[key]
  } catch { /* switched off */ }
}
export function saveSetting(key, value) {
  try {
    localStorage[key] = value
  } catch { /* switched off */ }
}
