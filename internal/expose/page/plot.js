// A plot of the last 15 minutes, or at first of the last one or five: one SVG, a handful
// of paths, and a hair line that all plots of a set share. To a screen reader it is a
// slider that is moved through time.
import {text} from './dom.js'
import {span} from './format.js'

// How many samples a plot may have room for: a program that has just begun has few.
const ROOMS = [12, 60, 180]
const KEYS = {ArrowLeft: i => i - 1, ArrowRight: i => i + 1, PageUp: i => i - 12, PageDown: i => i + 12, Home: () => 0, End: () => Infinity}

export const AXIS = '<div class="axis" aria-hidden="true"><span></span><span>now</span></div>'

const FRAME = `<div class="plot" tabindex="0" role="slider" aria-valuemin="0" aria-valuemax="0" aria-valuenow="0">
  <svg viewBox="0 0 1000 60" preserveAspectRatio="none" aria-hidden="true">PATHS</svg><i class="dot" hidden></i>
  <span class="y hi" aria-hidden="true"></span><span class="y mid" aria-hidden="true"></span><span class="y lo" aria-hidden="true"></span>
  <i class="hair" hidden></i><span class="say" aria-hidden="true" hidden></span></div>`

// newSet is what the plots that share a hair line have in common.
export const newSet = () => ({plots: [], at: null})

// A layer is {cls, y, dom} or, for a band, {cls, lo, hi, dom}: y, lo and hi name series
// of the data, and dom(data) is its lowest and highest value. Others: part, the top and
// bottom of the strip that it is drawn in, of 60; steps, drawn as a staircase; main, the
// one whose values are written, by fmt, with lo2 and mid for labels of another scale.
export class Plot {
  constructor(parent, {set, name, layers, say, axis = AXIS}) {
    Object.assign(this, {set, name, layers, say})
    const paths = layers.map(l => `<path class="${l.cls}"/>`).join('')
    parent.insertAdjacentHTML('beforeend', FRAME.replace('PATHS', paths) + axis)
    this.el = parent.querySelector('.plot')
    this.paths = this.el.querySelectorAll('path')
    for (const part of ['dot', 'hi', 'mid', 'lo', 'hair']) this[part] = this.el.querySelector('.' + part)
    this.box = this.el.querySelector('.say')
    this.begin = parent.querySelector('.axis span')
    this.room = ROOMS[0]
    set.plots.push(this)
    this.listen()
  }

  listen() {
    this.el.onpointermove = e => {
      const box = this.el.getBoundingClientRect()
      this.point(Math.round((e.clientX - box.left) / box.width * (this.room - 1)))
    }
    this.el.onpointerleave = this.el.onblur = () => this.point(null)
    this.el.onkeydown = e => {
      if (!KEYS[e.key]) return
      e.preventDefault()
      this.point(KEYS[e.key](this.set.at ?? this.room))
    }
  }

  point(i) {
    this.set.at = i == null ? null : Math.max(0, Math.min(this.room - 1, i))
    for (const p of this.set.plots) p.mark(p === this)
  }

  // mark draws the hair line, and on the plot that is pointed at says what is there.
  mark(own) {
    const i = this.set.at, last = this.room - 1
    this.hair.hidden = i == null
    this.box.hidden = i == null || !own
    if (i == null || !this.data) return
    this.hair.style.left = i / last * 100 + '%'
    if (!own) return
    const ago = (last - i) * this.step, k = i - (this.room - this.len)
    text(this.box, `${ago ? span(ago) + ' ago' : 'now'}: ${k < 0 ? 'not running yet' : this.say(this.data, k)}`)
    this.box.style.left = `clamp(60px, ${i / last * 100}%, calc(100% - 60px))`
    this.el.setAttribute('aria-valuenow', -ago)
    this.el.setAttribute('aria-valuetext', this.box.textContent)
  }

  update(data, step) {
    this.data = data
    this.step = step
    const [first] = this.layers
    this.len = data[first.y ?? first.lo].length
    this.room = ROOMS.find(n => this.len <= n) ?? ROOMS.at(-1)
    const minutes = this.room * step / 60
    this.time = minutes === 1 ? 'last minute' : `last ${minutes} minutes`
    if (this.begin) text(this.begin, `${minutes} min ago`)
    this.el.setAttribute('aria-valuemin', -this.room * step)
    this.layers.forEach((l, n) => {
      const [lo, hi] = l.dom(data), [top, bottom] = l.part ?? [2, 58]
      const y = v => (bottom - (Math.min(hi, Math.max(lo, v)) - lo) / (hi - lo || 1) * (bottom - top)).toFixed(1)
      this.paths[n].setAttribute('d', this.path(l, data, y, bottom) || 'M0 0')
      if (l.main) this.label(l, data, lo, hi, y)
    })
    if (this.set.at != null) this.mark(!this.box.hidden)
  }

  // path draws what is known: a hole in the series is a hole in the line.
  path(l, data, y, bottom) {
    const x = i => ((this.room - this.len + i) / (this.room - 1) * 1000).toFixed(1)
    const known = data[l.y ?? l.lo]
    let d = ''
    for (let i = 0; i < this.len;) {
      if (known[i] == null) { i++; continue }
      let end = i
      while (end < this.len && known[end] != null) end++
      d += l.lo ? band(data[l.lo], data[l.hi], i, end, x, y) : run(l, known, i, end, x, y, bottom)
      i = end
    }
    return d
  }

  label(l, data, lo, hi, y) {
    const series = data[l.y], v = series.at(-1), known = series.filter(v => v != null)
    this.dot.hidden = v == null
    if (v != null) this.dot.style.top = y(v) / 60 * 100 + '%'
    text(this.hi, l.fmt(hi))
    text(this.lo, l.lo2 ? l.lo2(data) : l.fmt(lo))
    if (l.mid) text(this.mid, l.mid(data))
    this.el.setAttribute('aria-label', `${this.name}, ${this.time}: ` + (known.length
      ? `now ${l.fmt(v)}, lowest ${l.fmt(Math.min(...known))}, highest ${l.fmt(Math.max(...known))}` : 'not reported'))
    if (this.set.at == null) this.el.setAttribute('aria-valuetext', v == null ? 'not reported' : `now ${l.fmt(v)}`)
  }
}

// band goes forth along the top and back along the bottom.
function band(lo, hi, from, end, x, y) {
  let there = '', back = ''
  for (let i = from; i < end; i++) {
    there += `${i === from ? 'M' : 'L'}${x(i)} ${y(hi[i])}`
    back = `L${x(i)} ${y(lo[i])}` + back
  }
  return there + back + 'Z'
}

function run(l, values, from, end, x, y, bottom) {
  const filled = l.cls.startsWith('area') || l.cls.startsWith('fill')
  let d = filled ? `M${x(from)} ${bottom}V${y(values[from])}` : `M${x(from)} ${y(values[from])}`
  for (let i = from + 1; i < end; i++) d += l.steps ? `H${x(i)}V${y(values[i])}` : `L${x(i)} ${y(values[i])}`
  if (end === from + 1) d += 'h1' // a single sample would not be seen
  return filled ? d + `V${bottom}H${x(from)}Z` : d
}

// round is the next number at which an axis may end.
export function round(m) {
  if (m <= 1) return 1
  const e = 10 ** Math.floor(Math.log10(m))
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find(k => m <= k * e) * e
}

export const unit = () => [0, 1]
export const upTo = key => data => [0, round(Math.max(0, ...data[key]))]
