package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// readBehaviours has the ways in which clients read the body of a stream, until ctx ends or reading
// fails.
var readBehaviours = map[string]struct {
	read   func(ctx context.Context, body io.Reader) error
	cutOff bool
}{
	"never reads": {func(ctx context.Context, body io.Reader) error { <-ctx.Done(); return nil }, true},
	"reads a byte a second": {func(ctx context.Context, body io.Reader) error {
		for b := make([]byte, 1); ; time.Sleep(time.Second) {
			if _, err := body.Read(b); err != nil || ctx.Err() != nil {
				return err
			}
		}
	}, true},
	"reads slowly": {func(ctx context.Context, body io.Reader) error { // a snapshot takes some seconds
		for b := make([]byte, 8<<10); ; time.Sleep(time.Second) {
			if _, err := io.ReadFull(body, b); err != nil || ctx.Err() != nil {
				return err
			}
		}
	}, false},
	"reads": {func(ctx context.Context, body io.Reader) error { _, err := io.Copy(io.Discard, body); return err }, false},
}

// TestStreamCutsOffSlowClients runs one client of each kind at a time, with each protocol, for a
// minute.
func TestStreamCutsOffSlowClients(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, packed := range []bool{false, true} {
			for what, r := range readBehaviours {
				t.Run(fmt.Sprintf("%s, packed %v, %s", proto, packed, what), func(t *testing.T) {
					inBubbleWithServerConfig(t, newTLSConfig, func(s *streamServer) {
						t := s.t
						for id := range uint64(300) { // a minute of snapshots is more than a client buffers
							s.registerPolled(generate, 100+id)
						}
						ctx, end := context.WithCancel(t.Context())
						transport := &http.Transport{DialContext: s.network.Dial, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
							ForceAttemptHTTP2: proto == "HTTP/2.0", HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10}}
						client := &http.Client{Transport: transport}
						request, _ := http.NewRequestWithContext(ctx, "GET", "https://127.0.0.1/events", nil)
						if packed {
							request.Header.Set("Accept-Encoding", "gzip")
						}
						resp, err := client.Do(request)
						if err != nil {
							t.Fatal(err)
						}
						testutil.Equal(t, "protocol and encoding", resp.Proto+" "+resp.Header.Get("Content-Encoding"), proto+" "+map[bool]string{true: "gzip"}[packed])
						over := make(chan struct{})
						go func() {
							defer close(over)
							r.read(ctx, resp.Body)
						}()
						time.Sleep(time.Minute)
						want := map[bool][2]int64{false: {1, 0}, true: {0, 1}}[r.cutOff]
						testutil.Equal(t, "open streams, and those that were cut off", [2]int64{s.fleet.Stats.Streams.Load(), int64(s.fleet.Stats.StreamsCutOff.Load())}, want)
						end()
						<-over
						resp.Body.Close()
						client.CloseIdleConnections()
						synctest.Wait()
					})
				})
			}
		}
	}
}

// TestAPICutsOffSlowClients checks that a client has ten seconds in total for a response that is not
// a stream.
func TestAPICutsOffSlowClients(t *testing.T) {
	for _, path := range []string{"/api/v1/fleet", "/api/v1/fleet?history=true", "/worker?key=100", "/api/v1/openapi.json"} {
		inBubbleWithServer(t, func(s *streamServer) {
			t := s.t
			for id := range uint64(300) {
				s.registerPolled(generate, 100+id)
			}
			time.Sleep(1500 * time.Millisecond)
			c, err := s.network.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(9 * time.Second)
			begin := make([]byte, 100)
			if _, err := io.ReadFull(c, begin); err != nil || !strings.HasPrefix(string(begin), "HTTP/1.1 200 OK") { // the connection is still open
				t.Errorf("%s: %q after nine seconds, %v", path, begin, err)
			}
			time.Sleep(1500 * time.Millisecond)
			start := time.Now()
			rest, err := io.ReadAll(c)
			if took := time.Since(start); took > 0 || err != nil || strings.HasSuffix(string(rest), "0\r\n\r\n") {
				t.Errorf("%s: after ten seconds the response has %d bytes more, ends %v later with the error %v, and looks complete or is not cut off", path, len(rest), took, err)
			}
		})
	}
}

