//go:build real

package browser

import (
	"fmt"
	"strings"
	"testing"
)

// panelIs waits until the panel of the open worker shows that state, as of now or, if old, as of
// some time ago: in its state, its numbers, its colour, and the age of the last report, which must
// grow while the worker reports nothing.
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

// TestWebPageWorkerPanelMarksOldValues where its numbers are held, lost, or stale, or it is gone.
func TestWebPageWorkerPanelMarksOldValues(t *testing.T) {
	s := newEnvironment(t)
	s.startWorker("backend", workerID(1), 40)
	first := s.startWorker("backend", workerID(0), 40)
	p := s.startMetrics("--standby")
	p.waitForFleet(`"nats":{"on":true`)
	p.waitForFleet(fmt.Sprint(workerID(0)))
	s.publishHit(workerID(0), 100, 30)
	b := startChromium(t).newTab(t)
	b.open(p.url + fmt.Sprintf("/#w=%d", workerID(0)))
	b.waitForText("#w-hit2", "30.0 %")
	b.waitForPanel("answering", false)

	b.pressKeys("p")
	b.waitForText("#live", "Paused")
	b.waitForPanel("was answering at", true)
	b.waitFor("parseFloat(document.querySelector('#ago').innerText) > 3") // though snapshots come
	b.waitFor("!/^\\d/.test(document.title)")
	b.waitForText("#no-problems-text", "As of ")
	b.pressKeys("p")
	b.waitForText("#live", "Live")
	b.waitForPanel("answering", false)
	b.waitFor("parseFloat(document.querySelector('#ago').innerText) < 3")

	first.stop()
	b.waitForPanel("gone: it was answering at", true)
	s.startWorker("backend", workerID(0), 40)
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

// TestWebPageNamesMissingConnections where no worker is seen for that: each server alone, and both.
func TestWebPageNamesMissingConnections(t *testing.T) {
	s := newEnvironment(t)
	const noEtcd, noNATS = "http://127.0.0.1:1", "nats://127.0.0.1:2"
	c := startChromium(t)
	for _, tc := range []struct {
		args     []string
		headline string
		live     string
		says     []string
	}{
		{[]string{"--etcd-endpoints", noEtcd, "--nats-server", noNATS}, "No connection", "Cut off", []string{noEtcd, noNATS, "There has been no connection yet: "}},
		{[]string{"--etcd-endpoints", noEtcd}, "No connection", "Partly cut off", []string{noEtcd, "connection refused"}},
		{[]string{"--nats-server", noNATS}, "No worker yet", "Live", []string{noNATS, "connection refused"}}, // nothing uses it, so far
		{[]string{"--nats-server", noNATS, "--etcd-endpoints", "none", "--component", "backend"}, "No connection", "Cut off", []string{noNATS, "connection refused"}},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			p := s.startMetrics(tc.args...)
			b := c.newTab(t)
			b.open(p.url + "/")
			b.waitForText("#empty h2", tc.headline)
			b.waitForText("#empty", tc.says...)
			b.waitForText("#live", tc.live)
			b.waitFor("document.querySelector('#live').dataset.status === 'live' || getComputedStyle(document.querySelector('#live i'), '::after').content === 'none'")
			b.waitFor("!document.querySelector('#empty').innerText.includes('mock')")
			b.resize(390, 900)
			b.waitFor("[...document.querySelectorAll('#empty .disconnected')].every(p => p.getBoundingClientRect().right <= 390 && p.getBoundingClientRect().left >= 0)")
		})
	}
}

// TestWebPageNamesLostConnection once it was connected, and when it is again.
func TestWebPageNamesLostConnection(t *testing.T) {
	s := newEnvironment(t)
	s.startWorker("backend", workerID(0), 40)
	b := s.openPage("")
	b.waitForText("#live", "Live")
	s.StopNATS()
	b.waitForText("#live", "Partly cut off")
	b.waitForText("#conns", "nats lost")
	b.waitForText("#serious", "NATS is not connected", "connection refused")
	s.StartNATS(t)
	b.waitForText("#live", "Live")
}
