// What the page says where there is no worker yet: what is looked for, and what there is.
import {$, copy, esc, html} from './dom.js'
import {now} from './state.js'
import {many} from './format.js'

const command = c => `<div class="cmd"><code tabindex="0">${esc(c)}</code><button class="btn" data-copy="${esc(c)}">Copy</button></div>`
const list = (items, f) => `<ul class="list">${items.map(f).join('')}</ul>`
const name = x => [x.namespace, x.component, x.endpoint].filter(Boolean).join('/')

export function empty() {
  const {looking: l, interval, connected} = now.snap
  const what = l.component && l.endpoint ? `<b>${esc(name(l))}</b>`
    : l.component ? `every endpoint of <b>${esc(name(l))}</b>` : `every endpoint in the namespace <b>${esc(l.namespace)}</b>`
  const registry = registryOf(connected), missing = l.missing ?? []
  // Without the registry, or where there is none without NATS, no worker could be seen.
  const blind = missing.some(m => m.system === registry || !registry)
  html($('empty'), `<h2>${blind ? 'No connection: whether there are workers is not known' : 'No worker yet'}</h2>
    ${missing.length ? away(missing) : ''}
    <p>Looking for ${what}${blind ? '' : `, once ${interval === 1 ? 'a second' : `every ${interval} s`}`}. This page fills itself as soon as ${blind ? 'there is a connection and a worker answers' : 'one answers'}.</p>
    ${l.why && !missing.length ? `<p>Not ready: ${esc(l.why)}.</p>` : ''}
    ${l.nearest ? nearest(l.nearest) : ''}
    <div class="two">
      <section><h2>What is registered</h2>${l.sees.length ? list(l.sees, s => `<li><span>${many(s.instances, 'instance')}</span><code>${esc(name(s))}</code></li>`) : `<p>${nothing(connected)}</p>`}</section>
      <section><h2>What is asked and watched</h2>${list([...l.asks.map(a => ['NATS', a]), ...l.watches.map(a => [registry, a])], ([where, a]) => `<li><span>${where}</span><code>${esc(a)}</code></li>`)}</section>
    </div>
    ${l.mock ? `<section><h2>Start a mock worker to see the page at work</h2>${command(l.mock)}</section>` : ''}`)
}

const CALLED = {nats: 'NATS', etcd: 'etcd', file: 'The directory of workers', kubernetes: 'The Kubernetes API'}
const away = missing => `<section><h2>What is not connected</h2>${missing.map(m => `<p class="away"><b>${CALLED[m.system]}</b> at <code>${esc(m.detail ?? '')}</code>.
  ${m.lost ? 'The connection was lost' : 'There has been no connection yet'}${m.why ? `: ${esc(m.why)}` : ''}. It is tried again and again.</p>`).join('')}</section>`
const nearest = n => `<div class="near"><b>Did you mean ${esc(name(n))}?</b><p>${esc(n.why)}</p>${n.command ? command(n.command) : ''}</div>`

// Where workers register, and what must be the same here and there.
const REGISTRIES = {
  etcd: ['etcd is not connected', 'do they use this etcd (ETCD_ENDPOINTS)'],
  file: ['the directory of workers cannot be read', 'do they write to this directory (DYN_FILE_KV)'],
  kubernetes: ['the Kubernetes API is not connected', 'do they run there with DYN_DISCOVERY_BACKEND=kubernetes'],
}
const registryOf = connected => Object.keys(REGISTRIES).find(r => connected[r])

function nothing(connected) {
  const registry = registryOf(connected)
  if (!registry) return 'Workers register nowhere: they are known by their answers.'
  const [away, same] = REGISTRIES[registry]
  if (!connected[registry].on) return `Not known: ${away}.`
  return `Nothing. Is --namespace the one that the workers have (DYN_NAMESPACE), and ${same}?`
}

$('empty').onclick = e => {
  if (e.target.dataset.copy) copy(e.target.dataset.copy, 'command')
}
