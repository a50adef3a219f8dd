// How the page is written to. Names and ids come from the network: html() is only ever
// given what has gone through esc().
export const $ = id => document.getElementById(id)

// Writes only what changed: most of a thousand workers' text is the same a second later.
export function text(el, s) {
  if (el._written !== s) el.textContent = el._written = s
}
// short writes what may be cut off: a pointer that rests upon it is told the whole.
export function textWithTitle(el, s) {
  if (el._written !== s) el.title = s
  text(el, s)
}
export function html(el, s) {
  if (el._written !== s) el.innerHTML = el._written = s
}

const ENTITIES = {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;'}
export const esc = s => String(s).replace(/[&<>"']/g, c => ENTITIES[c])

export const glyph = state => `<svg class="glyph ${esc(state)}" aria-hidden="true"><use href="#g-${esc(state)}"/></svg>`

// Everything said to a screen reader goes through one polite region: what has changed, at
// once and together, but of one kind only the latest.
const announcements = new Map()
let announceTimer
export function announce(s, kind = s) {
  clearTimeout(announceTimer)
  $('announcer').textContent = ''
  announcements.delete(kind)
  announcements.set(kind, s)
  announceTimer = setTimeout(() => {
    $('announcer').textContent = [...announcements.values()].map(s => s.replace(/\.?$/, '.')).join(' ')
    announcements.clear()
  }, 60)
}

let toastTimer
function toast(s) {
  $('toast').textContent = s
  $('toast').hidden = false
  announce(s)
  clearTimeout(toastTimer)
  toastTimer = setTimeout(() => { $('toast').hidden = true }, 1600)
}

// copy puts text on the clipboard, which browsers give to pages over TLS and on
// localhost only: elsewhere the text is shown, to be copied by hand.
export async function copy(s, what) {
  try {
    await navigator.clipboard.writeText(s)
    toast(`Copied ${what} ${s}`)
  } catch {
    toast(`Could not copy. ${what}: ${s}`)
  }
}

// selects is whether a click was the end of a selection: who selects an id to copy it has opened nothing.
export const hasSelection = el => !getSelection().isCollapsed && getSelection().containsNode(el, true)

export const prefersReducedMotion = () => matchMedia('(prefers-reduced-motion: reduce)').matches
export const phone = matchMedia('(max-width: 640px)')
