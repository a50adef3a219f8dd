// Functions that write to the page. Names and ids come from the network, so everything
// that is put into html() must go through esc() first.
export const $ = id => document.getElementById(id)

// text writes only if the text has changed: most text of a thousand workers is the same a second later.
export function text(el, s) {
  if (el._written !== s) el.textContent = el._written = s
}
// textWithTitle writes text that the style may cut off. The title shows all of it.
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

// announce tells a screen reader what has changed, through one polite live region.
// Announcements that come at the same time are joined; of one kind, only the latest counts.
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

// copy puts text on the clipboard. Browsers allow that only over TLS and on localhost;
// elsewhere the text is shown so that it can be selected.
export async function copy(s, what) {
  try {
    await navigator.clipboard.writeText(s)
    toast(`Copied ${what} ${s}`)
  } catch {
    toast(`Could not copy. ${what}: ${s}`)
  }
}

// hasSelection reports whether a click in el ended a text selection. Such a click must not open a worker.
export const hasSelection = el => !getSelection().isCollapsed && getSelection().containsNode(el, true)

export const prefersReducedMotion = () => matchMedia('(prefers-reduced-motion: reduce)').matches
export const phone = matchMedia('(max-width: 640px)')
