//go:build real

package browser

import (
	"fmt"
	"testing"
)

// company is a fleet of two components: forty-four workers, of which one is full, one
// silent, one not registered and one malformed.
func company(s *stage) {
	for n := range 30 {
		s.worker("backend", nth(n), 40+n%20)
	}
	for n := range 10 {
		s.worker("prefill", nth(100+n), 20+n)
	}
	full, silent, lost, garbled := s.worker("backend", nth(30), 40), s.worker("backend", nth(31), 40), s.worker("backend", nth(32), 55), s.worker("backend", nth(33), 40)
	full.load(99, 12)
	silent.fallSilent()
	lost.loseKey()
	garbled.garble()
	for n := range 30 {
		s.hit(nth(n), 100, 30+n)
	}
}

func TestRealPageFiltersAndSorts(t *testing.T) {
	s := newStage(t)
	company(s)
	b := s.open("")
	b.says("#states", "41 answering", "1 silent", "1 malformed")
	b.is("document.querySelector('#f-namespace').parentNode.hidden") // there is one

	b.press("/")
	b.is("document.activeElement.id === 'f-q'")
	b.press("p", "r", "e", "f") // letters in a field are letters
	b.says("#shown", "10 of 44 workers shown")
	b.fragment("#q=pref")
	b.says("#groups", "prefill/generate 10 workers")
	b.says("#live", "Live")
	b.click("#clear")
	b.fragment("")

	b.choose("#f-component", "prefill")
	b.fragment("#component=prefill")
	b.says("#range", "10 rows")
	b.click("#clear")
	b.click("#states [data-state=silent]")
	b.fragment("#state=silent")
	b.says("#rows", fmt.Sprint(nth(31)), "silent")
	b.is("document.querySelectorAll('#rows tr').length === 1")
	b.click("#clear")

	b.click("th[data-k=kv] button")
	b.fragment("#sort=kv")
	b.says("#rows tr:first-child", fmt.Sprint(nth(30)), "99 %", "12")
	b.click("th[data-k=kv] button")
	b.fragment("#sort=kv&dir=asc")
	b.says("#rows tr:first-child", fmt.Sprint(nth(100)), "20 %")
	b.click("th[data-k=id] button")
	b.fragment("#sort=id&dir=asc")
	b.says("#rows tr:first-child", fmt.Sprint(nth(0)))

	b.choose("#f-group", "component")
	b.says("#groups", "backend 34 workers", "prefill 10 workers")
	b.choose("#f-by", "hit")
	b.choose("#f-order", "kv")
	b.fragment("#by=hit&order=kv&group=component&sort=id&dir=asc")
}

func TestRealPageHasAnAddressForEveryView(t *testing.T) {
	s := newStage(t)
	company(s)
	p := s.metrics()
	b := startChromium(t).newTab(t)
	view := fmt.Sprintf("#component=prefill&by=slots&sort=kv&w=%d", nth(104))
	b.open(p.url + "/" + view)
	b.says("#range", "10 rows")
	b.says("#w-title", fmt.Sprintf("%x", nth(104)))
	b.says("#rows tr:first-child", fmt.Sprint(nth(109)))
	b.is("document.querySelector('#f-component').value === 'prefill' && document.querySelector('#f-by').value === 'slots'")
	b.fragment(view)
	b.do("location.hash = '#state=malformed'") // as somebody edits it
	b.says("#rows", fmt.Sprint(nth(33)))
	b.is("document.querySelector('#worker').hidden")
	for _, nonsense := range []string{"#by=x&order=y&group=z&sort=constructor&dir=up&page=-7&w=nobody&problem=none", "#page=999999", "#%E0%A4%A", "#group=__proto__"} {
		b.open(p.url + "/?" + nonsense)
		b.says("#n-workers", "44")
		b.is("document.querySelectorAll('#rows tr').length > 0")
	}
}

func TestRealPageShowsTheWorkersOfAProblem(t *testing.T) {
	s := newStage(t)
	company(s)
	s.registered("backend", nth(40))
	b := s.open("")
	b.says("#serious", "silent")
	b.is("[...document.querySelectorAll('#serious .problem')].some(p => p.innerText.includes('silent') && p.querySelector('button').innerText === 'Show 2')")
	b.do("[...document.querySelectorAll('#serious .problem')].find(p => p.innerText.includes('silent')).querySelector('button').click()")
	b.says("#shown", "2 of 45 workers shown")
	b.is("document.querySelectorAll('#rows tr').length === 2")
	b.is("location.hash.startsWith('#problem=silent')")
}

