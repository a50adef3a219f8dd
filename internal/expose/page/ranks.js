// The data-parallel ranks of the open worker, beside one another: each is a row, and
// opens by a click.
import {$, esc, glyph, html, text} from './dom.js'
import {now} from './state.js'
import {num, pair, pct} from './format.js'
import {endpointOf, use} from './workers.js'

export const RANKS = `<section id="w-ranks" hidden><h3></h3><div><table><thead><tr>
<th scope="col">Rank</th><th scope="col">State</th><th scope="col" class="r">KV use</th><th scope="col" class="r">Slots</th><th scope="col" class="r">Waiting</th></tr></thead>
<tbody></tbody></table></div></section>`

let keys = ''

// ranks writes those of a worker into the panel that was made for it.
export function ranks(w) {
  const box = $('w-ranks'), body = box.querySelector('tbody')
  const all = now.snap.workers.filter(r => r.id === w.id && endpointOf(r) === endpointOf(w))
  box.hidden = all.length < 2
  if (box.hidden) return
  text(box.querySelector('h3'), `Its ${num(all.length)} ranks`)
  const key = JSON.stringify(all.map(r => r.key))
  if (key !== keys || !body.firstChild) body.innerHTML = all.map(r => row(r, r.key === w.key)).join('')
  keys = key
  all.forEach((r, i) => {
    const [, state, kv, slots, waiting] = body.children[i].children
    html(state, `${glyph(r.state)} ${esc(r.state)}`)
    text(kv, pct(use(r)))
    text(slots, pair(r.slotsActive, r.slotsTotal))
    text(waiting, num(r.waiting))
  })
}

const row = (r, on) => `<tr${on ? ' class="on"' : ''}><td><button class="link" data-open="${esc(r.key)}"${on ? ' aria-current="true"' : ''}>rank ${num(r.dp)}</button></td>
<td></td><td class="r"></td><td class="r"></td><td class="r"></td></tr>`
