// The state that all parts of the page draw from.
export const STATES = ['answering', 'silent', 'unregistered', 'malformed']

export const current = {
  snapshot: null,   // the snapshot that is shown
  byKey: new Map(), // its workers
  shown: [],        // the workers that the filters let through
  ordered: [],      // the same in the order of the table
  fresh: true,      // snapshots arrive as often as they should
  outdated: false,  // snapshots do not arrive, or updates are paused
  lag: 0,           // how many seconds old the snapshot is, if it is outdated
}

// draw redraws the whole page, with the function that main.js sets.
let drawAll = () => {}
export const onDraw = f => { drawAll = f }
export function draw() {
  if (current.snapshot) drawAll()
}
