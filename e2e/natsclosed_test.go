package e2e

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/stats"
)

// interrupter forwards connections to a NATS server, and can send lines to clients that a
// NATS server would never send.
type interrupter struct {
	listener net.Listener
	to       string
	conns    sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool // connections of clients
}

func newInterrupter(t *testing.T, server string) *interrupter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &interrupter{listener: l, to: strings.TrimPrefix(server, "nats://"), open: make(map[net.Conn]bool)}
	p.conns.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Go(func() { p.forward(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		p.conns.Wait()
	})
	return p
}

func (p *interrupter) forward(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.open[client] = true
	p.mu.Unlock()
	var up sync.WaitGroup
	up.Go(func() {
		defer server.Close()
		io.Copy(server, client)
	})
	for b := make([]byte, 64<<10); err == nil; {
		var n int
		n, err = server.Read(b)
		p.mu.Lock()
		client.Write(b[:n])
		p.mu.Unlock()
	}
	client.Close()
	up.Wait()
	p.mu.Lock()
	delete(p.open, client)
	p.mu.Unlock()
}

// sendLine sends a line to all clients.
func (p *interrupter) sendLine(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		fmt.Fprint(c, line+"\r\n")
	}
}

// TestNATSConnectionClosedForGoodIsReplaced checks that after an unknown error, on which
// the client closes its connection without reconnecting, polls and events continue over a
// new connection.
func TestNATSConnectionClosedForGoodIsReplaced(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := &mockScript{load: loadOf(1, 1, 1)}
	w := s.mock(p.config("0.5.1", mock.NATS))
	through := newInterrupter(t, s.NATS.URL())
	m := serve(t, []string{"NATS_SERVER=nats://" + through.listener.Addr().String(), "ETCD_ENDPOINTS=" + s.Etcd.Endpoint()}, "--poll-interval", "0.1")
	m.waitForNATSEvents()
	m.waitUntilReady()
	for n := range uint64(2) {
		through.sendLine("-ERR 'The Moon Is Full'")
		m.waitForSamples(samples{`dynamo_metrics_disconnects_total{system="nats"}`: fmt.Sprint(1 + n), `dynamo_metrics_connected{system="nats"}`: "1"})
		p.setLoad(loadOf(1, 1, 50+n))
		m.waitForSamples(samples{w.series("llm_kv_blocks_active"): fmt.Sprint(50 + n)})
		m.waitFor(func(p samples) error { // a poll may have been under way as well
			if errors, _ := strconv.Atoi(p[`dynamo_metrics_errors_total{source="nats"}`]); uint64(errors) < 1+n {
				return fmt.Errorf("%d errors", errors)
			}
			return nil
		})
		if err := s.nats.Publish("namespace.dynamo.kv-hit-rate", []byte(`{"worker_id":7,"isl_blocks":10,"overlap_blocks":5}`)); err != nil {
			t.Fatal(err)
		}
		m.waitForSamples(samples{messages(stats.HitRate): fmt.Sprint(1 + n)})
		m.waitUntilReady()
	}
	m.Terminate()
	for line, times := range map[string]int{"NATS has closed the connection; retrying": 2, "Subscribing to KV hit rate events": 1, "Scraping service": 1, "Connected to NATS": 3} {
		if got := len(m.LinesWith(line)); got != times {
			t.Errorf("%q is logged %d times, want %d", line, got, times)
		}
	}
}
