//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

// longName returns a name of sixty characters that begins with these.
func longName(begin string) string { return begin + strings.Repeat("-and-more", 7)[:60-len(begin)] }

// startFleetWithLongNames starts workers with long names. Each endpoint has problems.
func startFleetWithLongNames(env *environment, namespaces ...string) {
	for i, namespace := range namespaces {
		for j, component := range []string{longName("backend"), longName("prefill"), "short"} {
			for n := range 8 {
				env.startWorkerIn(namespace, component, workerID(1000*i+100*j+n), 30+5*n)
			}
			env.startWorkerIn(namespace, component, workerID(1000*i+100*j+10), 30).setLoad(99, 12)
			env.startWorkerIn(namespace, component, workerID(1000*i+100*j+11), 30).answerMalformed()
			env.newWorker(namespace, component, workerID(1000*i+100*j+12)).register()
		}
	}
}

// layoutFaults is JavaScript that returns the texts that are cut off without an ellipsis, and the
// elements that are wider than the window.
const layoutFaults = `(() => {
	const found = new Set, wide = document.documentElement.clientWidth
	if (document.documentElement.scrollWidth > wide || innerWidth > wide) found.add('the page is wider than the window: ' + [...document.querySelectorAll('body *')]
		.filter(e => e.getBoundingClientRect().right > wide).map(e => e.tagName + '.' + e.className + '#' + e.id))
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
	for (let n; n = texts.nextNode();) {
		const el = n.parentElement, range = document.createRange()
		if (!n.data.trim() || !el.checkVisibility({visibilityProperty: true}) || el.closest('.sr, select, .skip, noscript')) continue
		range.selectNodeContents(n)
		const r = range.getBoundingClientRect(), what = el.tagName + '.' + el.className + '#' + (el.id || el.parentElement.id) + ': ' + n.data.trim().slice(0, 90)
		if (!r.width) continue
		let marked = false
		for (let a = el; a !== document.body; a = a.parentElement) {
			const style = getComputedStyle(a), box = a.getBoundingClientRect()
			if (style.overflowX === 'visible') continue
			if (r.right <= box.right + 1 && r.left >= box.left - 1) continue
			marked = style.textOverflow === 'ellipsis' && !!el.closest('[title]')?.title || a.closest('.command')
			if (!marked) found.add('cut off: ' + what)
			break
		}
		const block = el.closest('td, th, li, p, h1, h2, h3, dd, dt, button')
		if (!marked && block && r.right > block.getBoundingClientRect().right + 1) found.add('beyond its block: ' + what)
		if (!marked && r.right > wide + 1) found.add('beyond the window: ' + what)
	}
	return [...found]
})()`

// waitForLayout waits until the page has its new width and the heat map, which is drawn a little later, too.
func (b *tab) waitForLayout(width int) {
	b.t.Helper()
	b.waitFor(fmt.Sprintf("document.documentElement.clientWidth === %d && document.querySelector('#map canvas').offsetWidth <= document.querySelector('#map').clientWidth", width))
}

// checkLayout reports layoutFaults of the page in this state.
func (b *tab) checkLayout(state string) {
	b.t.Helper()
	var found []string
	must(b.t, b.eval(layoutFaults, &found))
	for _, f := range found {
		b.t.Errorf("%s: %s", state, f)
	}
}

func TestWebPageLayoutOfLongNames(t *testing.T) {
	env := newEnvironment(t)
	one, other := longName("dynamo"), longName("dynamic")
	startFleetWithLongNames(env, one, other)
	c := startChromium(t)
	for name, namespace := range map[string]string{"one namespace": one, "several": "dyna*"} {
		p := env.startMetrics("--namespace", namespace, "--standby", "--model-name", longName("meta-llama"))
		p.waitForFleet("full:")
		p.waitForFleet("malformed:")
		b := c.newTab(t)
		b.open(p.url + "/")
		b.waitFor("document.querySelectorAll('#rows tr').length > 20 && !!document.querySelector('.problem')")
		b.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
		for _, width := range []int{320, 360, 375, 390, 640, 700, 768, 900, 1024, 1180, 1440, 1920} {
			if width < 640 {
				b.resizePhone(width, 800)
			} else {
				b.resize(width, 900)
			}
			b.waitForLayout(width)
			state := fmt.Sprintf("%s, %d wide", name, width)
			b.checkLayout(state)
			b.run("location.hash = 'w=' + document.querySelector('#rows tr')._key")
			b.waitForText("#w-title", "694d")
			b.checkLayout(state + ", a worker open")
			b.waitFor("(r => r.width >= 24 && r.left >= 0 && r.right <= visualViewport.width && !!document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2).closest('#w-close'))(document.querySelector('#w-close').getBoundingClientRect())")
			b.screenshot(strings.ReplaceAll(state, " ", "-"))
			b.pressKeys("Escape")
			b.waitFor("document.querySelector('#worker').hidden")
			b.run("document.querySelector('#map').scrollIntoView()")
			b.screenshot(strings.ReplaceAll(state, " ", "-") + "-map")
		}
	}
}

