package web

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/memnet"
	"dynamo-metrics/internal/testutil"
)

// wholeScrape fails the test unless a scrape gets all metrics, with a change from just before the
// request, whatever the stalled clients do. It returns how long the scrape took.
func wholeScrape(t *testing.T, f *fleet.Fleet, client *http.Client, url string) time.Duration {
	t.Helper()
	const id = 0x7d7ba2096ef23e30 // fleettest.Full's first worker
	f.RecordHit(id, 3, 1)
	f.Advance(time.Now())
	start := time.Now()
	resp, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	testutil.NoError(t, err)
	want := metricsText(t, f)
	line := func(text string) string {
		_, rest, _ := strings.Cut(text, fmt.Sprintf(`llm_kv_hit_rate_isl_blocks{component="backend",endpoint="load_metrics",worker_id="%d"}`, uint64(id)))
		value, _, _ := strings.Cut(rest, "\n")
		return value
	}
	if got, want := line(string(body)), line(want); got != want || got == "" {
		t.Errorf("the metrics have %q ISL blocks, want %q", got, want)
	}
	return time.Since(start)
}

func TestPageCacheBoundsStalledClients(t *testing.T) {
	for name, accept := range map[string]string{"text": "", "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fleettest.Full(100)
				m := metricsOf(f)
				s := startServer(t, handlerWith(f, func(o *Options) { o.Metrics = m }))
				const clients = 200
				for range clients {
					write(t, s.connect(t), "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: "+accept+"\r\n\r\n")
					testutil.Advance(10 * time.Millisecond)
					if n := m.PagesInUse(); n > 4 {
						t.Fatalf("%d buffers are in use, want at most 4", n)
					}
				}
				if took := wholeScrape(t, f, s.client, "http://metrics/metrics"); took > 2*time.Second+50*time.Millisecond {
					t.Errorf("a client that reads waited %v, want 2s at most", took)
				}
				testutil.Advance(10 * time.Second)
				if took := wholeScrape(t, f, s.client, "http://metrics/metrics"); took > 2*time.Second+50*time.Millisecond {
					t.Errorf("a client that reads waited %v, want 2s at most", took)
				}
				if n := f.Stats.SlowScrapesCut.Load(); n == 0 || n > clients {
					t.Errorf("%d scrapes were cut off, want some of %d", n, clients)
				}
				testutil.Advance(31 * time.Second)
				testutil.Equal(t, "renderings in use when all clients have been cut off", m.PagesInUse(), 0)
			})
		})
	}
}

func TestPageCacheEvictsOnlyIfOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.Full(100)
		m := metricsOf(f)
		s := startServer(t, handlerWith(f, func(o *Options) { o.Metrics = m }))
		slow := func() net.Conn {
			c := s.connect(t)
			write(t, c, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			synctest.Wait()
			return c
		}
		all := func(c net.Conn) (end string) {
			b, _ := io.ReadAll(c)
			return string(b[max(0, len(b)-5):])
		}
		alone := slow()
		testutil.Advance(20 * time.Second)
		testutil.Equal(t, "end of the response to a client alone", all(alone), "0\r\n\r\n")
		testutil.Equal(t, "cut off", f.Stats.SlowScrapesCut.Load(), 0)

		var some []net.Conn
		for range 4 {
			some = append(some, slow())
		}
		testutil.Advance(1999 * time.Millisecond)
		another := slow()
		testutil.Equal(t, "cut off before two seconds", f.Stats.SlowScrapesCut.Load(), 0)
		testutil.Advance(50 * time.Millisecond)
		testutil.Equal(t, "cut off after two seconds", f.Stats.SlowScrapesCut.Load(), 1)
		if all(some[0]) == "0\r\n\r\n" {
			t.Error("the oldest client's response looks complete")
		}
		for _, c := range append(some[1:], another) {
			testutil.Equal(t, "end of the other responses", all(c), "0\r\n\r\n")
		}
	})
}

