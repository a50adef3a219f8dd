//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

// long is a name of sixty characters.
func long(begin string) string { return begin + strings.Repeat("-and-more", 7)[:60-len(begin)] }

// unwieldy is a fleet of long names, with problems at each endpoint.
func unwieldy(s *stage, namespaces ...string) {
	for i, namespace := range namespaces {
		for j, component := range []string{long("backend"), long("prefill"), "short"} {
			for n := range 8 {
				s.workerIn(namespace, component, nth(1000*i+100*j+n), 30+5*n)
			}
			s.workerIn(namespace, component, nth(1000*i+100*j+10), 30).load(99, 12)
			s.workerIn(namespace, component, nth(1000*i+100*j+11), 30).garble()
			s.instance(namespace, component, nth(1000*i+100*j+12)).register()
		}
	}
}

// faults are the texts that are cut off with no sign, and what is wider than the window.
const faults = `(() => {
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
		let signed = false
		for (let a = el; a !== document.body; a = a.parentElement) {
			const style = getComputedStyle(a), box = a.getBoundingClientRect()
			if (style.overflowX === 'visible') continue
			if (r.right <= box.right + 1 && r.left >= box.left - 1) continue
			signed = style.textOverflow === 'ellipsis' && !!el.closest('[title]')?.title || a.closest('.cmd')
			if (!signed) found.add('cut: ' + what)
			break
		}
		const block = el.closest('td, th, li, p, h1, h2, h3, dd, dt, button')
		if (!signed && block && r.right > block.getBoundingClientRect().right + 1) found.add('beyond its place: ' + what)
		if (!signed && r.right > wide + 1) found.add('beyond the window: ' + what)
	}
	return [...found]
})()`

// laidOut waits until the page has taken to a new width: the map is drawn a little later.
func (b *tab) laidOut(width int) {
	b.t.Helper()
	b.is(fmt.Sprintf("document.documentElement.clientWidth === %d && document.querySelector('#map canvas').offsetWidth <= document.querySelector('#map').clientWidth", width))
}

func (b *tab) fits(state string) {
	b.t.Helper()
	var found []string
	must(b.t, b.try(faults, &found))
	for _, f := range found {
		b.t.Errorf("%s: %s", state, f)
	}
}

func TestRealPageHasRoomForLongNames(t *testing.T) {
	s := newStage(t)
	one, other := long("dynamo"), long("dynamic")
	unwieldy(s, one, other)
	c := startChromium(t)
	for name, namespace := range map[string]string{"one namespace": one, "several": "dyna*"} {
		p := s.metrics("--namespace", namespace, "--standby", "--model-name", long("meta-llama"))
		p.tells("full:")
		p.tells("malformed:")
		b := c.newTab(t)
		b.open(p.url + "/")
		b.is("document.querySelectorAll('#rows tr').length > 20 && !!document.querySelector('.problem')")
		b.do("document.querySelectorAll('details').forEach(d => { d.open = true })")
		for _, width := range []int{320, 360, 375, 390, 640, 700, 768, 900, 1024, 1180, 1440, 1920} {
			if width < 640 {
				b.phone(width, 800)
			} else {
				b.size(width, 900)
			}
			b.laidOut(width)
			state := fmt.Sprintf("%s, %d wide", name, width)
			b.fits(state)
			b.do("location.hash = 'w=' + document.querySelector('#rows tr')._key")
			b.says("#w-title", "694d")
			b.fits(state + ", a worker open")
			b.is("(r => r.width >= 24 && r.left >= 0 && r.right <= visualViewport.width && !!document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2).closest('#w-close'))(document.querySelector('#w-close').getBoundingClientRect())")
			b.picture(strings.ReplaceAll(state, " ", "-"))
			b.press("Escape")
			b.is("document.querySelector('#worker').hidden")
			b.do("document.querySelector('#map').scrollIntoView()")
			b.picture(strings.ReplaceAll(state, " ", "-") + "-map")
		}
	}
}

