// A plot of the last 15 minutes, or at first of the last one or five: an SVG with a few
// paths, and a crosshair that all plots of a group share. For a screen reader it is a
// slider that moves through time.
import {text} from './dom.js'
import {duration} from './format.js'

// How many samples a plot can hold. The smallest capacity that suffices is used: a program that has just started has few samples.
const CAPACITIES = [12, 60, 180]
const KEYS = {ArrowLeft: i => i - 1, ArrowRight: i => i + 1, PageUp: i => i - 12, PageDown: i => i + 12, Home: () => 0, End: () => Infinity}

export const AXIS = '<div class="axis" aria-hidden="true"><span></span><span>now</span></div>'

const FRAME = `<div class="plot" tabindex="0" role="slider" aria-valuemin="0" aria-valuemax="0" aria-valuenow="0">
  <svg viewBox="0 0 1000 60" preserveAspectRatio="none" aria-hidden="true">PATHS</svg><i class="dot" hidden></i>
  <span class="y hi" aria-hidden="true"></span><span class="y mid" aria-hidden="true"></span><span class="y lo" aria-hidden="true"></span>
  <i class="crosshair" hidden></i><span class="readout" aria-hidden="true" hidden></span></div>`

// newPlotGroup returns what the plots that share a crosshair have in common.
export const newPlotGroup = () => ({plots: [], at: null})

// A layer is {className, y, domain} or, for a band, {className, lo, hi, domain}. y, lo and hi
// name series of the data, and domain(data) is the lowest and highest value of the axis. A
// layer may also have these fields:
// - strip: the top and bottom of the part of the plot's 60 units that it is drawn in;
// - steps: whether it is drawn as a staircase;
// - main: whether the labels are of this layer. format writes them, and lowLabel and midLabel
//   write labels of another scale.
export class Plot {
  constructor(parent, {group, name, layers, describe, axis = AXIS}) {
    Object.assign(this, {group, name, layers, describe})
    const paths = layers.map(l => `<path class="${l.className}"/>`).join('')
    parent.insertAdjacentHTML('beforeend', FRAME.replace('PATHS', paths) + axis)
    this.el = parent.querySelector('.plot')
    this.paths = this.el.querySelectorAll('path')
    for (const part of ['dot', 'hi', 'mid', 'lo', 'crosshair']) this[part] = this.el.querySelector('.' + part)
    this.readout = this.el.querySelector('.readout')
    this.startLabel = parent.querySelector('.axis span')
    this.capacity = CAPACITIES[0]
    group.plots.push(this)
    this.listen()
  }

  listen() {
    this.el.onpointermove = e => {
      const box = this.el.getBoundingClientRect()
      this.pointAt(Math.round((e.clientX - box.left) / box.width * (this.capacity - 1)))
    }
    this.el.onpointerleave = this.el.onblur = () => this.pointAt(null)
    this.el.onkeydown = e => {
      if (!KEYS[e.key]) return
      e.preventDefault()
      this.pointAt(KEYS[e.key](this.group.at ?? this.capacity))
    }
  }

  pointAt(i) {
    this.group.at = i == null ? null : Math.max(0, Math.min(this.capacity - 1, i))
    for (const p of this.group.plots) p.drawCrosshair(p === this)
  }

  // drawCrosshair draws the crosshair and, on the plot that is pointed at, the value there.
  drawCrosshair(isPointedAt) {
    const i = this.group.at, last = this.capacity - 1
    this.crosshair.hidden = i == null
    this.readout.hidden = i == null || !isPointedAt
    if (i == null || !this.data) return
    this.crosshair.style.left = i / last * 100 + '%'
    if (!isPointedAt) return
    const ago = (last - i) * this.step, k = i - (this.capacity - this.len)
    text(this.readout, `${ago ? duration(ago) + ' ago' : 'now'}: ${k < 0 ? 'not running yet' : this.describe(this.data, k)}`)
    this.readout.style.left = `clamp(60px, ${i / last * 100}%, calc(100% - 60px))`
    this.el.setAttribute('aria-valuenow', -ago)
    this.el.setAttribute('aria-valuetext', this.readout.textContent)
  }

