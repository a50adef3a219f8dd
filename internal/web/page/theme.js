// This runs before the first paint, so that the page does not flash in the wrong theme.
document.documentElement.dataset.theme = (() => {
  try {
    if (['light', 'dark'].includes(localStorage.theme)) return localStorage.theme
  } catch { /* switched off */ }
  return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'
})()
