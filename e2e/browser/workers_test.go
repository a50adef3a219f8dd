//go:build real

package browser

import (
	"fmt"
	"testing"
	"time"
)

func TestWebPageShowsFullWorkerWithinTwoSeconds(t *testing.T) {
	env := newEnvironment(t)
	for n := range 3 {
		env.startWorker("backend", workerID(n), 40+n)
	}
	full := env.startWorker("backend", workerID(3), 50)
	b := env.openPage("#sort=kv")
	b.waitForText("#rows tr:first-child", fmt.Sprint(workerID(3)), "50 %")
	// The best of three attempts counts, because other load on the machine may delay one.
	best := time.Hour
	for _, percent := range []int{91, 92, 93} {
		before := time.Now()
		full.setLoad(percent, percent-86)
		b.waitForText("#rows tr:first-child", fmt.Sprint(percent, " %"))
		b.waitForText("#n-wait", fmt.Sprint(percent-86))
		best = min(best, time.Since(before))
	}
	if best > 2*time.Second {
		t.Errorf("the page shows a full worker after %v, want at most 2 s", best)
	}
	b.waitForText("#s-load", "40 % to 93 %")
	b.waitForText("#s-wait", "in 1 worker")
}

func TestWebPageNamesSilentWorkerWithinTwoPolls(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	env.startWorker("backend", workerID(1), 40)
	silentWorker := env.startWorker("backend", workerID(2), 40)
	p := env.startMetrics("--poll-interval", "2")
	b := startChromium(t).newTab(t)
	b.open(p.url + "/")
	b.waitForText("#no-problems-text", "Nothing. All 3 workers answer")
	before := p.pollCount()
	silentWorker.stopAnswering()
	b.waitForText("#serious", "1 worker of backend/generate is registered but silent", fmt.Sprintf("%x", workerID(2)))
	if n := p.pollCount() - before; n > 2 {
		t.Errorf("the page names the silent worker after %d polls, want at most 2", n)
	}
	b.waitForText("#states", "2 answering", "1 silent")
	b.click("#serious button")
	b.waitForText("#w-title", fmt.Sprintf("%x", workerID(2)))
	b.waitForText("#w-state", "silent")
	b.pressKeys("Escape")
	env.startWorker("backend", workerID(2), 40)
	b.waitForText("#states", "3 answering", "0 silent")
	b.waitForText("#no-problems-text", "Nothing. All 3 workers answer")
}

func TestWebPageShowsFirstWorker(t *testing.T) {
	env := newEnvironment(t)
	env.registerInstance("backend-v2", workerID(9))
	b := env.openPage("", "--component", "backend", "--endpoint", "generate")
	b.waitForText("#empty", "No worker yet", "dynamo/backend/generate", "Did you mean dynamo/backend-v2/generate?", "1 instance", "$SRV.STATS.dynamo_backend")
	first := env.startWorker("backend", workerID(0), 40)
	b.waitForText("#n-workers", "1")
	b.waitForText("#rows", fmt.Sprint(workerID(0)), fmt.Sprintf("%x", workerID(0)), "backend/generate", "40 %", "4,000 / 10,000", "25 / 64")
	b.click("#rows tr .c-kv")
	b.waitForText("#w-v0", "4,000 / 10,000 · 40 %")
	first.stop()
	b.waitForText("#w-state", "gone")
	b.pressKeys("Escape")
	b.waitForText("#problems", "No worker of backend/generate is left")
}

func TestWebPageEscapesNames(t *testing.T) {
	env := newEnvironment(t)
	const htmlName = `<img src=x onerror=alert(1)>`
	env.startWorker(htmlName, workerID(0), 40)
	env.registerInstance(htmlName, workerID(1))
	b := env.openPage("")
	b.waitForText("#rows", htmlName+"/generate")
	b.waitForText("#problems", htmlName)
	b.waitForText("#groups", htmlName+"/generate")
	b.click("#rows tr .c-kv")
	b.waitForText("#w-endpoint", htmlName)
	b.waitFor("!document.querySelector('img')")
}

func TestWebPageShowsStaticWorker(t *testing.T) {
	env := newEnvironment(t)
	env.startUnregistered("dynamo", "backend", 0, 40)
	b := env.openPage("", "--etcd-endpoints", "none", "--component", "backend")
	b.waitForText("#states", "0 answering", "1 unregistered")
	b.waitForText("#no-problems-text", "Nothing. The worker answers")
	b.waitForText("#role", "single")
	b.waitForText("#rows", "id-of-0")
	b.waitFor("document.querySelector('#rows .hex').hidden")
	b.resize(390, 900)
	b.waitFor("document.querySelector('#rows .dec').checkVisibility()")
	b.click("#rows tr .c-kv")
	b.waitFor("document.querySelector('#w-title').innerText === document.querySelector('#rows .dec').innerText")
}

func TestWebPageShowsNamespaces(t *testing.T) {
	env := newEnvironment(t)
	env.startWorkerIn("team-a", "backend", workerID(0), 40)
	env.startWorkerIn("team-b", "backend", workerID(1), 50)
	b := env.openPage("", "--namespace", "team-*")
	b.waitForText("#ns", "team-*")
	b.waitForText("#groups", "team-a/backend/generate 1 worker", "team-b/backend/generate 1 worker")
	b.selectOption("#f-namespace", "team-b")
	b.waitForFragment("#namespace=team-b")
	b.waitForText("#rows", "team-b/backend/generate", "50 %")
	b.waitForText("#range", "1 row")
}
