// The colours of the heat map's canvas. They follow the custom properties of page.css.
import {STATES} from './state.js'

// The colours of 0 to 100 %: the higher the value, the further from the background.
const RAMP = {
  light: ['#e6edf0', '#cadfe6', '#a0c8d7', '#6ca8c4', '#3d84ad', '#266094', '#1f3b71', '#221a4c'],
  dark: ['#1c2833', '#1d3c54', '#1d5a73', '#2a7d84', '#55a47c', '#9cc468', '#d6d653', '#fbe96a'],
}

// palette holds the style's colours by name; fill has a colour for each percent, and
// onFill the colour of text on it.
export const palette = {fill: [], onFill: []}

export const percent = v => Math.max(0, Math.min(100, Math.round(v * 100)))

const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16))

function luminance(colour) {
  const [r, g, b] = colour.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  return .2126 * r + .7152 * g + .0722 * b
}

// loadPalette reads the colours from the style, which the theme changes.
export function loadPalette() {
  const root = document.documentElement, style = getComputedStyle(root)
  for (const name of ['sans', 'ink', 'ink-3', 'panel', 'sunk', 'accent', ...STATES]) palette[name] = style.getPropertyValue('--' + name).trim()
  const stops = RAMP[root.dataset.theme].map(rgb)
  for (let i = 0; i <= 100; i++) {
    const x = i / 100 * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(x))
    const colour = stops[k].map((a, j) => Math.round(a + (stops[k + 1][j] - a) * (x - k)))
    palette.fill[i] = `rgb(${colour})`
    palette.onFill[i] = luminance(colour) > .179 ? '#000000' : '#ffffff' // the one with the greater contrast, which is never less than 4.5
  }
  palette.hatch = hatch(palette.silent)
}

function hatch(colour) {
  const tile = Object.assign(document.createElement('canvas'), {width: 6, height: 6}), k = tile.getContext('2d')
  k.strokeStyle = colour
  k.lineWidth = 1.3
  for (const [x1, y1, x2, y2] of [[-1, 7, 7, -1], [-4, 4, 4, -4], [2, 10, 10, 2]]) {
    k.moveTo(x1, y1)
    k.lineTo(x2, y2)
  }
  k.stroke()
  return k.createPattern(tile, 'repeat')
}