func TestWebPageLayoutOfRanks(t *testing.T) {
	env := newEnvironment(t)
	env.registerInstance("backend", workerID(0))
	env.registerInstance("backend", workerID(1))
	p := env.startMetrics()
	env.publishRanks(p, workerID(0), 8)
	env.publishRanks(p, workerID(1), 24)
	b := startChromium(t).newTab(t)
	b.open(fmt.Sprintf("%s/#w=%d%%2F3", p.url, workerID(0)))
	b.waitForText("#w-title", "rank 3")
	b.waitForText("#w-ranks", "Its 8 ranks", "rank 0 answering 10 % 10 / 64 0", "rank 3 answering 40 % 13 / 64 3", "rank 7 answering 80 % 17 / 64 7")
	b.waitFor("document.querySelector('#w-ranks [aria-current]').innerText === 'rank 3'")
	for _, width := range []int{360, 1440} {
		b.resize(width, 900)
		b.waitForLayout(width)
		b.checkLayout(fmt.Sprintf("%d wide", width))
		b.screenshot(fmt.Sprintf("ranks-%d", width))
	}
	b.click(fmt.Sprintf("#w-ranks [data-open='%d/7']", workerID(0)))
	b.waitForText("#w-title", "rank 7")
	b.waitForFragment(fmt.Sprintf("#w=%d%%2F7", workerID(0)))
	b.run(fmt.Sprintf("location.hash = '#w=%d/23'", workerID(1)))
	b.waitForText("#w-ranks h3", "Its 24 ranks")
	env.startWorker("backend", workerID(2), 40)
	b.waitForText("#n-workers", "3")
	b.run(fmt.Sprintf("location.hash = '#w=%d'", workerID(2)))
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(2)))
	b.waitFor("document.querySelector('#w-ranks').hidden")
}

func TestWebPageLayoutKeepsTableHeaderVisible(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("")
	b.waitForText("#n-workers", "44")
	for _, width := range []int{1440, 900, 375} {
		b.resize(width, 700)
		b.run("document.querySelector('#rows tr:nth-child(20)').scrollIntoView({block: 'center'})")
		// The table's header is directly below the bar, covers the rows, and can be clicked.
		b.waitFor(`(r => Math.abs(r.top - document.querySelector('.header').getBoundingClientRect().bottom) <= 1 &&
			!!document.elementFromPoint(r.x + 10, r.y + r.height / 2).closest('th[data-k=kv]'))(document.querySelector('th[data-k=kv]').getBoundingClientRect())`)
	}
	// The header does not cover the row that has the focus.
	b.run("document.querySelector('#rows tr:nth-child(20)').focus()")
	b.pressKeys("Home", "End", "Home")
	b.waitFor("document.activeElement === document.querySelector('#rows tr') && document.activeElement.getBoundingClientRect().top >= document.querySelector('#cols').getBoundingClientRect().bottom - 1")
}

// smallTargets is JavaScript that returns the pointer targets that are smaller than the 24 by 24
// pixels that WCAG 2.2 (2.5.8) requires. Links within a sentence are exempt.
const smallTargets = `[...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex], [role=button], [role=slider]')].filter(e =>
	e.checkVisibility({visibilityProperty: true}) && !e.closest('.sr, .skip') && !e.matches('h2, p a')).map(e => [e, e.getBoundingClientRect()])
	.filter(([, r]) => r.width < 24 || r.height < 24).map(([e, r]) => e.outerHTML.slice(0, 120) + ' ' + r.width + ' × ' + r.height)`

func TestWebPageLayoutOfPointerTargets(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	env.registerInstance("backend", workerID(60))
	p := env.startMetrics()
	env.publishRanks(p, workerID(60), 8)
	p.waitForFleet("malformed:")
	b := startChromium(t).newTab(t)
	states := map[string]func(){
		"": func() {},
		"worker": func() {
			b.run(fmt.Sprintf("location.hash = 'w=%d/1'", workerID(60)))
			b.waitForText("#w-ranks", "rank 7")
		},
		"keys": func() { b.run("location.hash = ''"); b.pressKeys("?"); b.waitForText("#keys", "Keys and meanings") },
	}
	for _, state := range []string{"", "worker", "keys"} {
		b.open(p.url + "/")
		b.waitForText("#n-workers", "45")
		states[state]()
		for _, width := range []int{1440, 1024, 375} {
			b.resize(width, 900)
			var small []string
			must(t, b.eval(smallTargets, &small))
			for _, target := range small {
				t.Errorf("%s, %d wide: %s", state, width, target)
			}
		}
	}
	empty, c := env.startMetrics("--component", "none", "--standby"), b.browser
	b = c.newTab(t)
	b.open(empty.url + "/")
	b.waitForText("#empty", "No worker yet")
	var small []string
	must(t, b.eval(smallTargets, &small))
	if len(small) > 0 {
		t.Errorf("without workers: %q", small)
	}
}