func TestRealPageByKeyboard(t *testing.T) {
	s := newStage(t)
	company(s)
	b := s.open("#sort=id&dir=asc")
	b.says("#n-workers", "44")

	b.press("t")
	b.is("document.documentElement.dataset.theme === 'dark'")
	b.press("t")
	b.is("document.documentElement.dataset.theme === 'light'")
	b.press("?")
	b.says("#keys", "Keys and meanings", "find a worker")
	b.press("Escape")
	b.is("!document.querySelector('#keys').open")
	// A key that comes before the browser has drawn the page without the dialog is not lost.
	b.do("document.querySelector('#help').click(), document.querySelector('#keys').close(), document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 't', bubbles: true}))")
	b.is("document.documentElement.dataset.theme === 'dark'")

	b.press("p")
	b.says("#live", "Paused")
	late := s.worker("backend", nth(50), 60)
	b.is("document.querySelector('#ago').innerText !== ''")
	b.says("#n-workers", "44")
	b.press("p")
	b.says("#live", "Live")
	b.says("#n-workers", "45")
	late.leave()
	b.says("#n-workers", "44")

	b.do("document.querySelector('#map').focus()")
	b.press("ArrowRight", "ArrowRight", "ArrowDown")
	b.says("#tip", "state", "answering", "KV blocks")
	b.press("Home", "ArrowRight", "Enter")
	b.fragment(fmt.Sprintf("#sort=id&dir=asc&w=%d", nth(1)))
	b.says("#w-title", fmt.Sprintf("%x", nth(1)))
	b.press("j")
	b.says("#w-title", fmt.Sprintf("%x", nth(2)))
	b.press("k", "k")
	b.says("#w-title", fmt.Sprintf("%x", nth(0)))
	b.press("Escape")
	b.is("document.querySelector('#worker').hidden && document.activeElement.id === 'map'")
	b.fragment("#sort=id&dir=asc")

	b.do("document.querySelector('#rows tr').focus()")
	b.says("#held", "order held")
	b.press("ArrowDown", "Enter")
	b.says("#w-title", fmt.Sprintf("%x", nth(1)))
	b.press("Escape")
	b.is("document.activeElement === document.querySelectorAll('#rows tr')[1]")

	b.do("document.querySelector('#p-load .plot').focus()")
	b.press("ArrowLeft", "ArrowLeft") // to now, and to the sample before
	b.is("document.querySelector('#p-load .plot').getAttribute('aria-valuetext').startsWith('5.0 s ago')")
	b.is("[...document.querySelectorAll('#fleet .hair')].every(hair => !hair.hidden)")
}

func TestRealPageByPointer(t *testing.T) {
	s := newStage(t)
	company(s)
	p := s.metrics()
	c := startChromium(t)
	must(t, c.call("", "Browser.grantPermissions", object{"origin": p.url, "permissions": []string{"clipboardReadWrite", "clipboardSanitizedWrite"}}, nil))
	b := c.newTab(t)
	b.open(p.url + "/")
	b.says("#n-workers", "44")
	b.do("document.querySelector('#map').scrollIntoView()")
	var at struct{ X, Y float64 }
	must(t, b.try("(r => ({x: r.x + 10, y: r.y + 30}))(document.querySelector('#map').getBoundingClientRect())", &at))
	b.call("Input.dispatchMouseEvent", object{"type": "mouseMoved", "x": at.X, "y": at.Y}, nil)
	b.says("#tip", fmt.Sprintf("%x", nth(0)), "4,000 / 10,000 · 40 %", "25 / 64")
	b.clickAt(at.X, at.Y)
	b.says("#w-title", fmt.Sprintf("%x", nth(0)))
	b.click("#w-close")
	b.do("document.querySelector('#rows tr').focus()")
	b.press("x")
	b.says("#toast", "hexadecimal id")
}

// choose takes an option of a select, as a person does.
func (b *tab) choose(selector, value string) {
	b.t.Helper()
	b.do(fmt.Sprintf("(s => { s.value = %q; s.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector(%q))", value, selector))
}
