package expose

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
	"dynamo-metrics/internal/memnet"
	"dynamo-metrics/internal/testutil"
)

// inUse is how many pages' memory is in use.
func (p *press) inUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.live)
}

// goodScrape is a whole page with what happened just before it was asked for, whoever
// stalls, and says how long it took.
func goodScrape(t *testing.T, f *fleet.Fleet, client *http.Client, url string) time.Duration {
	t.Helper()
	const id = 0x7d7ba2096ef23e30 // of fullFleet's first
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
	noError(t, err)
	want := pageOf(t, f)
	line := func(page string) string {
		_, rest, _ := strings.Cut(page, fmt.Sprintf(`llm_kv_hit_rate_isl_blocks{component="backend",endpoint="load_metrics",worker_id="%d"}`, uint64(id)))
		value, _, _ := strings.Cut(rest, "\n")
		return value
	}
	if got, want := line(string(body)), line(want); got != want || got == "" {
		t.Errorf("the page has %q blocks of input, want %q", got, want)
	}
	return time.Since(start)
}

func TestClientsThatDoNotReadHoldAFewPagesAtMost(t *testing.T) {
	for name, accept := range map[string]string{"text": "", "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fullFleet(100)
				m := metricsOf(f)
				s := serve(t, Handler(f, "dynamo", sampleOf(f), m, slog.New(slog.DiscardHandler)))
				const clients = 200
				for range clients {
					write(t, s.connect(t), "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: "+accept+"\r\n\r\n")
					pass(10 * time.Millisecond)
					if n := m.press.inUse(); n > 4 {
						t.Fatalf("%d pages are in use, want at most 4", n)
					}
				}
				if took := goodScrape(t, f, s.client, "http://metrics/metrics"); took > 2*time.Second+50*time.Millisecond {
					t.Errorf("a client that reads waited %v, want 2s at most", took)
				}
				pass(10 * time.Second)
				if took := goodScrape(t, f, s.client, "http://metrics/metrics"); took > 2*time.Second+50*time.Millisecond {
					t.Errorf("a client that reads waited %v, want 2s at most", took)
				}
				if n := f.Stats.SlowScrapesCut.Load(); n == 0 || n > clients {
					t.Errorf("%d scrapes were cut off, want some of %d", n, clients)
				}
				pass(31 * time.Second)
				testutil.Equal(t, "pages in use when all have been cut off", m.press.inUse(), 0)
			})
		})
	}
}

func TestWhoReadsSlowlyIsCutOffOnlyIfOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fullFleet(100)
		m := metricsOf(f)
		s := serve(t, Handler(f, "dynamo", sampleOf(f), m, slog.New(slog.DiscardHandler)))
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
		pass(20 * time.Second)
		testutil.Equal(t, "end of what one alone gets", all(alone), "0\r\n\r\n")
		testutil.Equal(t, "cut off", f.Stats.SlowScrapesCut.Load(), 0)

		var some []net.Conn
		for range 4 {
			some = append(some, slow())
		}
		pass(1999 * time.Millisecond)
		another := slow()
		testutil.Equal(t, "cut off before their time", f.Stats.SlowScrapesCut.Load(), 0)
		pass(50 * time.Millisecond)
		testutil.Equal(t, "cut off after it", f.Stats.SlowScrapesCut.Load(), 1)
		if all(some[0]) == "0\r\n\r\n" {
			t.Error("the page of the oldest looks whole")
		}
		for _, c := range append(some[1:], another) {
			testutil.Equal(t, "end of what the others get", all(c), "0\r\n\r\n")
		}
	})
}

// TestWhoReadsSteadilyIsCutOffOnlyWhenPrometheusWouldGiveUp takes a piece a second.
func TestWhoReadsSteadilyIsCutOffOnlyWhenPrometheusWouldGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fullFleet(1000)
		m := metricsOf(f)
		s := serve(t, Handler(f, "dynamo", sampleOf(f), m, slog.New(slog.DiscardHandler)))
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
			pass(time.Second)
		}
		pass(50 * time.Millisecond)
		testutil.Equal(t, "cut off when one waits for ten seconds", f.Stats.SlowScrapesCut.Load(), 1)
	})
}

// TestAPieceHasTwoSeconds while others wait: 64 KiB.
func TestAPieceHasTwoSeconds(t *testing.T) {
	for rate, isCutOff := range map[int64]bool{40 << 10: false, 20 << 10: true} { // bytes a second
		synctest.Test(t, func(t *testing.T) {
			f := fullFleet(1000)
			s := serve(t, Handler(f, "dynamo", sampleOf(f), metricsOf(f), slog.New(slog.DiscardHandler)))
			var all []net.Conn
			for range 5 { // one more than there are pages
				c := s.connect(t)
				write(t, c, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
				synctest.Wait()
				all = append(all, c)
			}
			for range 80 {
				pass(100 * time.Millisecond)
				for _, c := range all[:4] {
					_, _ = io.CopyN(io.Discard, c, rate/10)
				}
			}
			testutil.Equal(t, fmt.Sprint("is cut off at ", rate), f.Stats.SlowScrapesCut.Load() > 0, isCutOff)
		})
	}
}

// TestStalledStreamsOfHTTP2 has clients that read neither their streams nor even their
// connections.
func TestStalledStreamsOfHTTP2(t *testing.T) {
	for name, deaf := range map[string]bool{"streams": false, "connections": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fullFleet(10_000) // more than an unread stream takes
				m := metricsOf(f)
				certFile, keyFile, trust := certificate(t)
				wire := memnet.New()
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				config, err := ReadWebConfig(webConfig(t, "tls_server_config: {cert_file: "+certFile+", key_file: "+keyFile+"}"))
				noError(t, err)
				go func() {
					ended <- Serve(ctx, wire, Handler(f, "dynamo", sampleOf(f), m, slog.New(slog.DiscardHandler)), config, slog.New(slog.DiscardHandler))
				}()
				client := func() (*http.Client, chan struct{}) {
					shut := make(chan struct{})
					transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, ServerName: "127.0.0.1"}, ForceAttemptHTTP2: true, DisableCompression: true,
						DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
							c, err := wire.Dial(ctx, network, address)
							return &gated{c, shut, t.Context()}, err
						}}
					t.Cleanup(transport.CloseIdleConnections)
					return &http.Client{Transport: transport}, shut
				}
				for range 8 {
					c, shut := client()
					asked, cancel := context.WithCancel(t.Context())
					t.Cleanup(cancel)
					go func() {
						r, _ := http.NewRequestWithContext(asked, "GET", "https://metrics/metrics", nil)
						if resp, err := c.Do(r); err == nil {
							if deaf {
								close(shut)
							}
							<-asked.Done()
							resp.Body.Close()
						}
					}()
					synctest.Wait()
				}
				good, _ := client()
				if took := goodScrape(t, f, good, "https://metrics/metrics"); took > 8*time.Second {
					t.Errorf("a client that reads waited %v, want 8s at most", took)
				}
				stop()
				noError(t, <-ended)
			})
		})
	}
}

// gated is a connection that reads nothing more once it is shut.
type gated struct {
	net.Conn
	shut chan struct{}
	ctx  context.Context
}

func (g *gated) Read(b []byte) (int, error) {
	select {
	case <-g.shut:
		<-g.ctx.Done()
		return 0, io.EOF
	default:
		return g.Conn.Read(b)
	}
}
