// What the page says where there is no worker yet: what is looked for, and what there is.
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
  // Without the registry, or where there is none without NATS, no worker could be seen.
  const blind = missing.some(m => m.system === registry || !registry)
  html($('empty'), `<h2>${blind ? 'No connection: whether there are workers is not known' : 'No worker yet'}</h2>
    ${missing.length ? disconnected(missing) : ''}
    <p>Looking for ${target}${blind ? '' : `, once ${interval === 1 ? 'a second' : `every ${interval} s`}`}. This page fills itself as soon as ${blind ? 'there is a connection and a worker answers' : 'one answers'}.</p>
    ${emptyState.why && !missing.length ? `<p>Not ready: ${esc(emptyState.why)}.</p>` : ''}
    ${emptyState.nearest ? suggestion(emptyState.nearest) : ''}
    <div class="two">
      <section><h2>What is registered</h2>${emptyState.sees.length ? htmlList(emptyState.sees, s => `<li><span>${plural(s.instances, 'instance')}</span><code>${esc(joinName(s))}</code></li>`) : `<p>${nothingRegistered(connected)}</p>`}</section>
      <section><h2>What is asked and watched</h2>${htmlList([...emptyState.asks.map(a => ['NATS', a]), ...emptyState.watches.map(a => [registry, a])], ([where, a]) => `<li><span>${where}</span><code>${esc(a)}</code></li>`)}</section>
    </div>
    ${emptyState.mock ? `<section><h2>Start a mock worker to see the page at work</h2>${commandBox(emptyState.mock)}</section>` : ''}`)
}

const SYSTEM_NAMES = {nats: 'NATS', etcd: 'etcd', file: 'The directory of workers', kubernetes: 'The Kubernetes API'}
const disconnected = missing => `<section><h2>What is not connected</h2>${missing.map(m => `<p class="disconnected"><b>${SYSTEM_NAMES[m.system]}</b> at <code>${esc(m.detail ?? '')}</code>.
  ${m.lost ? 'The connection was lost' : 'There has been no connection yet'}${m.why ? `: ${esc(m.why)}` : ''}. It is tried again and again.</p>`).join('')}</section>`
const suggestion = n => `<div class="suggestion"><b>Did you mean ${esc(joinName(n))}?</b><p>${esc(n.why)}</p>${n.command ? commandBox(n.command) : ''}</div>`

// Where workers register, and what must be the same here and there.
const REGISTRIES = {
  etcd: ['etcd is not connected', 'do they use this etcd (ETCD_ENDPOINTS)'],
  file: ['the directory of workers cannot be read', 'do they write to this directory (DYN_FILE_KV)'],
  kubernetes: ['the Kubernetes API is not connected', 'do they run in that cluster with DYN_DISCOVERY_BACKEND=kubernetes'],
}
const registryOf = connected => Object.keys(REGISTRIES).find(r => connected[r])

function nothingRegistered(connected) {
  const registry = registryOf(connected)
  if (!registry) return 'Workers register nowhere: they are known by their answers.'
  const [disconnected, same] = REGISTRIES[registry]
  if (!connected[registry].on) return `Not known: ${disconnected}.`
  return `Nothing. Is --namespace the one that the workers have (DYN_NAMESPACE), and ${same}?`
}

$('empty').onclick = e => {
  if (e.target.dataset.copy) copy(e.target.dataset.copy, 'command')
}