  update(data, step) {
    this.data = data
    this.step = step
    const [first] = this.layers
    this.len = data[first.y ?? first.lo].length
    this.capacity = CAPACITIES.find(n => this.len <= n) ?? CAPACITIES.at(-1)
    const minutes = this.capacity * step / 60
    this.time = minutes === 1 ? 'last minute' : `last ${minutes} minutes`
    if (this.startLabel) text(this.startLabel, `${minutes} min ago`)
    this.el.setAttribute('aria-valuemin', -this.capacity * step)
    this.layers.forEach((l, n) => {
      const [lo, hi] = l.domain(data), [top, bottom] = l.strip ?? [2, 58]
      const y = v => (bottom - (Math.min(hi, Math.max(lo, v)) - lo) / (hi - lo || 1) * (bottom - top)).toFixed(1)
      this.paths[n].setAttribute('d', this.pathData(l, data, y, bottom) || 'M0 0')
      if (l.main) this.label(l, data, lo, hi, y)
    })
    if (this.group.at != null) this.drawCrosshair(!this.readout.hidden)
  }

  // pathData returns the path of a layer. Where the series has no value, the path has a gap.
  pathData(l, data, y, bottom) {
    const x = i => ((this.capacity - this.len + i) / (this.capacity - 1) * 1000).toFixed(1)
    const known = data[l.y ?? l.lo]
    let d = ''
    for (let i = 0; i < this.len;) {
      if (known[i] == null) { i++; continue }
      let end = i
      while (end < this.len && known[end] != null) end++
      d += l.lo ? band(data[l.lo], data[l.hi], i, end, x, y) : line(l, known, i, end, x, y, bottom)
      i = end
    }
    return d
  }

  label(l, data, lo, hi, y) {
    const series = data[l.y], v = series.at(-1), known = series.filter(v => v != null)
    this.dot.hidden = v == null
    if (v != null) this.dot.style.top = y(v) / 60 * 100 + '%'
    text(this.hi, l.format(hi))
    text(this.lo, l.lowLabel ? l.lowLabel(data) : l.format(lo))
    if (l.midLabel) text(this.mid, l.midLabel(data))
    this.el.setAttribute('aria-label', `${this.name}, ${this.time}: ` + (known.length
      ? `now ${l.format(v)}, lowest ${l.format(Math.min(...known))}, highest ${l.format(Math.max(...known))}` : 'not reported'))
    if (this.group.at == null) this.el.setAttribute('aria-valuetext', v == null ? 'not reported' : `now ${l.format(v)}`)
  }
}

// band returns a path that goes forward along hi and back along lo.
function band(lo, hi, from, end, x, y) {
  let forward = '', back = ''
  for (let i = from; i < end; i++) {
    forward += `${i === from ? 'M' : 'L'}${x(i)} ${y(hi[i])}`
    back = `L${x(i)} ${y(lo[i])}` + back
  }
  return forward + back + 'Z'
}

function line(l, values, from, end, x, y, bottom) {
  const filled = l.className.startsWith('area') || l.className.startsWith('fill')
  let d = filled ? `M${x(from)} ${bottom}V${y(values[from])}` : `M${x(from)} ${y(values[from])}`
  for (let i = from + 1; i < end; i++) d += l.steps ? `H${x(i)}V${y(values[i])}` : `L${x(i)} ${y(values[i])}`
  if (end === from + 1) d += 'h1' // a single sample would not be visible
  return filled ? d + `V${bottom}H${x(from)}Z` : d
}

// axisMax returns the smallest round number, at least m, at which an axis may end.
export function axisMax(m) {
  if (m <= 1) return 1
  const e = 10 ** Math.floor(Math.log10(m))
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find(k => m <= k * e) * e
}

export const fractionDomain = () => [0, 1]
export const domainUpTo = key => data => [0, axisMax(Math.max(0, ...data[key]))]