func TestRealPageHasRoomForRanks(t *testing.T) {
	s := newStage(t)
	s.registered("backend", nth(0))
	s.registered("backend", nth(1))
	p := s.metrics()
	s.ranks(p, nth(0), 8)
	s.ranks(p, nth(1), 24)
	b := startChromium(t).newTab(t)
	b.open(fmt.Sprintf("%s/#w=%d%%2F3", p.url, nth(0)))
	b.says("#w-title", "rank 3")
	b.says("#w-ranks", "Its 8 ranks", "rank 0 answering 10 % 10 / 64 0", "rank 3 answering 40 % 13 / 64 3", "rank 7 answering 80 % 17 / 64 7")
	b.is("document.querySelector('#w-ranks [aria-current]').innerText === 'rank 3'")
	for _, width := range []int{360, 1440} {
		b.size(width, 900)
		b.laidOut(width)
		b.fits(fmt.Sprintf("%d wide", width))
		b.picture(fmt.Sprintf("ranks-%d", width))
	}
	b.click(fmt.Sprintf("#w-ranks [data-open='%d/7']", nth(0)))
	b.says("#w-title", "rank 7")
	b.fragment(fmt.Sprintf("#w=%d%%2F7", nth(0)))
	b.do(fmt.Sprintf("location.hash = '#w=%d/23'", nth(1)))
	b.says("#w-ranks h3", "Its 24 ranks")
	s.worker("backend", nth(2), 40)
	b.says("#n-workers", "3")
	b.do(fmt.Sprintf("location.hash = '#w=%d'", nth(2)))
	b.says("#w-title", fmt.Sprintf("%x", nth(2)))
	b.is("document.querySelector('#w-ranks').hidden")
}

func TestRealPageKeepsTheHeadOfItsTableInSight(t *testing.T) {
	s := newStage(t)
	company(s)
	b := s.open("")
	b.says("#n-workers", "44")
	for _, width := range []int{1440, 900, 375} {
		b.size(width, 700)
		b.do("document.querySelector('#rows tr:nth-child(20)').scrollIntoView({block: 'center'})")
		// It is right below the bar, above the rows, and can be clicked there.
		b.is(`(r => Math.abs(r.top - document.querySelector('.above').getBoundingClientRect().bottom) <= 1 &&
			!!document.elementFromPoint(r.x + 10, r.y + r.height / 2).closest('th[data-k=kv]'))(document.querySelector('th[data-k=kv]').getBoundingClientRect())`)
	}
	// The keyboard's row is not beneath it.
	b.do("document.querySelector('#rows tr:nth-child(20)').focus()")
	b.press("Home", "End", "Home")
	b.is("document.activeElement === document.querySelector('#rows tr') && document.activeElement.getBoundingClientRect().top >= document.querySelector('#cols').getBoundingClientRect().bottom - 1")
}

// smallTargets are the targets of a pointer that are not 24 by 24 pixels, as WCAG 2.2 wants
// them (2.5.8); links within a sentence need not be.
const smallTargets = `[...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex], [role=button], [role=slider]')].filter(e =>
	e.checkVisibility({visibilityProperty: true}) && !e.closest('.sr, .skip') && !e.matches('h2, p a')).map(e => [e, e.getBoundingClientRect()])
	.filter(([, r]) => r.width < 24 || r.height < 24).map(([e, r]) => e.outerHTML.slice(0, 120) + ' ' + r.width + ' × ' + r.height)`

func TestRealPageHasTargetsThatCanBeHit(t *testing.T) {
	s := newStage(t)
	company(s)
	s.registered("backend", nth(60))
	p := s.metrics()
	s.ranks(p, nth(60), 8)
	p.tells("malformed:")
	b := startChromium(t).newTab(t)
	states := map[string]func(){
		"":       func() {},
		"worker": func() { b.do(fmt.Sprintf("location.hash = 'w=%d/1'", nth(60))); b.says("#w-ranks", "rank 7") },
		"keys":   func() { b.do("location.hash = ''"); b.press("?"); b.says("#keys", "Keys and meanings") },
	}
	for _, state := range []string{"", "worker", "keys"} {
		b.open(p.url + "/")
		b.says("#n-workers", "45")
		states[state]()
		for _, width := range []int{1440, 1024, 375} {
			b.size(width, 900)
			var small []string
			must(t, b.try(smallTargets, &small))
			for _, target := range small {
				t.Errorf("%s, %d wide: %s", state, width, target)
			}
		}
	}
	empty, c := s.metrics("--component", "none", "--standby"), b.browser
	b = c.newTab(t)
	b.open(empty.url + "/")
	b.says("#empty", "No worker yet")
	var small []string
	must(t, b.try(smallTargets, &small))
	if len(small) > 0 {
		t.Errorf("on the empty page: %q", small)
	}
}
