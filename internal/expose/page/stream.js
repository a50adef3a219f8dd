// Where snapshots come from: server-sent events, begun again whenever they break off.

const LONGEST = 15000   // ms between two tries
const SILENCE = 10000   // ms without a word, after which a stream that looks well is begun again
const UNSEEN = 60000    // ms that a page which nobody sees keeps its stream

// eventSource tells on.snapshot what comes, on.open that the stream stands, on.lost that
// it does not, when it is tried again (ms since 1970), and why if the server said so, and on.asleep
// that it was let go of because nobody sees the page: browsers open six streams to a
// server, and a server has only so many for its viewers.
export function eventSource(stream, workerURL) {
  let es, on, wait, opened, heard, timer, asleep

  function connect() {
    opened = false
    heard = performance.now()
    es = new EventSource(stream)
    es.onopen = () => {
      opened = true
      heard = performance.now()
      on.open()
    }
    es.onmessage = e => {
      wait = 1000
      heard = performance.now()
      on.snapshot(JSON.parse(e.data))
    }
    es.onerror = broken
  }

  async function broken() {
    const refused = !opened
    es.close()
    const at = Date.now() + wait
    timer = setTimeout(connect, wait)
    wait = Math.min(wait * 2, LONGEST)
    on.lost(at)
    const why = refused ? await reason(stream) : ''
    if (why && es.readyState === EventSource.CLOSED && !asleep) on.lost(at, why)
  }

  // A stream may die without a word: a laptop that slept, a network that changed, a
  // program that was stopped.
  function watch() {
    if (!asleep && es.readyState !== EventSource.CLOSED && performance.now() - heard > SILENCE) {
      es.close()
      connect()
    }
  }

  let hiding
  function look() {
    clearTimeout(hiding)
    if (document.hidden) {
      hiding = setTimeout(sleep, UNSEEN)
    } else if (asleep) {
      asleep = false
      wait = 1000
      connect()
    }
  }

  function sleep() {
    asleep = true
    clearTimeout(timer)
    es.close()
    on.asleep()
  }

  return {
    start(listener) {
      on = listener
      wait = 1000
      connect()
      setInterval(watch, 1000)
      document.addEventListener('visibilitychange', look)
      look()
    },
    async worker(key) {
      try {
        const answer = await fetch(address(workerURL + encodeURIComponent(key)))
        return answer.ok ? await answer.json() : null
      } catch {
        return null
      }
    },
  }
}

// reason is what the server says where it does not give the stream: an EventSource tells
// that to nobody.
async function reason(stream) {
  try {
    const answer = await fetch(address(stream), {signal: AbortSignal.timeout(3000)})
    if (!answer.ok) return (await answer.json()).error
    await answer.body.cancel()
  } catch { /* there is no server */ }
  return ''
}

// address is one that fetch takes, where the page's own has a password in it.
function address(path) {
  const url = new URL(path, document.baseURI)
  url.username = url.password = ''
  return url
}