// The clients read one piece a second.
func TestPageCacheSteadyReaderHasTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.Full(1000)
		m := metricsOf(f)
		s := startServer(t, handlerWith(f, func(o *Options) { o.Metrics = m }))
		var steady []net.Conn
		for range 4 {
			c := s.connect(t)
			write(t, c, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
			synctest.Wait()
			steady = append(steady, c)
		}
		write(t, s.connect(t), "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
		for range 10 {
			testutil.Equal(t, "cut off", f.Stats.SlowScrapesCut.Load(), 0)
			for _, c := range steady {
				if n, err := io.CopyN(io.Discard, c, 64<<10); err != nil {
					t.Fatalf("%d bytes, then %v", n, err)
				}
			}
			testutil.Advance(time.Second)
		}
		testutil.Advance(50 * time.Millisecond)
		testutil.Equal(t, "cut off when a client has waited for ten seconds", f.Stats.SlowScrapesCut.Load(), 1)
	})
}

// While other clients wait, a client must read 64 KiB in two seconds.
func TestPageCachePieceHasTwoSeconds(t *testing.T) {
	for rate, isCutOff := range map[int64]bool{40 << 10: false, 20 << 10: true} { // bytes a second
		synctest.Test(t, func(t *testing.T) {
			f := fleettest.Full(1000)
			s := startServer(t, handler(f))
			var all []net.Conn
			for range 5 { // one more than there are buffers
				c := s.connect(t)
				write(t, c, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
				synctest.Wait()
				all = append(all, c)
			}
			for range 80 {
				testutil.Advance(100 * time.Millisecond)
				for _, c := range all[:4] {
					_, _ = io.CopyN(io.Discard, c, rate/10)
				}
			}
			testutil.Equal(t, fmt.Sprint("is cut off at ", rate), f.Stats.SlowScrapesCut.Load() > 0, isCutOff)
		})
	}
}

// The clients do not read their streams, or not even their connections.
func TestPageCacheStalledHTTP2Clients(t *testing.T) {
	for name, stallsConnection := range map[string]bool{"streams": false, "connections": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(func() { time.Sleep(time.Minute) }) // runs last: connections take time to close
				f := fleettest.Full(10_000)                   // more than the flow control window of a stream
				m := metricsOf(f)
				certFile, keyFile, trust := certificate(t)
				server := memnet.New()
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				config, err := ReadConfig(webConfig(t, "tls_server_config: {cert_file: "+certFile+", key_file: "+keyFile+"}"))
				testutil.NoError(t, err)
				go func() {
					ended <- Serve(ctx, server, handlerWith(f, func(o *Options) { o.Metrics = m }), config, slog.New(slog.DiscardHandler))
				}()
				client := func() (*http.Client, chan struct{}) {
					closed := make(chan struct{})
					transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, ServerName: "127.0.0.1"}, ForceAttemptHTTP2: true, DisableCompression: true,
						DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
							c, err := server.Dial(ctx, network, address)
							return &gatedConn{c, closed, t.Context()}, err
						}}
					t.Cleanup(transport.CloseIdleConnections)
					return &http.Client{Transport: transport}, closed
				}
				for range 8 {
					c, closed := client()
					ctx, cancel := context.WithCancel(t.Context())
					t.Cleanup(cancel)
					go func() {
						r, _ := http.NewRequestWithContext(ctx, "GET", "https://metrics/metrics", nil)
						if resp, err := c.Do(r); err == nil {
							if stallsConnection {
								close(closed)
							}
							<-ctx.Done()
							resp.Body.Close()
						}
					}()
					synctest.Wait()
				}
				reading, _ := client()
				if took := wholeScrape(t, f, reading, "https://metrics/metrics"); took > 8*time.Second {
					t.Errorf("a client that reads waited %v, want 8s at most", took)
				}
				stop()
				testutil.NoError(t, <-ended)
			})
		})
	}
}

// gatedConn is a connection that reads nothing once its channel is closed.
type gatedConn struct {
	net.Conn
	closed chan struct{}
	ctx    context.Context
}

func (g *gatedConn) Read(b []byte) (int, error) {
	select {
	case <-g.closed:
		<-g.ctx.Done()
		return 0, io.EOF
	default:
		return g.Conn.Read(b)
	}
}
