// Before the first paint, so that nothing flashes.
document.documentElement.dataset.theme = (() => {
  try {
    if (['light', 'dark'].includes(localStorage.theme)) return localStorage.theme
  } catch { /* storage is off */ }
  return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'
})()