// TestStreamEndsWithinCloseTimeout checks that a client that has read everything and then stops
// reading delays the shutdown by half a second at most.
func TestStreamEndsWithinCloseTimeout(t *testing.T) {
	for _, header := range [][]string{nil, {"Accept-Encoding", "gzip"}} {
		inBubbleWithServer(t, func(s *streamServer) {
			s.openStream(header...).next()
			synctest.Wait()
			start := time.Now()
			s.stop()
			<-s.ended
			if took := time.Since(start); took < 500*time.Millisecond || took >= time.Second { // the server polls for open connections
				s.t.Errorf("the shutdown took %v, want half a second", took)
			}
		})
	}
}

// stalledConn is a connection that stops reading once stalled is closed.
type stalledConn struct {
	net.Conn
	stalled, closed chan struct{}
}

func (c *stalledConn) Read(b []byte) (int, error) {
	select {
	case <-c.stalled:
		<-c.closed
		return 0, io.EOF
	default:
		return c.Conn.Read(b)
	}
}

func (c *stalledConn) Close() error {
	close(c.closed)
	return c.Conn.Close()
}

// TestStreamCutsOffStalledHTTP2Connection checks that a stream is counted as cut off if its
// connection is ended before the stream's own deadline.
func TestStreamCutsOffStalledHTTP2Connection(t *testing.T) {
	inBubbleWithServerConfig(t, newTLSConfig, func(s *streamServer) {
		t, stalled := s.t, make(chan struct{})
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := s.network.Dial(ctx, network, address)
				return &stalledConn{c, stalled, make(chan struct{})}, err
			}}}
		resp, err := client.Get("https://127.0.0.1/events")
		if err != nil {
			t.Fatal(err)
		}
		close(stalled)
		time.Sleep(15 * time.Second)
		testutil.Equal(t, "open streams, and those that were cut off", [2]int64{s.fleet.Stats.Streams.Load(), int64(s.fleet.Stats.StreamsCutOff.Load())}, [2]int64{0, 1})
		resp.Body.Close()
		client.CloseIdleConnections()
	})
}

// serveTCP serves a fleet on a TCP port, as the program does, until the test ends. It returns the
// accepted connections.
func serveTCP(t *testing.T) (address string, accepted chan net.Conn, counters *stats.Stats) {
	t.Helper()
	f := fleet.New(fleet.Target{}, 10_000, true)
	f.Advance(time.Now())
	f.Sync(fleet.Listing{})
	m := monitor.New(monitorOptions(f))
	h := Handler(Options{Fleet: f, Namespaces: "dynamo", Monitor: m, Metrics: metricsOf(f), Log: slog.New(slog.DiscardHandler)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	accepted = make(chan net.Conn, 10)
	var both sync.WaitGroup
	both.Go(func() { m.Run(ctx) })
	both.Go(func() {
		if err := Serve(ctx, recordingListener{l, accepted}, h, nil, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); both.Wait() })
	return l.Addr().String(), accepted, &f.Stats
}

// recordingListener is a listener that also sends the connections that it accepts to a channel.
type recordingListener struct {
	net.Listener
	accepted chan net.Conn
}

func (l recordingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- c
	}
	return c, err
}

// openStream opens a stream and reads the first line of the response.
func openStream(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReaderSize(c, 16).ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" {
		t.Fatal(line, err)
	}
	return c.(*net.TCPConn)
}

// TestStreamLimitsSocketSendBuffer checks that the buffer is smaller than the kernel's default, which
// is megabytes.
func TestStreamLimitsSocketSendBuffer(t *testing.T) {
	address, accepted, _ := serveTCP(t)
	openStream(t, address)
	raw, err := (<-accepted).(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	if err := raw.Control(func(fd uintptr) { size, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF) }); err != nil {
		t.Fatal(err)
	}
	if size != 2*65536 && size != 65536 { // Linux doubles the value
		t.Errorf("the send buffer is %d bytes, %v, want 64 KiB", size, err)
	}
}

func TestStreamEndsWhenClientClosesWrite(t *testing.T) {
	address, _, counters := serveTCP(t)
	c := openStream(t, address)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	testutil.Until(t, func() error {
		if n := counters.Streams.Load(); n != 0 {
			return fmt.Errorf("%d streams are open", n)
		}
		return nil
	})
}

// newTLSConfig returns a web configuration with a certificate of a new CA.
func newTLSConfig(t *testing.T) *Config {
	file := testutil.NewAuthorityWithCertificates(t).File("yml")
	const text = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n" // in the same directory
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := ReadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
