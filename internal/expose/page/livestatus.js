// Alive, paused, stale, lost: said in the bar, and over the page when its numbers are old.
import {$, say, text} from './dom.js'
import {draw, now} from './state.js'
import {clock, span} from './format.js'

const WORDS = {wait: 'Connecting', live: 'Live', part: 'Partly cut off', cut: 'Cut off', paused: 'Paused', stale: 'Stale', lost: 'Not connected'}
const WAKING = 1500 // ms that a page which slept may take to be up to date, before it says that it is not

let received = null  // when the last snapshot came, by this page's own clock
let shown = null     // when that came which is shown
let status = 'wait'  // or open, lost, asleep
let retryAt = 0, why = '', woken = 0

export const live = {
  paused: false,
  came() {
    status = 'open'
    received = performance.now()
    pulse()
  },
  open() {
    status = 'open'
    pulse()
  },
  lost(at, reason = '') {
    status = 'lost'
    retryAt = at
    why = reason
    pulse()
  },
  asleep() {
    status = 'asleep'
    pulse()
  },
}

document.addEventListener('visibilitychange', () => {
  if (status === 'asleep' && !document.hidden) {
    status = 'wait'
    woken = performance.now()
  }
})

const since = () => (performance.now() - received) / 1000
const age = () => (performance.now() - shown) / 1000
const ago = s => s < 60 ? s.toFixed(1) + ' s ago' : span(s) + ' ago'

// away are the servers that workers are seen by, and that the program is not connected to: what it
// says is as old as that. Of ZeroMQ there are many connections, and seldom are all of them lost.
const inputs = () => Object.entries(now.snap.connected).filter(([system]) => system !== 'zmq')
const away = () => inputs().filter(([, c]) => !c.on).map(([system]) => system)

function being() {
  if (status === 'lost') return 'lost'
  if (received == null || status === 'asleep' || performance.now() - woken < WAKING && status === 'wait') return 'wait'
  if (since() > 3 * now.snap.interval) return 'stale'
  if (live.paused) return 'paused'
  const n = away().length
  return !n ? 'live' : n < inputs().length ? 'part' : 'cut'
}

export function pulse() {
  if (!live.paused || shown == null) shown = received
  const is = being(), was = $('live').dataset.is
  if (is !== was) {
    $('live').dataset.is = is
    text($('liveword'), WORDS[is])
    if (is === 'lost' || is === 'stale') say(received == null ? 'Not connected.' : 'Connection lost. The numbers are old.')
    else if (is === 'cut' || is === 'part') say(`${WORDS[is]}: the program is not connected to ${away().join(' and ')}.`)
    else if (is === 'live' && was !== 'wait' && was !== 'paused') say('Connected again.')
  }
  text($('ago'), received == null ? '' : ago(age()))
  banner(is)
  const online = is !== 'lost' && is !== 'stale' && (is !== 'wait' || received == null)
  document.documentElement.classList.toggle('old', !online && !!now.snap)
  const old = !online || is === 'paused', behind = old && now.snap ? Math.floor(age()) : 0
  if (online === now.online && old === now.old && behind === now.behind) return
  Object.assign(now, {online, old, behind}) // ages go on while the numbers stand
  draw()
}

function banner(is) {
  const bad = is === 'lost' || is === 'stale'
  $('banner').hidden = !bad
  if (!bad) return
  const again = is !== 'lost' ? 'The program may be stopped or overloaded.'
    : retryAt > Date.now() ? `Trying again in ${Math.ceil((retryAt - Date.now()) / 1000)} s.` : 'Trying again.'
  const reason = is === 'lost' && why ? why.replace(/\.?$/, '. ').replace(/^./, c => c.toUpperCase()) : ''
  if (!now.snap) {
    text($('bannerword'), 'Not connected.')
    text($('bannertext'), reason + again)
    return
  }
  text($('bannerword'), is === 'lost' ? 'Connection lost.' : `No data for ${span(since())}.`)
  text($('bannertext'), `${reason}Everything below is as it was at ${clock(now.snap.now)}, ${span(age())} ago. ${again}`)
}

setInterval(pulse, 250)
