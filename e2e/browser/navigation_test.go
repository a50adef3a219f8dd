//go:build real

package browser

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/testutil"
)

// waitForHistory waits until the tab's history has so many entries and is at that index.
func (b *tab) waitForHistory(length, at int) {
	b.t.Helper()
	testutil.Until(b.t, func() error {
		var got struct {
			CurrentIndex int
			Entries      []struct{ URL string }
		}
		b.call("Page.getNavigationHistory", object{}, &got)
		if len(got.Entries) != length || got.CurrentIndex != at {
			return fmt.Errorf("history index %d of %d: %v, want %d of %d", got.CurrentIndex, len(got.Entries), got.Entries, at, length)
		}
		return nil
	})
}

func TestWebPageBackClosesWorker(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("#sort=id&dir=asc")
	b.waitForText("#n-workers", "44")
	const view = "#sort=id&dir=asc"
	b.waitForHistory(2, 1) // the blank page is the first

	b.run("document.querySelector('#rows tr').focus()")
	b.pressKeys("Enter")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(0)))
	b.waitForHistory(3, 2)
	b.pressKeys("j", "j", "k") // all of them are one history entry
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(1)))
	b.waitForHistory(3, 2)
	b.run("history.back()")
	b.waitFor("document.querySelector('#worker').hidden && document.activeElement === document.querySelector('#rows tr')")
	b.waitForFragment(view)
	b.waitForText("#live", "Live")
	b.run("history.forward()")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(1)))
	b.waitForFragment(fmt.Sprintf("%s&w=%d", view, workerID(1)))
}

// A worker that is closed by a key or a click leaves no history entry before the current one,
// and Forward opens it again.
func TestWebPageClosedWorkerLeavesHistory(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("#sort=id&dir=asc")
	b.waitForText("#n-workers", "44")
	const view = "#sort=id&dir=asc"
	b.run("document.querySelectorAll('#rows tr')[1].click()")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(1)))
	b.waitForHistory(3, 2)
	b.pressKeys("Escape")
	b.waitFor("document.querySelector('#worker').hidden")
	b.waitForFragment(view)
	b.waitForHistory(3, 1)
	b.run("history.forward()")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(1)))
	b.click("#w-close")
	b.waitForHistory(3, 1)
	for n := range 3 {
		b.run(fmt.Sprintf("document.querySelectorAll('#rows tr')[%d].click()", n))
		b.waitForText("#w-title", fmt.Sprintf("%x", workerID(n)))
		b.click("#w-close")
		b.waitFor("document.querySelector('#worker').hidden")
		b.waitForFragment(view)
	}
	b.waitForHistory(3, 1)
}

// A setting that is changed while a worker is open is kept when the worker is closed.
func TestWebPageClosedWorkerKeepsSettings(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("#sort=id&dir=asc")
	b.waitForText("#n-workers", "44")
	b.run("document.querySelector('#rows tr').click()")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(0)))
	b.selectOption("#f-by", "slots")
	b.pressKeys("Escape")
	b.waitForFragment("#by=slots&sort=id&dir=asc")
	b.waitFor("document.querySelector('#f-by').value === 'slots'")

	// Another worker is opened before the browser has gone back.
	b.run("document.querySelector('#rows tr').click()")
	b.run("document.querySelector('#w-close').click(), document.querySelectorAll('#rows tr')[2].click()")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(2)))
	b.waitForFragment(fmt.Sprintf("#by=slots&sort=id&dir=asc&w=%d", workerID(2)))
	b.pressKeys("Escape")
	b.waitFor("document.querySelector('#worker').hidden")
	b.waitForFragment("#by=slots&sort=id&dir=asc")
}

func TestWebPageUnknownWorkerIsReported(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	p := env.startMetrics()
	b := startChromium(t).newTab(t)
	for _, key := range []string{fmt.Sprint(workerID(7)), fmt.Sprint(workerID(7), "/3"), fmt.Sprint(workerID(0), "/1"), "none", "<img src=x>", "__proto__"} {
		b.open(p.url + "/")
		b.waitForText("#n-workers", "1")
		b.run(fmt.Sprintf("location.hash = new URLSearchParams({w: %q})", key))
		b.waitForText("#w-title", "No worker "+key+" here")
		b.waitFor("!document.querySelector('img')")
		b.click("#w-close")
		b.waitFor("document.querySelector('#worker').hidden")
		b.waitForFragment("")
	}
	b.open(fmt.Sprintf("%s/?again#w=%d", p.url, workerID(7)))
	b.waitForText("#w-title", fmt.Sprintf("No worker %d here", workerID(7)))
	env.startWorker("backend", workerID(7), 60) // it joins
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(7)))
	b.waitForText("#w-v0", "6,000 / 10,000 · 60 %")
	b.pressKeys("Escape")
	b.waitFor("document.querySelector('#worker').hidden")
	b.waitForFragment("")
	b.run(fmt.Sprintf("location.hash = 'w=%d'", workerID(9)))
	b.waitForText("#w-title", "No worker")
	b.run(fmt.Sprintf("location.hash = 'w=%d'", workerID(0)))
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(0)))
	b.run(fmt.Sprintf("location.hash = 'w=%d'", workerID(9)))
	b.waitForText("#w-title", "No worker")
}

func TestWebPageProblemThatIsOverIsReported(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	env.startWorker("backend", workerID(1), 40)
	b := env.openPage("#problem=silent:backend/generate")
	b.waitForText("#shown", "2 of 2 workers shown: their problem has ended")
	b.click("#clear")
	b.waitForFragment("")
	b.waitFor("document.querySelector('#shown').innerText === ''")
}
