//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

func TestWebPageSearchFindsIDsAndNames(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	env.registerInstance("prefill", workerID(200))
	p := env.startMetrics("--model-name", "meta-llama/Llama-3.1-8B")
	env.publishRanks(p, workerID(200), 3)
	b := startChromium(t).newTab(t)
	b.open(p.url + "/")
	b.waitForText("#n-workers", "45")
	search := func(query string, workers int) {
		b.run(fmt.Sprintf("(q => { q.value = %q; q.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector('#f-q'))", query))
		b.waitForText("#shown", fmt.Sprintf("%d of 45 workers shown", workers))
	}
	for query, workers := range map[string]int{
		fmt.Sprintf("0x%x", workerID(3)):                   1,
		fmt.Sprintf("0X%X", workerID(3)):                   1,
		fmt.Sprintf("0x%016x", workerID(3)):                1,
		fmt.Sprintf("0x00%x", workerID(3)):                 1,
		fmt.Sprintf("%x", workerID(3)):                     1,
		fmt.Sprintf("%X", workerID(3)):                     1,
		fmt.Sprint(workerID(3)):                            1,
		"0x694d":                                           45,
		"0x1003":                                           0, // no id begins with these digits
		fmt.Sprintf("  %d  prefill ", workerID(103)):       1,
		fmt.Sprintf("backend %d", workerID(103)):           0,
		"generate prefill":                                 11,
		"LLAMA prefill":                                    11,
		"llama\tgenerate":                                  45,
		fmt.Sprintf("%x rank 2", workerID(200)):            1,
		"0x":                                               45,
		fmt.Sprintf("0x%x 0x%x", workerID(3), workerID(4)): 0,
		strings.Repeat("backend/generate ", 40):            34,
		"back(end":                                         0,
		"dynamo-that-is-not-there backend generate":        0,
	} {
		search(query, workers)
	}
	search("there is no such worker", 0)
	b.waitForText("#no-match", "No worker matches these filters.")
}

func TestWebPageIDsOpenWorkers(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	p := env.startMetrics()
	p.waitForFleet("full:backend/generate")
	b := startChromium(t).newTab(t)
	b.countSnapshots()
	b.open(p.url + "/#sort=id&dir=asc")
	b.waitForText("#n-workers", "44")
	for _, id := range []string{".dec", ".hex"} {
		b.click("#rows tr:nth-child(3) " + id)
		b.waitForText("#w-title", fmt.Sprintf("%x", workerID(2)))
		b.pressKeys("Escape")
		b.waitFor("document.querySelector('#worker').hidden && document.querySelector('#toast').hidden")
	}
	b.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
	link := fmt.Sprintf(`[...document.querySelectorAll('.problem p a')].find(a => a.innerText === '%x')`, workerID(30))
	b.waitFor("!!" + link)
	b.run(link + ".click()")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(30)))
	b.pressKeys("Escape")
	b.waitFor("document.querySelector('#worker').hidden")
	b.run(link + ".focus()")
	b.waitForSnapshots(3)
	b.waitFor("document.activeElement === " + link)
	b.pressKeys("Enter")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(30)))
	b.pressKeys("Escape")
	b.waitFor("document.activeElement === " + link)
}

func TestWebPageIDsCanBeSelected(t *testing.T) {
	env := newEnvironment(t)
	startFleet(env)
	b := env.openPage("#sort=id&dir=asc")
	b.waitForText("#n-workers", "44")
	for _, id := range []string{".dec", ".hex"} {
		b.run("getSelection().removeAllRanges(), document.querySelector('#rows tr').scrollIntoView({block: 'center'})")
		var at struct{ X, Y, Width float64 }
		must(t, b.eval(fmt.Sprintf("(r => ({x: r.x, y: r.y + r.height / 2, width: r.width}))(document.querySelector('#rows %s').getBoundingClientRect())", id), &at))
		mouse := func(kind string, x float64) {
			b.call("Input.dispatchMouseEvent", object{"type": kind, "x": x, "y": at.Y, "button": "left", "buttons": 1, "clickCount": 1}, nil)
		}
		mouse("mousePressed", at.X+1)
		for part := range 10 {
			mouse("mouseMoved", at.X+at.Width*float64(part+1)/10)
		}
		mouse("mouseReleased", at.X+at.Width)
		b.waitFor(fmt.Sprintf("getSelection().toString().trim() === document.querySelector('#rows %s').innerText", id))
		b.waitFor("document.querySelector('#worker').hidden")
	}
}

func TestWebPageKeysDialogTogglesByQuestionMark(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	b := env.openPage("")
	b.waitForText("#n-workers", "1")
	for range 2 {
		b.pressKeys("?")
		b.waitForText("#keys", "Keys and meanings")
		b.pressKeys("?")
		b.waitFor("!document.querySelector('#keys').open")
	}
	b.pressKeys("?")
	b.waitForText("#keys", "Keys and meanings")
	b.run("document.querySelector('#single-keys').focus()")
	b.pressKeys("?")
	b.waitFor("!document.querySelector('#keys').open")
	b.pressKeys("?")
	b.pressKeys("Escape")
	b.waitFor("!document.querySelector('#keys').open")
}
