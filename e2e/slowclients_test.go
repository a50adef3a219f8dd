package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

// TestSnapshotStreamClientsThatDoNotReadAreClosed opens as many streams as the limit
// allows, and reads one of them.
func TestSnapshotStreamClientsThatDoNotReadAreClosed(t *testing.T) {
	t.Parallel()
	dir := registryDir{t, t.TempDir()}
	var all []entry
	for id := range uint64(500) { // each stream is some hundred kilobytes a second
		all = append(all, registration(100 + id)[0])
	}
	dir.put(time.Now(), all...)
	dir.touch(all...)
	m := serve(t, nil, "--discovery", "file", "--file-kv", dir.path, "--nats-server", "none", "--scrape-workers", "off")
	m.waitUntilReady()
	m.waitForSamples(samples{workersSeries("generate", "silent"): "500"})

	open := func() net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	events := make(chan struct{}, 1000)
	reader := open()
	go func() {
		for lines := bufio.NewReader(reader); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				close(events)
				return
			}
			if strings.HasPrefix(line, "data: ") {
				events <- struct{}{}
			}
		}
	}()
	for range 99 {
		open()
	}
	m.waitForSamples(samples{"dynamo_metrics_page_streams": "100"})
	status := func() int {
		resp, err := http.Get(m.url + "/events")
		if err != nil {
			return 0
		}
		resp.Body.Close() // the body does not end
		return resp.StatusCode
	}
	if got := status(); got != 503 {
		t.Errorf("status %d of one stream more, want 503", got)
	}
	m.waitFor(func(p samples) error {
		if got := p[`dynamo_metrics_page_streams_lost_total{reason="cut_off"}`]; got != "99" {
			return fmt.Errorf("%s streams were closed, want 99", got)
		}
		return nil
	})
	testutil.Until(t, func() error {
		if got := status(); got != 200 {
			return fmt.Errorf("status %d of one stream more, want 200", got)
		}
		return nil
	})
	for len(events) > 0 {
		<-events
	}
	if _, ok := <-events; !ok {
		t.Error("the stream that is read has ended as well")
	}
}
