// The table of the open worker's data-parallel ranks. A click on a row opens that rank.
import {$, esc, glyph, html, text} from './dom.js'
import {current} from './state.js'
import {num, ofTotal, pct} from './format.js'
import {endpointName, kvUse} from './workers.js'

export const RANKS_HTML = `<section id="w-ranks" hidden><h3></h3><div><table><thead><tr>
<th scope="col">Rank</th><th scope="col">State</th><th scope="col" class="r">KV use</th><th scope="col" class="r">Slots</th><th scope="col" class="r">Waiting</th></tr></thead>
<tbody></tbody></table></div></section>`

let drawnKeys = ''

// drawRanks writes the ranks of a worker into its panel.
export function drawRanks(w) {
  const box = $('w-ranks'), body = box.querySelector('tbody')
  const all = current.snapshot.workers.filter(r => r.id === w.id && endpointName(r) === endpointName(w))
  box.hidden = all.length < 2
  if (box.hidden) return
  text(box.querySelector('h3'), `Its ${num(all.length)} ranks`)
  const key = JSON.stringify(all.map(r => r.key))
  if (key !== drawnKeys || !body.firstChild) body.innerHTML = all.map(r => row(r, r.key === w.key)).join('')
  drawnKeys = key
  all.forEach((r, i) => {
    const [, state, kv, slots, waiting] = body.children[i].children
    html(state, `${glyph(r.state)} ${esc(r.state)}`)
    text(kv, pct(kvUse(r)))
    text(slots, ofTotal(r.slotsActive, r.slotsTotal))
    text(waiting, num(r.waiting))
  })
}

const row = (r, isOpen) => `<tr${isOpen ? ' class="selected"' : ''}><td><button class="link" data-open="${esc(r.key)}"${isOpen ? ' aria-current="true"' : ''}>rank ${num(r.dp)}</button></td>
<td></td><td class="r"></td><td class="r"></td><td class="r"></td></tr>`
