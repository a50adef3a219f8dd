// The stream of snapshots: server-sent events, with a new connection after each failure.

const MAX_RETRY_DELAY = 15000 // ms between two attempts
const MAX_SILENCE = 10000     // ms without a message, after which a new connection is made
const HIDDEN_TIMEOUT = 60000  // ms after which a hidden page closes its stream

// eventSource returns a source of snapshots. start sets the functions that it calls:
// - snapshot, with each snapshot;
// - opened, when the stream is connected;
// - lost, when it is not, with the time of the next attempt (ms since 1970), and with the
//   server's reason if the server gave one;
// - suspended, when it has closed the stream of a hidden page. A browser opens at most six
//   streams to a server, and the server limits its streams, too.
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

  // A stream may end without an error: after a laptop slept, the network changed, or the
  // program was stopped by a signal.
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

// refusalReason requests the stream once more to learn why the server refused it, because an
// EventSource does not report that.
async function refusalReason(stream) {
  try {
    const answer = await fetch(withoutCredentials(stream), {signal: AbortSignal.timeout(3000)})
    if (!answer.ok) return (await answer.json()).error
    await answer.body.cancel()
  } catch { /* there is no server */ }
  return ''
}

// withoutCredentials resolves a path for fetch, which rejects the URL of a page that was
// opened with a password in its address.
function withoutCredentials(path) {
  const url = new URL(path, document.baseURI)
  url.username = url.password = ''
  return url
}
