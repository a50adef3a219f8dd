// The problems, as the server words them.
import {$, phone, announce, hasSelection, text} from './dom.js'
import {current} from './state.js'
import {clock, plural, num, duration} from './format.js'
import {countWorkers, displayID, rankSuffix} from './workers.js'

const SEVERITIES = {bad: 'serious', warn: 'to fix', info: 'to know'}
const CARD = '<details><summary><svg aria-hidden="true"><use/></svg><h3></h3></summary><p></p><p><b>Check:</b> <span></span></p></details><button class="link"></button>'

let knownTitles = new Map(), showAll = false

export function drawProblems() {
  const list = current.snapshot.problems // the worst first
  announceChanges(list)
  $('no-problems').hidden = list.length > 0
  $('problems').hidden = !list.length
  if (!list.length) text($('no-problems-text'), noProblemsText())
  text($('problems-note'), Object.entries(SEVERITIES).map(([severity, label]) => [list.filter(p => p.severity === severity).length, label])
    .filter(([n]) => n).map(([n, label]) => `${n} ${label}`).join(' · '))
  const shown = showAll ? list : list.slice(0, phone.matches ? 4 : 8), openAll = list.length <= 3
  drawCards($('serious'), shown.filter(p => p.severity === 'bad'), openAll)
  drawCards($('lesser'), shown.filter(p => p.severity !== 'bad'), openAll)
  $('more').hidden = list.length === shown.length
  text($('more'), `${list.length - shown.length} more`)
}

function announceChanges(list) {
  const titles = new Map(list.map(p => [p.id, p.title]))
  const added = list.filter(p => !knownTitles.has(p.id)).map(p => p.title)
  const removed = [...knownTitles].filter(([id]) => !titles.has(id)).map(([, title]) => title)
  if (added.length) announce(`${plural(added.length, 'new problem')}: ${added.join('. ')}`)
  else if (removed.length) announce(`Withdrawn: ${removed.join('. ')}`)
  knownTitles = titles
}

// noProblemsText returns the text if there is no problem. It claims only what is certain.
function noProblemsText() {
  if (!current.fresh) return `Not known: the page has had no data since ${clock(current.snapshot.now)}.`
  const {fleet: f, workers} = current.snapshot, {answering, silent, unregistered, malformed} = f.states
  const answer = answering + unregistered, total = answer + silent + malformed // static workers are in no registry
  const age = workers.reduce((oldest, w) => Math.max(oldest, w.age ?? 0), 0)
  const answers = answer === total ? `All ${plural(total, 'worker')} answer` : `${num(answer)} of ${plural(total, 'worker')} answer`
  return (current.outdated ? `As of ${clock(current.snapshot.now)}: nothing. ` : 'Nothing. ') + `${total === 1 && answer ? 'The worker answers' : answers}, the oldest load is ${duration(age)} old` + (f.gaps || f.drops ? '.' : ', and no event is missing.')
}

function drawCards(ul, list, openAll) {
  while (ul.children.length > list.length) ul.lastChild.remove()
  list.forEach((p, i) => drawCard(ul.children[i] ?? ul.appendChild(newCard()), p, openAll))
}

function newCard() {
  const li = document.createElement('li')
  li.innerHTML = CARD
  return li
}

function drawCard(li, p, openAll) {
  const [box, button] = li.children, [summary, detail, check] = box.children, [svg, title] = summary.children
  if (li._id !== p.id) {
    li._id = p.id
    box.open = p.severity === 'bad' || openAll // the others open with a click
  }
  if (li._severity !== p.severity) {
    li._severity = p.severity
    li.className = 'problem ' + p.severity
    svg.firstChild.setAttribute('href', '#g-' + p.severity)
  }
  text(title, p.title)
  drawDetail(detail, p.detail + (p.since ? ` Since ${clock(p.since).slice(0, 5)}.` : ''), p)
  check.hidden = !p.check
  text(check.lastChild, p.check ?? '')
  const n = new Set(p.workers).size, of = countWorkers([...new Set(p.workers)].map(key => current.byKey.get(key)).filter(Boolean))
  button.hidden = !n
  const label = n === 1 ? 'Open it' : n > of && of === 1 ? `Show its ${num(n)} ranks` : `Show ${num(of || n)}`
  text(button, label)
  if (button._for !== label + p.title) button.setAttribute('aria-label', `${label}: ${p.title}`)
  button._for = label + p.title
  button._problem = p
}

// drawDetail writes a sentence and makes each worker that it names a link. The links are kept
// while the text between them changes, because one of them may have the focus.
function drawDetail(el, s, p) {
  const keys = workersNamedIn(s, p.workers), names = [...keys.keys()].sort((a, b) => b.length - a.length)
  const parts = names.length ? s.split(new RegExp(`(?<!\\w)(${names.map(escapeRegExp).join('|')})(?!\\w)`)) : [s]
  const links = JSON.stringify(parts.filter((_, i) => i % 2).map(name => [name, keys.get(name)]))
  if (el._links !== links) {
    el._links = links
    el.replaceChildren(...parts.map((part, i) => i % 2 ? link(part, keys.get(part)) : document.createTextNode(part)))
    return
  }
  for (let i = 0; i < parts.length; i += 2) if (el.childNodes[i].data !== parts[i]) el.childNodes[i].data = parts[i]
}

// workersNamedIn returns the keys of the workers that a sentence names, by the name there.
// Names of up to five characters are left out: they could be numbers of the sentence.
function workersNamedIn(s, workers) {
  const keys = new Map()
  for (const key of workers) {
    const w = current.byKey.get(key), name = w ? displayID(w) + rankSuffix(w) : ''
    if (name.length > 5 && s.includes(name)) keys.set(name, key)
  }
  return keys
}

const escapeRegExp = s => s.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&')

// link has no href, because a selection of text cannot begin in a link that has one.
function link(name, key) {
  const a = Object.assign(document.createElement('a'), {textContent: name, tabIndex: 0, role: 'link'})
  a.dataset.open = key
  return a
}

// onProblemClick calls open with the key of a worker that is clicked, and show with the problem
// whose button is clicked.
export function onProblemClick(open, show) {
  $('problems').onclick = e => {
    const a = e.target.closest('a')
    if (a && !hasSelection(a)) open(a.dataset.open)
    if (e.target === $('more')) {
      showAll = true
      drawProblems()
    }
    const p = e.target.closest('button')?._problem
    if (p) show(p)
  }
  $('problems').onkeydown = e => {
    if (e.key === 'Enter' && e.target.matches('a')) open(e.target.dataset.open)
  }
}
