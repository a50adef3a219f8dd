//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

// waitForPanel waits until the panel of the open worker shows that state. If old, the panel must
// show that its values are old: by its state, numbers and colour, and by the age of the last
// report, which must grow while the worker reports nothing.
func (b *tab) waitForPanel(state string, old bool) {
	b.t.Helper()
	b.waitForText("#w-state", state)
	if !old {
		b.waitFor("!document.querySelector('#worker').matches('.outdated')")
		b.waitFor("!document.querySelector('#w-v0').innerText.includes('was')")
		return
	}
	b.waitForText("#w-v0", "was 4,000 / 10,000 · 40 %")
	b.waitForText("#w-hit2", "was ")
	b.waitFor("getComputedStyle(document.querySelector('#worker')).filter === 'grayscale(1)'")
	b.waitForText("#w-anomalies-title", "at that time")
	b.waitFor("parseFloat(document.querySelector('#w-age').innerText) >= 3") // s: while it answers, it is polled ten times a second
}

// TestWebPageWorkerPanelMarksOldValues pauses the page, stops the worker, and stops the program.
func TestWebPageWorkerPanelMarksOldValues(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(1), 40)
	first := env.startWorker("backend", workerID(0), 40)
	p := env.startMetrics("--standby")
	p.waitForFleet(`"nats":{"on":true`)
	p.waitForFleet(fmt.Sprint(workerID(0)))
	env.publishHit(workerID(0), 100, 30)
	b := startChromium(t).newTab(t)
	b.open(p.url + fmt.Sprintf("/#w=%d", workerID(0)))
	b.waitForText("#w-hit2", "30.0 %")
	b.waitForPanel("answering", false)

	b.pressKeys("p")
	b.waitForText("#live", "Paused")
	b.waitForPanel("was answering at", true)
	b.waitFor("parseFloat(document.querySelector('#ago').innerText) > 3") // although snapshots arrive
	b.waitFor("!/^\\d/.test(document.title)")
	b.waitForText("#no-problems-text", "As of ")
	b.pressKeys("p")
	b.waitForText("#live", "Live")
	b.waitForPanel("answering", false)
	b.waitFor("parseFloat(document.querySelector('#ago').innerText) < 3")

	first.stop()
	b.waitForPanel("gone: it was answering at", true)
	env.startWorker("backend", workerID(0), 40)
	b.waitForPanel("answering", false)

	b.expectOutage(true)
	p.Kill()
	b.waitForText("#live", "Not connected")
	b.waitForPanel("was answering at", true)
	b.waitForText("#rows", " s")
	p.start()
	b.waitForText("#live", "Live")
	b.waitForPanel("answering", false)
}

// TestWebPageNamesMissingConnections starts the program without one server or both, so that it sees no worker.
func TestWebPageNamesMissingConnections(t *testing.T) {
	env := newEnvironment(t)
	const noEtcd, noNATS = "http://127.0.0.1:1", "nats://127.0.0.1:2"
	c := startChromium(t)
	for _, tc := range []struct {
		args     []string
		headline string
		live     string
		texts    []string
	}{
		{[]string{"--etcd-endpoints", noEtcd, "--nats-server", noNATS}, "No connection", "Cut off", []string{noEtcd, noNATS, "There has been no connection yet: "}},
		{[]string{"--etcd-endpoints", noEtcd}, "No connection", "Partly cut off", []string{noEtcd, "connection refused"}},
		{[]string{"--nats-server", noNATS}, "No worker yet", "Live", []string{noNATS, "connection refused"}}, // no worker needs NATS yet
		{[]string{"--nats-server", noNATS, "--etcd-endpoints", "none", "--component", "backend"}, "No connection", "Cut off", []string{noNATS, "connection refused"}},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			p := env.startMetrics(tc.args...)
			b := c.newTab(t)
			b.open(p.url + "/")
			b.waitForText("#empty h2", tc.headline)
			b.waitForText("#empty", tc.texts...)
			b.waitForText("#live", tc.live)
			b.waitFor("document.querySelector('#live').dataset.status === 'live' || getComputedStyle(document.querySelector('#live i'), '::after').content === 'none'")
			b.waitFor("!document.querySelector('#empty').innerText.includes('mock')")
			b.resize(390, 900)
			b.waitFor("[...document.querySelectorAll('#empty .disconnected')].every(p => p.getBoundingClientRect().right <= 390 && p.getBoundingClientRect().left >= 0)")
		})
	}
}

// TestWebPageNamesLostConnection stops NATS while the page is open, and starts it again.
func TestWebPageNamesLostConnection(t *testing.T) {
	env := newEnvironment(t)
	env.startWorker("backend", workerID(0), 40)
	b := env.openPage("")
	b.waitForText("#live", "Live")
	env.StopNATS()
	b.waitForText("#live", "Partly cut off")
	b.waitForText("#conns", "nats lost")
	b.waitForText("#serious", "NATS is not connected", "connection refused")
	env.StartNATS(t)
	b.waitForText("#live", "Live")
}
