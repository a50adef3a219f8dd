// What all parts of the page draw from.
export const STATES = ['answering', 'silent', 'unregistered', 'malformed']

export const current = {
  snapshot: null,        // the snapshot that is shown
  byKey: new Map(),  // its workers
  shown: [],         // those that the filters let through
  ordered: [],       // the same in the order of the table
  fresh: true,      // the numbers are as young as they should be
  outdated: false,        // they are not, or are held: what is shown was so
  lag: 0,         // seconds by which it was, then
}

// draw has everything drawn anew; main.js says how.
let drawAll = () => {}
export const onDraw = f => { drawAll = f }
export function draw() {
  if (current.snapshot) drawAll()
}
