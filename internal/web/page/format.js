// Numbers as text. A value that was not reported is a dash, never a zero.
export const DASH = '–'

const INTEGER = new Intl.NumberFormat('en-US', {maximumFractionDigits: 0})

export const num = x => x == null ? DASH : INTEGER.format(x)
export const pct = (x, digits = 0) => x == null ? DASH : (x * 100).toFixed(digits) + '\u00a0%'
export const percentagePoints = x => (x * 100).toFixed(0)
export const ratio = (x, digits = 2) => x == null ? DASH : x.toFixed(digits) + '×'
export const ofTotal = (active, total) => active == null ? DASH : total == null ? num(active) : `${num(active)} / ${num(total)}`
export const plural = (n, one, several = one + 's') => `${num(n)} ${n === 1 ? one : several}`
export const clock = ms => new Date(ms).toLocaleTimeString('en-GB')

// duration writes s seconds in the unit that fits.
export function duration(s) {
  if (s < 10) return s.toFixed(1) + ' s'
  if (s < 100) return Math.round(s) + ' s'
  if (s < 6000) return Math.round(s / 60) + ' min'
  return Math.round(s / 3600) + ' h'
}
