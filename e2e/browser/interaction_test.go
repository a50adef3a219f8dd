//go:build real

package browser

import (
	"fmt"
	"testing"
)

// startFleet starts 44 workers of two components. One of them is full, one is silent, one is
// unregistered and one is malformed.
func startFleet(env *environment) {
	for n := range 30 {
		env.startWorker("backend", workerID(n), 40+n%20)
	}
	for n := range 10 {
		env.startWorker("prefill", workerID(100+n), 20+n)
	}
	full, silent, unregistered, malformed := env.startWorker("backend", workerID(30), 40), env.startWorker("backend", workerID(31), 40), env.startWorker("backend", workerID(32), 55), env.startWorker("backend", workerID(33), 40)
	full.setLoad(99, 12)
	silent.stopAnswering()
	unregistered.deregister()
	malformed.answerMalformed()
	for n := range 30 {
		env.publishHit(workerID(n), 100, 30+n)
	}
}

func TestWebPageFiltersAndSorts(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("")
	b.waitForText("#states", "41 answering", "1 silent", "1 malformed")
	b.waitFor("document.querySelector('#f-namespace').parentNode.hidden") // there is only one namespace

	b.pressKeys("/")
	b.waitFor("document.activeElement.id === 'f-q'")
	b.pressKeys("p", "r", "e", "f") // letters in a text field are no shortcuts
	b.waitForText("#shown", "10 of 44 workers shown")
	b.waitForFragment("#q=pref")
	b.waitForText("#groups", "prefill/generate 10 workers")
	b.waitForText("#live", "Live")
	b.click("#clear")
	b.waitForFragment("")

	b.selectOption("#f-component", "prefill")
	b.waitForFragment("#component=prefill")
	b.waitForText("#range", "10 rows")
	b.click("#clear")
	b.click("#states [data-state=silent]")
	b.waitForFragment("#state=silent")
	b.waitForText("#rows", fmt.Sprint(workerID(31)), "silent")
	b.waitFor("document.querySelectorAll('#rows tr').length === 1")
	b.click("#clear")

	b.click("th[data-k=kv] button")
	b.waitForFragment("#sort=kv")
	b.waitForText("#rows tr:first-child", fmt.Sprint(workerID(30)), "99 %", "12")
	b.click("th[data-k=kv] button")
	b.waitForFragment("#sort=kv&dir=asc")
	b.waitForText("#rows tr:first-child", fmt.Sprint(workerID(100)), "20 %")
	b.click("th[data-k=id] button")
	b.waitForFragment("#sort=id&dir=asc")
	b.waitForText("#rows tr:first-child", fmt.Sprint(workerID(0)))

	b.selectOption("#f-group", "component")
	b.waitForText("#groups", "backend 34 workers", "prefill 10 workers")
	b.selectOption("#f-by", "hit")
	b.selectOption("#f-order", "kv")
	b.waitForFragment("#by=hit&order=kv&group=component&sort=id&dir=asc")
}

func TestWebPageURLHoldsTheView(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	p := env.startMetrics()
	b := startChromium(t).newTab(t)
	view := fmt.Sprintf("#component=prefill&by=slots&sort=kv&w=%d", workerID(104))
	b.open(p.url + "/" + view)
	b.waitForText("#range", "10 rows")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(104)))
	b.waitForText("#rows tr:first-child", fmt.Sprint(workerID(109)))
	b.waitFor("document.querySelector('#f-component').value === 'prefill' && document.querySelector('#f-by').value === 'slots'")
	b.waitForFragment(view)
	b.run("location.hash = '#state=malformed'") // as if a person edits it
	b.waitForText("#rows", fmt.Sprint(workerID(33)))
	b.waitFor("document.querySelector('#worker').hidden")
	for _, nonsense := range []string{"#by=x&order=y&group=z&sort=constructor&dir=up&page=-7&w=none&problem=none", "#page=999999", "#%E0%A4%A", "#group=__proto__"} {
		b.open(p.url + "/?" + nonsense)
		b.waitForText("#n-workers", "44")
		b.waitFor("document.querySelectorAll('#rows tr').length > 0")
	}
}

func TestWebPageProblemShowsItsWorkers(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	env.registerInstance("backend", workerID(40))
	b := env.openPage("")
	b.waitForText("#serious", "silent")
	b.waitFor("[...document.querySelectorAll('#serious .problem')].some(p => p.innerText.includes('silent') && p.querySelector('button').innerText === 'Show 2')")
	b.run("[...document.querySelectorAll('#serious .problem')].find(p => p.innerText.includes('silent')).querySelector('button').click()")
	b.waitForText("#shown", "2 of 45 workers shown")
	b.waitFor("document.querySelectorAll('#rows tr').length === 2")
	b.waitFor("location.hash.startsWith('#problem=silent')")
}

