// What all parts of the page draw from.
export const STATES = ['answering', 'silent', 'unregistered', 'malformed']

export const now = {
  snap: null,        // the snapshot that is shown
  byKey: new Map(),  // its workers
  shown: [],         // those that the filters let through
  ordered: [],       // the same in the order of the table
  online: true,      // the numbers are as young as they should be
  old: false,        // they are not, or are held: what is shown was so
  behind: 0,         // seconds by which it was, then
}

// draw has everything drawn anew; main.js says how.
let everything = () => {}
export const drawWith = f => { everything = f }
export function draw() {
  if (now.snap) everything()
}
