// Keys and buttons of the whole page.
import {$, glyph} from './dom.js'
import {view} from './view.js'
import {closeWorker, openNeighbour} from './workerpanel.js'

const dialog = $('keys')
let singleKeys = loadSetting('keys') !== 'off'

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

// globalKeys listens to the keys, and to the buttons that do the same.
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

// Until the browser draws again, what had the focus in a dialog that has been closed still has it.
function isTextField(element) {
  return !dialog.contains(element) && element.closest?.('input, select, textarea')
}

// Storage may be switched off, and then nothing is kept.
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
