// What is wrong, in the server's words.
import {$, phone, say, selects, text} from './dom.js'
import {now} from './state.js'
import {clock, many, num, span} from './format.js'
import {count, idOf, rank} from './workers.js'

const KINDS = {bad: 'serious', warn: 'to fix', info: 'to know'}
const CARD = '<details><summary><svg aria-hidden="true"><use/></svg><h3></h3></summary><p></p><p><b>Check:</b> <span></span></p></details><button class="link"></button>'

let known = new Map(), all = false

export function problems() {
  const list = now.snap.problems // the worst first
  announce(list)
  $('fine').hidden = list.length > 0
  $('problems').hidden = !list.length
  if (!list.length) text($('finetext'), fine())
  text($('wrongnote'), Object.entries(KINDS).map(([severity, words]) => [list.filter(p => p.severity === severity).length, words])
    .filter(([n]) => n).map(([n, words]) => `${n} ${words}`).join(' · '))
  const shown = all ? list : list.slice(0, phone.matches ? 4 : 8), few = list.length <= 3
  cards($('serious'), shown.filter(p => p.severity === 'bad'), few)
  cards($('lesser'), shown.filter(p => p.severity !== 'bad'), few)
  $('more').hidden = list.length === shown.length
  text($('more'), `${list.length - shown.length} more`)
}

function announce(list) {
  const current = new Map(list.map(p => [p.id, p.title]))
  const came = list.filter(p => !known.has(p.id)).map(p => p.title)
  const went = [...known].filter(([id]) => !current.has(id)).map(([, title]) => title)
  if (came.length) say(`${many(came.length, 'new problem')}: ${came.join('. ')}`)
  else if (went.length) say(`Solved: ${went.join('. ')}`)
  known = current
}

// fine is what can be said where nothing is wrong: no more than is so.
function fine() {
  if (!now.online) return `Not known: the page has had no data since ${clock(now.snap.now)}.`
  const {fleet: f, workers} = now.snap, {answering, silent, unregistered, malformed} = f.states
  const answer = answering + unregistered, total = answer + silent + malformed // static workers are in no registry
  const age = workers.reduce((oldest, w) => Math.max(oldest, w.age ?? 0), 0)
  const who = answer === total ? `All ${many(total, 'worker')} answer` : `${num(answer)} of ${many(total, 'worker')} answer`
  return (now.old ? `As of ${clock(now.snap.now)}: nothing. ` : 'Nothing. ') + `${total === 1 && answer ? 'The worker answers' : who}, the oldest load is ${span(age)} old` + (f.gaps || f.drops ? '.' : ', and no event is missing.')
}

function cards(ul, list, few) {
  while (ul.children.length > list.length) ul.lastChild.remove()
  list.forEach((p, i) => card(ul.children[i] ?? ul.appendChild(newCard()), p, few))
}

function newCard() {
  const li = document.createElement('li')
  li.innerHTML = CARD
  return li
}

function card(li, p, few) {
  const [box, button] = li.children, [summary, detail, check] = box.children, [svg, title] = summary.children
  if (li._id !== p.id) {
    li._id = p.id
    box.open = p.severity === 'bad' || few // the others wait for a click
  }
  if (li._severity !== p.severity) {
    li._severity = p.severity
    li.className = 'problem ' + p.severity
    svg.firstChild.setAttribute('href', '#g-' + p.severity)
  }
  text(title, p.title)
  details(detail, p.detail + (p.since ? ` Since ${clock(p.since).slice(0, 5)}.` : ''), p)
  check.hidden = !p.check
  text(check.lastChild, p.check ?? '')
  const n = new Set(p.workers).size, of = count([...new Set(p.workers)].map(key => now.byKey.get(key)).filter(Boolean))
  button.hidden = !n
  const label = n === 1 ? 'Open it' : n > of && of === 1 ? `Show its ${num(n)} ranks` : `Show ${num(of || n)}`
  text(button, label)
  if (button._for !== label + p.title) button.setAttribute('aria-label', `${label}: ${p.title}`)
  button._for = label + p.title
  button._problem = p
}

// details writes a sentence with a link on each worker that it names. The links stay while
// the words between them change: one of them may have the focus.
function details(el, s, p) {
  const keys = named(s, p.workers), names = [...keys.keys()].sort((a, b) => b.length - a.length)
  const parts = names.length ? s.split(new RegExp(`(?<!\\w)(${names.map(literal).join('|')})(?!\\w)`)) : [s]
  const links = JSON.stringify(parts.filter((_, i) => i % 2).map(name => [name, keys.get(name)]))
  if (el._links !== links) {
    el._links = links
    el.replaceChildren(...parts.map((part, i) => i % 2 ? link(part, keys.get(part)) : document.createTextNode(part)))
    return
  }
  for (let i = 0; i < parts.length; i += 2) if (el.childNodes[i].data !== parts[i]) el.childNodes[i].data = parts[i]
}

// named are the workers among these that a sentence names, by their names there. What is
// as short as a number might be one.
function named(s, workers) {
  const keys = new Map()
  for (const key of workers) {
    const w = now.byKey.get(key), name = w ? idOf(w) + rank(w) : ''
    if (name.length > 5 && s.includes(name)) keys.set(name, key)
  }
  return keys
}

const literal = s => s.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&')

// link has no address: text that begins within one that has cannot be selected.
function link(name, key) {
  const a = Object.assign(document.createElement('a'), {textContent: name, tabIndex: 0, role: 'link'})
  a.dataset.open = key
  return a
}

// onShow calls open with the key of the worker that is clicked, and f with the problem
// whose button is.
export function onShow(open, f) {
  $('problems').onclick = e => {
    const a = e.target.closest('a')
    if (a && !selects(a)) open(a.dataset.open)
    if (e.target === $('more')) {
      all = true
      problems()
    }
    const p = e.target.closest('button')?._problem
    if (p) f(p)
  }
  $('problems').onkeydown = e => {
    if (e.key === 'Enter' && e.target.matches('a')) open(e.target.dataset.open)
  }
}
