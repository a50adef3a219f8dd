// The status of the data: live, paused, stale or lost. The bar shows it. A banner shows it, too, if
// the numbers are old.
import {$, announce, text} from './dom.js'
import {draw, current} from './state.js'
import {clock, duration} from './format.js'

const LABELS = {wait: 'Connecting', live: 'Live', part: 'Partly cut off', cut: 'Cut off', paused: 'Paused', stale: 'Stale', lost: 'Not connected'}
const WAKE_GRACE = 1500 // ms in which a page that was hidden may catch up before it is called stale

let receivedAt = null // when the last snapshot arrived, by this page's own clock
let shownAt = null    // when the snapshot that is shown arrived
let status = 'wait'   // or open, lost, suspended
let retryAt = 0, why = '', wokenAt = 0

export const liveStatus = {
  paused: false,
  received() {
    status = 'open'
    receivedAt = performance.now()
    updateStatus()
  },
  opened() {
    status = 'open'
    updateStatus()
  },
  lost(at, reason = '') {
    status = 'lost'
    retryAt = at
    why = reason
    updateStatus()
  },
  suspended() {
    status = 'suspended'
    updateStatus()
  },
}

document.addEventListener('visibilitychange', () => {
  if (status === 'suspended' && !document.hidden) {
    status = 'wait'
    wokenAt = performance.now()
  }
})

const receivedAge = () => (performance.now() - receivedAt) / 1000
const shownAge = () => (performance.now() - shownAt) / 1000
const ago = s => s < 60 ? s.toFixed(1) + ' s ago' : duration(s) + ' ago'

// inputs returns the systems from which the program learns about workers. ZeroMQ is left out, because
// it has many connections, which are seldom all lost.
const inputs = () => Object.entries(current.snapshot.connected).filter(([system]) => system !== 'zmq')
const disconnected = () => inputs().filter(([, c]) => !c.on).map(([system]) => system)

function currentStatus() {
  if (status === 'lost') return 'lost'
  if (receivedAt == null || status === 'suspended' || performance.now() - wokenAt < WAKE_GRACE && status === 'wait') return 'wait'
  if (receivedAge() > 3 * current.snapshot.interval) return 'stale'
  if (liveStatus.paused) return 'paused'
  const n = disconnected().length
  return !n ? 'live' : n < inputs().length ? 'part' : 'cut'
}

export function updateStatus() {
  if (!liveStatus.paused || shownAt == null) shownAt = receivedAt
  const dataStatus = currentStatus(), previous = $('live').dataset.status
  if (dataStatus !== previous) {
    $('live').dataset.status = dataStatus
    text($('live-label'), LABELS[dataStatus])
    if (dataStatus === 'lost' || dataStatus === 'stale') announce(receivedAt == null ? 'Not connected.' : 'Connection lost. The numbers are old.')
    else if (dataStatus === 'cut' || dataStatus === 'part') announce(`${LABELS[dataStatus]}: the program is not connected to ${disconnected().join(' and ')}.`)
    else if (dataStatus === 'live' && previous !== 'wait' && previous !== 'paused') announce('Connected again.')
  }
  text($('ago'), receivedAt == null ? '' : ago(shownAge()))
  drawBanner(dataStatus)
  const fresh = dataStatus !== 'lost' && dataStatus !== 'stale' && (dataStatus !== 'wait' || receivedAt == null)
  document.documentElement.classList.toggle('outdated', !fresh && !!current.snapshot)
  const outdated = !fresh || dataStatus === 'paused', lag = outdated && current.snapshot ? Math.floor(shownAge()) : 0
  if (fresh === current.fresh && outdated === current.outdated && lag === current.lag) return
  Object.assign(current, {fresh, outdated, lag}) // ages grow while the numbers do not change
  draw()
}

function drawBanner(dataStatus) {
  const bad = dataStatus === 'lost' || dataStatus === 'stale'
  $('banner').hidden = !bad
  if (!bad) return
  const again = dataStatus !== 'lost' ? 'The program may be stopped or overloaded.'
    : retryAt > Date.now() ? `Trying again in ${Math.ceil((retryAt - Date.now()) / 1000)} s.` : 'Trying again.'
  const reason = dataStatus === 'lost' && why ? why.replace(/\.?$/, '. ').replace(/^./, c => c.toUpperCase()) : ''
  if (!current.snapshot) {
    text($('banner-title'), 'Not connected.')
    text($('banner-text'), reason + again)
    return
  }
  text($('banner-title'), dataStatus === 'lost' ? 'Connection lost.' : `No data for ${duration(receivedAge())}.`)
  text($('banner-text'), `${reason}Everything below is as it was at ${clock(current.snapshot.now)}, ${duration(shownAge())} ago. ${again}`)
}

setInterval(updateStatus, 250)
