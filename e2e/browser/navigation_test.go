//go:build real

package browser

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/testutil"
)

// steps waits until the browser's history of the tab is so long, and it is at that step.
func (b *tab) steps(length, at int) {
	b.t.Helper()
	testutil.Until(b.t, func() error {
		var got struct {
			CurrentIndex int
			Entries      []struct{ URL string }
		}
		b.call("Page.getNavigationHistory", object{}, &got)
		if len(got.Entries) != length || got.CurrentIndex != at {
			return fmt.Errorf("step %d of %d: %v, want %d of %d", got.CurrentIndex, len(got.Entries), got.Entries, at, length)
		}
		return nil
	})
}

func TestRealPageClosesAWorkerByBack(t *testing.T) {
	s := newStage(t)
	company(s)
	b := s.open("#sort=id&dir=asc")
	b.says("#n-workers", "44")
	const view = "#sort=id&dir=asc"
	b.steps(2, 1) // the blank page is the first

	b.do("document.querySelector('#rows tr').focus()")
	b.press("Enter")
	b.says("#w-title", fmt.Sprintf("%x", nth(0)))
	b.steps(3, 2)
	b.press("j", "j", "k") // however many are looked at: one step
	b.says("#w-title", fmt.Sprintf("%x", nth(1)))
	b.steps(3, 2)
	b.do("history.back()")
	b.is("document.querySelector('#worker').hidden && document.activeElement === document.querySelector('#rows tr')")
	b.fragment(view)
	b.says("#live", "Live")
	b.do("history.forward()")
	b.says("#w-title", fmt.Sprintf("%x", nth(1)))
	b.fragment(fmt.Sprintf("%s&w=%d", view, nth(1)))

	// What is closed by hand leaves nothing to go back through, and can be opened again.
	b.press("Escape")
	b.is("document.querySelector('#worker').hidden")
	b.fragment(view)
	b.steps(3, 1)
	b.do("history.forward()")
	b.says("#w-title", fmt.Sprintf("%x", nth(1)))
	b.click("#w-close")
	b.steps(3, 1)
	for n := range 3 {
		b.do(fmt.Sprintf("document.querySelectorAll('#rows tr')[%d].click()", n))
		b.says("#w-title", fmt.Sprintf("%x", nth(n)))
		b.click("#w-close")
		b.is("document.querySelector('#worker').hidden")
		b.fragment(view)
	}
	b.steps(3, 1)

	// What was chosen while it was open stays chosen.
	b.do("document.querySelector('#rows tr').click()")
	b.says("#w-title", fmt.Sprintf("%x", nth(0)))
	b.choose("#f-by", "slots")
	b.press("Escape")
	b.fragment("#by=slots&sort=id&dir=asc")
	b.is("document.querySelector('#f-by').value === 'slots'")

	// It is opened again before the browser has gone back.
	b.do("document.querySelector('#rows tr').click()")
	b.do("document.querySelector('#w-close').click(), document.querySelectorAll('#rows tr')[2].click()")
	b.says("#w-title", fmt.Sprintf("%x", nth(2)))
	b.fragment(fmt.Sprintf("#by=slots&sort=id&dir=asc&w=%d", nth(2)))
	b.press("Escape")
	b.is("document.querySelector('#worker').hidden")
	b.fragment("#by=slots&sort=id&dir=asc")
}

func TestRealPageSaysThatThereIsNoSuchWorker(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	p := s.metrics()
	b := startChromium(t).newTab(t)
	for _, key := range []string{fmt.Sprint(nth(7)), fmt.Sprint(nth(7), "/3"), fmt.Sprint(nth(0), "/1"), "none", "<img src=x>", "__proto__"} {
		b.open(p.url + "/")
		b.says("#n-workers", "1")
		b.do(fmt.Sprintf("location.hash = new URLSearchParams({w: %q})", key))
		b.says("#w-title", "No worker "+key+" here")
		b.is("!document.querySelector('img')")
		b.click("#w-close")
		b.is("document.querySelector('#worker').hidden")
		b.fragment("")
	}
	b.open(fmt.Sprintf("%s/?again#w=%d", p.url, nth(7)))
	b.says("#w-title", fmt.Sprintf("No worker %d here", nth(7)))
	s.worker("backend", nth(7), 60) // it comes
	b.says("#w-title", fmt.Sprintf("%x", nth(7)))
	b.says("#w-v0", "6,000 / 10,000 · 60 %")
	b.press("Escape")
	b.is("document.querySelector('#worker').hidden")
	b.fragment("")
	b.do(fmt.Sprintf("location.hash = 'w=%d'", nth(9)))
	b.says("#w-title", "No worker")
	b.do(fmt.Sprintf("location.hash = 'w=%d'", nth(0)))
	b.says("#w-title", fmt.Sprintf("%x", nth(0)))
	b.do(fmt.Sprintf("location.hash = 'w=%d'", nth(9)))
	b.says("#w-title", "No worker")
}

func TestRealPageSaysThatAProblemIsOver(t *testing.T) {
	s := newStage(t)
	s.worker("backend", nth(0), 40)
	s.worker("backend", nth(1), 40)
	b := s.open("#problem=silent:backend/generate")
	b.says("#shown", "2 of 2 workers shown: their problem is over")
	b.click("#clear")
	b.fragment("")
	b.is("document.querySelector('#shown').innerText === ''")
}
