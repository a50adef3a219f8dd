// Where snapshots come from: server-sent events, begun again whenever they break off.

const MAX_RETRY_DELAY = 15000   // ms between two tries
const MAX_SILENCE = 10000   // ms without a word, after which a stream that looks well is begun again
const HIDDEN_TIMEOUT = 60000    // ms that a page which nobody sees keeps its stream

// eventSource tells on.snapshot what comes, on.open that the stream stands, on.lost that
// it does not, when it is tried again (ms since 1970), and why if the server said so, and on.asleep
// that it was let go of because nobody sees the page: browsers open six streams to a
// server, and a server has only so many for its viewers.
export function eventSource(stream, workerURL) {
  let es, listener, retryDelay, opened, lastMessageAt, retryTimer, suspended

  function connect() {
    opened = false
    lastMessageAt = performance.now()
    es = new EventSource(stream)
    es.onopen = () => {
      opened = true
      lastMessageAt = performance.now()
      listener.opened()
    }
    es.onmessage = e => {
      retryDelay = 1000
      lastMessageAt = performance.now()
      listener.snapshot(JSON.parse(e.data))
    }
    es.onerror = handleError
  }

  async function handleError() {
    const refused = !opened
    es.close()
    const at = Date.now() + retryDelay
    retryTimer = setTimeout(connect, retryDelay)
    retryDelay = Math.min(retryDelay * 2, MAX_RETRY_DELAY)
    listener.lost(at)
    const why = refused ? await refusalReason(stream) : ''
    if (why && es.readyState === EventSource.CLOSED && !suspended) listener.lost(at, why)
  }

  // A stream may die without a word: a laptop that slept, a network that changed, a
  // program that was stopped.
  function checkSilence() {
    if (!suspended && es.readyState !== EventSource.CLOSED && performance.now() - lastMessageAt > MAX_SILENCE) {
      es.close()
      connect()
    }
  }

  let hiddenTimer
  function visibilityChanged() {
    clearTimeout(hiddenTimer)
    if (document.hidden) {
      hiddenTimer = setTimeout(suspend, HIDDEN_TIMEOUT)
    } else if (suspended) {
      suspended = false
      retryDelay = 1000
      connect()
    }
  }

  function suspend() {
    suspended = true
    clearTimeout(retryTimer)
    es.close()
    listener.suspended()
  }

  return {
    start(callbacks) {
      listener = callbacks
      retryDelay = 1000
      connect()
      setInterval(checkSilence, 1000)
      document.addEventListener('visibilitychange', visibilityChanged)
      visibilityChanged()
    },
    async worker(key) {
      try {
        const answer = await fetch(withoutCredentials(workerURL + encodeURIComponent(key)))
        return answer.ok ? await answer.json() : null
      } catch {
        return null
      }
    },
  }
}

// reason is what the server says where it does not give the stream: an EventSource tells
// that to nobody.
async function refusalReason(stream) {
  try {
    const answer = await fetch(withoutCredentials(stream), {signal: AbortSignal.timeout(3000)})
    if (!answer.ok) return (await answer.json()).error
    await answer.body.cancel()
  } catch { /* there is no server */ }
  return ''
}

// address is one that fetch takes, where the page's own has a password in it.
function withoutCredentials(path) {
  const url = new URL(path, document.baseURI)
  url.username = url.password = ''
  return url
}
