package web

import (
	"bufio"
	"context"
	"errors"
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

// testServer is a running Serve on a network in memory.
type testServer struct {
	*memnet.Network
	client *http.Client
	stop   context.CancelFunc
	ended  chan struct{}
	err    error // the error of Serve, once it has ended
}

func startServer(t *testing.T, h http.Handler) *testServer {
	return startServerWith(t, h, nil, slog.New(slog.DiscardHandler))
}

// startServerWith is startServer with a web configuration.
func startServerWith(t *testing.T, h http.Handler, config *Config, log *slog.Logger) *testServer {
	ctx, stop := context.WithCancel(t.Context())
	s := &testServer{Network: memnet.New(), stop: stop, ended: make(chan struct{})}
	s.client = &http.Client{Transport: &http.Transport{DialContext: s.Dial}}
	go func() {
		defer close(s.ended)
		s.err = Serve(ctx, s.Network, h, config, log)
	}()
	t.Cleanup(func() {
		stop()
		s.client.CloseIdleConnections()
		<-s.ended
	})
	return s
}

func (s *testServer) connect(t *testing.T) net.Conn {
	t.Helper()
	c, err := s.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// wantEnd stops Serve, and fails the test unless it ends without an error in this time.
func (s *testServer) wantEnd(t *testing.T, atLeast, atMost time.Duration) {
	t.Helper()
	start := time.Now()
	s.stop()
	<-s.ended
	testutil.NoError(t, s.err)
	if took := time.Since(start); took < atLeast || took > atMost {
		t.Errorf("Serve took %s to end, want %s to %s", took, atLeast, atMost)
	}
}

func TestServeAnswersUntilStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, handler(readyFleet(t)))
		resp, err := s.client.Get("http://metrics/-/ready")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		testutil.NoError(t, err)
		testutil.Equal(t, "response", string(body), "ready\n")
		s.wantEnd(t, 0, 500*time.Millisecond) // an idle connection does not delay the end
		if _, err := s.client.Get("http://metrics/-/ready"); err == nil {
			t.Error("the server still responds after its end")
		}
	})
}

func TestServeFinishesRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(500 * time.Millisecond)
			io.WriteString(w, "done")
		}))
		answer := make(chan string, 1)
		go func() {
			resp, err := s.client.Get("http://metrics/")
			if err != nil {
				answer <- err.Error()
				return
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			answer <- string(body)
		}()
		synctest.Wait()
		s.wantEnd(t, 500*time.Millisecond, time.Second)
		testutil.Equal(t, "response", <-answer, "done")
	})
}

func TestServeDrainIsBounded(t *testing.T) {
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	const half, whole = "GET / HTTP/1.1\r\nHost", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, requests := range map[string][]string{
		"a client that sends nothing":        {""},
		"a client that stops in its headers": {half},
		"a handler that hangs":               {whole},
		"all of them":                        {"", half, whole},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startServer(t, hang)
				var stalled []net.Conn
				for _, r := range requests {
					c := s.connect(t)
					write(t, c, r)
					stalled = append(stalled, c)
				}
				synctest.Wait()
				s.wantEnd(t, 0, time.Second)
				start := time.Now()
				for _, c := range stalled {
					io.Copy(io.Discard, c)
				}
				testutil.Equal(t, "time until the clients are cut off", time.Since(start), 0)
			})
		})
	}
}

func TestServeCutsOffSlowClients(t *testing.T) {
	for name, c := range map[string]struct {
		send string
		want time.Duration
	}{
		"nothing is sent":     {"", 5 * time.Second},
		"headers do not end":  {"GET / HTTP/1.1\r\nHost", 5 * time.Second},
		"a body does not end": {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx", 10 * time.Second},
		"no next request":     {"GET /live HTTP/1.1\r\nHost: a\r\n\r\n", 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := startServer(t, handler(readyFleet(t))).connect(t)
				start := time.Now()
				write(t, conn, c.send)
				io.Copy(io.Discard, conn)
				if took := time.Since(start); took < c.want || took > c.want+time.Second {
					t.Errorf("cut off after %s, want %s", took, c.want)
				}
			})
		})
	}
}

func TestServeCutsOffClientsThatDoNotRead(t *testing.T) {
	for path, after := range map[string]time.Duration{
		"/metrics": 30 * time.Second, "/metrics?standby=1": 30 * time.Second, "/": 30 * time.Second, "/page/main.js": 30 * time.Second,
		"/-/ready": 30 * time.Second, "/debug/pprof/": 30 * time.Second, "/api/v1/targets": 10 * time.Second,
	} {
		// read returns how many bytes a client gets if it begins to read after this time.
		read := func(when time.Duration) (n int64) {
			synctest.Test(t, func(t *testing.T) {
				f := readyFleet(t)
				h := handlerWith(f, func(o *Options) {
					o.Profiles, o.WorkerMetricsURL = true, func(fleet.ScrapeTarget) string { return "http://a" }
				})
				conn := startServer(t, h).connect(t)
				write(t, conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				testutil.Advance(when)
				n, _ = io.Copy(io.Discard, conn)
			})
			return n
		}
		if n := read(after - time.Second); n == 0 {
			t.Errorf("%s: a client that reads after %v gets nothing", path, after-time.Second)
		}
		testutil.Equal(t, path+": bytes to a client that reads too late", read(after+time.Second), 0)
	}
}

func TestServeLimitsHeaders(t *testing.T) {
	for size, want := range map[int]string{
		60 << 10: "HTTP/1.1 200 OK\r\n",
		69 << 10: "HTTP/1.1 431 Request Header Fields Too Large\r\n", // the library adds 4 KiB to the 64
		1 << 20:  "HTTP/1.1 431 Request Header Fields Too Large\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, handler(readyFleet(t)))
			conn := s.connect(t)
			go io.WriteString(conn, "GET /live HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", size)+"\r\n\r\n")
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, fmt.Sprint("response to ", size, " bytes of headers"), line, want)
		})
	}
}

func TestServeReturnsTheListenersError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, handler(readyFleet(t)))
		synctest.Wait()
		s.Close()
		<-s.ended
		if !errors.Is(s.err, net.ErrClosed) || !strings.HasPrefix(s.err.Error(), "serve http on pipe: ") {
			t.Errorf("error %v, want the listener's with its address", s.err)
		}
	})
}

func TestServeStoppedEarlyClosesListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		stop()
		network := memnet.New()
		testutil.NoError(t, Serve(ctx, network, http.NotFoundHandler(), nil, slog.New(slog.DiscardHandler)))
		<-network.Closed
	})
}