func TestWebPageKeyboardShortcuts(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("#sort=id&dir=asc")
	b.waitForText("#n-workers", "44")

	b.pressKeys("t")
	b.waitFor("document.documentElement.dataset.theme === 'dark'")
	b.pressKeys("t")
	b.waitFor("document.documentElement.dataset.theme === 'light'")
	b.pressKeys("?")
	b.waitForText("#keys", "Keys and meanings", "find a worker")
	b.pressKeys("Escape")
	b.waitFor("!document.querySelector('#keys').open")
	// A key that is pressed before the browser has drawn the page without the dialog is not lost.
	b.run("document.querySelector('#help').click(), document.querySelector('#keys').close(), document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 't', bubbles: true}))")
	b.waitFor("document.documentElement.dataset.theme === 'dark'")

	b.pressKeys("p")
	b.waitForText("#live", "Paused")
	joined := env.startWorker("backend", workerID(50), 60)
	b.waitFor("document.querySelector('#ago').innerText !== ''")
	b.waitForText("#n-workers", "44")
	b.pressKeys("p")
	b.waitForText("#live", "Live")
	b.waitForText("#n-workers", "45")
	joined.stop()
	b.waitForText("#n-workers", "44")
}

func TestWebPageKeyboardInHeatMap(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("#sort=id&dir=asc")
	b.waitForText("#n-workers", "44")
	b.run("document.querySelector('#map').focus()")
	b.pressKeys("ArrowRight", "ArrowRight", "ArrowDown")
	b.waitForText("#tip", "state", "answering", "KV blocks")
	b.pressKeys("Home", "ArrowRight", "Enter")
	b.waitForFragment(fmt.Sprintf("#sort=id&dir=asc&w=%d", workerID(1)))
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(1)))
	b.pressKeys("j")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(2)))
	b.pressKeys("k", "k")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(0)))
	b.pressKeys("Escape")
	b.waitFor("document.querySelector('#worker').hidden && document.activeElement.id === 'map'")
	b.waitForFragment("#sort=id&dir=asc")
}

func TestWebPageKeyboardInTableAndPlots(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("#sort=id&dir=asc")
	b.waitForText("#n-workers", "44")
	b.run("document.querySelector('#rows tr').focus()")
	b.waitForText("#order-note", "order held")
	b.pressKeys("ArrowDown", "Enter")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(1)))
	b.pressKeys("Escape")
	b.waitFor("document.activeElement === document.querySelectorAll('#rows tr')[1]")

	b.run("document.querySelector('#p-load .plot').focus()")
	b.pressKeys("ArrowLeft", "ArrowLeft") // to now, and one sample back
	b.waitFor("document.querySelector('#p-load .plot').getAttribute('aria-valuetext').startsWith('5.0 s ago')")
	b.waitFor("[...document.querySelectorAll('#fleet .crosshair')].every(line => !line.hidden)")
}

func TestWebPagePointer(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	p := env.startMetrics()
	c := startChromium(t)
	must(t, c.call("", "Browser.grantPermissions", object{"origin": p.url, "permissions": []string{"clipboardReadWrite", "clipboardSanitizedWrite"}}, nil))
	b := c.newTab(t)
	b.open(p.url + "/")
	b.waitForText("#n-workers", "44")
	b.run("document.querySelector('#map').scrollIntoView()")
	var at struct{ X, Y float64 }
	must(t, b.eval("(r => ({x: r.x + 10, y: r.y + 30}))(document.querySelector('#map').getBoundingClientRect())", &at))
	b.call("Input.dispatchMouseEvent", object{"type": "mouseMoved", "x": at.X, "y": at.Y}, nil)
	b.waitForText("#tip", fmt.Sprintf("%x", workerID(0)), "4,000 / 10,000 · 40 %", "25 / 64")
	b.clickAt(at.X, at.Y)
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(0)))
	b.click("#w-close")
	b.run("document.querySelector('#rows tr').focus()")
	b.pressKeys("x")
	b.waitForText("#toast", "hexadecimal id")
}

// selectOption chooses an option of a select element, as a person does.
func (b *tab) selectOption(selector, value string) {
	b.t.Helper()
	b.run(fmt.Sprintf("(s => { s.value = %q; s.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector(%q))", value, selector))
}
