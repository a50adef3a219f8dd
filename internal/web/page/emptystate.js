// The empty state, which the page shows while there is no worker: what the program looks for, and
// what is registered.
import {$, copy, esc, html} from './dom.js'
import {current} from './state.js'
import {plural} from './format.js'

const commandBox = c => `<div class="command"><code tabindex="0">${esc(c)}</code><button class="btn" data-copy="${esc(c)}">Copy</button></div>`
const htmlList = (items, f) => `<ul class="list">${items.map(f).join('')}</ul>`
const joinName = x => [x.namespace, x.component, x.endpoint].filter(Boolean).join('/')

export function drawEmptyState() {
  const {looking: emptyState, interval, connected} = current.snapshot
  const target = emptyState.component && emptyState.endpoint ? `<b>${esc(joinName(emptyState))}</b>`
    : emptyState.component ? `every endpoint of <b>${esc(joinName(emptyState))}</b>` : `every endpoint in the namespace <b>${esc(emptyState.namespace)}</b>`
  const registry = registryOf(connected), missing = emptyState.missing ?? []
  // Without its registry, or without NATS if there is no registry, the program cannot see any worker.
  const blind = missing.some(m => m.system === registry || !registry)
  html($('empty'), `<h2>${blind ? 'No connection: it is not known whether there are workers' : 'No worker yet'}</h2>
    ${missing.length ? disconnected(missing) : ''}
    <p>Looking for ${target}${blind ? '' : `, once ${interval === 1 ? 'a second' : `every ${interval} s`}`}. Workers appear here as soon as ${blind ? 'there is a connection and they answer' : 'they answer'}.</p>
    ${emptyState.why && !missing.length ? `<p>Not ready: ${esc(emptyState.why)}.</p>` : ''}
    ${emptyState.nearest ? suggestion(emptyState.nearest) : ''}
    <div class="two">
      <section><h2>What is registered</h2>${emptyState.sees.length ? htmlList(emptyState.sees, s => `<li><span>${plural(s.instances, 'instance')}</span><code>${esc(joinName(s))}</code></li>`) : `<p>${nothingRegistered(connected)}</p>`}</section>
      <section><h2>What is polled and watched</h2>${htmlList([...emptyState.asks.map(a => ['NATS', a]), ...emptyState.watches.map(a => [registry, a])], ([where, a]) => `<li><span>${where}</span><code>${esc(a)}</code></li>`)}</section>
    </div>
    ${emptyState.mock ? `<section><h2>Start a mock worker to try this page</h2>${commandBox(emptyState.mock)}</section>` : ''}`)
}

const SYSTEM_NAMES = {nats: 'NATS', etcd: 'etcd', file: 'The directory of workers', kubernetes: 'The Kubernetes API'}
const disconnected = missing => `<section><h2>What is not connected</h2>${missing.map(m => `<p class="disconnected"><b>${SYSTEM_NAMES[m.system]}</b> at <code>${esc(m.detail ?? '')}</code>.
  ${m.lost ? 'The connection was lost' : 'There has been no connection yet'}${m.why ? `: ${esc(m.why)}` : ''}. The program keeps trying.</p>`).join('')}</section>`
const suggestion = n => `<div class="suggestion"><b>Did you mean ${esc(joinName(n))}?</b><p>${esc(n.why)}</p>${n.command ? commandBox(n.command) : ''}</div>`

// For each registry, the text if it is not connected, and a question about the setting that
// the program and the workers must share.
const REGISTRIES = {
  etcd: ['etcd is not connected', 'do they use this etcd (ETCD_ENDPOINTS)'],
  file: ['the directory of workers cannot be read', 'do they write to this directory (DYN_FILE_KV)'],
  kubernetes: ['the Kubernetes API is not connected', 'do they run in that cluster with DYN_DISCOVERY_BACKEND=kubernetes'],
}
const registryOf = connected => Object.keys(REGISTRIES).find(r => connected[r])

function nothingRegistered(connected) {
  const registry = registryOf(connected)
  if (!registry) return 'There is no registry: workers are known by their answers.'
  const [notConnected, same] = REGISTRIES[registry]
  if (!connected[registry].on) return `Not known: ${notConnected}.`
  return `Nothing. Do the workers have the same namespace as --namespace (DYN_NAMESPACE), and ${same}?`
}

$('empty').onclick = e => {
  if (e.target.dataset.copy) copy(e.target.dataset.copy, 'command')
}
