package web

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/memnet"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/testutil"
)

// streamServer is a harness whose fleet is sampled once a second and served as the program does.
type streamServer struct {
	*harness
	network *memnet.Network
	client  *http.Client
	stop    context.CancelFunc
	ended   chan struct{}
}

func inBubbleWithServer(t *testing.T, test func(*streamServer)) {
	inBubbleWithServerConfig(t, func(*testing.T) *Config { return nil }, test)
}

// inBubbleWithServerConfig is inBubbleWithServer with a web configuration.
func inBubbleWithServerConfig(t *testing.T, config func(*testing.T) *Config, test func(*streamServer)) {
	inBubble(t, func(h *harness) {
		t := h.t // the T of the bubble
		ctx, stop := context.WithCancel(t.Context())
		s := &streamServer{harness: h, network: memnet.New(), stop: stop, ended: make(chan struct{})}
		s.client = &http.Client{Transport: &http.Transport{DialContext: s.network.Dial, DisableCompression: true}}
		h.registerPolled(generate, 1, 2)
		h.setReplies(pollReply(generate, 1, 250, 0), pollReply(generate, 2, 750, 3))
		h.fleet.RecordPollReply(h.replies...)
		webConfig, sampling := config(t), make(chan struct{})
		go func() { defer close(sampling); h.monitor.Run(ctx) }()
		go func() {
			defer close(s.ended)
			if err := Serve(ctx, s.network, h.handler, webConfig, slog.New(slog.DiscardHandler)); err != nil {
				t.Error(err)
			}
			<-sampling
		}()
		defer func() {
			stop()
			s.client.CloseIdleConnections()
			<-s.ended
		}()
		test(s)
	})
}

// request sends a request with header name, value pairs, and reads the response.
func (s *streamServer) request(method, path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://metrics"+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(body)
}

// streamClient is a client of the stream.
type streamClient struct {
	t     *testing.T
	resp  *http.Response
	lines *bufio.Reader
}

func (s *streamServer) openStream(header ...string) *streamClient {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "GET", "http://metrics/events", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Vary") != "Accept-Encoding" || resp.Header.Get("Cache-Control") != "no-store" {
		s.t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	body := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			s.t.Fatal(err)
		}
	}
	return &streamClient{s.t, resp, bufio.NewReader(body)}
}

// next returns the next event of the stream, or false at its end.
func (c *streamClient) next() (s snapshotJSON, ok bool) {
	c.t.Helper()
	line, err := c.lines.ReadString('\n')
	if err == io.EOF {
		return s, false
	}
	data, isData := strings.CutPrefix(line, "data: ")
	empty, err2 := c.lines.ReadString('\n')
	if err != nil || err2 != nil || !isData || empty != "\n" {
		c.t.Fatalf("%q and %q are no event: %v, %v", line, empty, err, err2)
	}
	monitortest.Decode(c.t, []byte(data), &s)
	return s, true
}

func TestStreamSendsSnapshotsAndHistory(t *testing.T) {
	for name, header := range map[string][]string{"plain": nil, "gzip": {"Accept-Encoding", "gzip, br"}} {
		t.Run(name, func(t *testing.T) {
			inBubbleWithServer(t, func(s *streamServer) {
				t := s.t
				time.Sleep(7500 * time.Millisecond)
				c := s.openStream(header...)
				start := time.Now()
				var histories []int
				var ends []int64
				for n := range 60 { // longer than the write and read timeouts of a request
					e, ok := c.next()
					if !ok || len(e.Workers) != 2 {
						t.Fatalf("event %d: %v with %d workers", n, ok, len(e.Workers))
					}
					if want := start.Add(time.Duration(n)*time.Second - 500*time.Millisecond); e.Now != want.UnixMilli() {
						t.Fatalf("event %d has the time %d, want %d", n, e.Now, want.UnixMilli())
					}
					if e.History != nil {
						histories = append(histories, n)
						ends = append(ends, e.History.End)
					}
				}
				testutil.Equal(t, "events with a history", histories, []int{0, 3, 8, 13, 18, 23, 28, 33, 38, 43, 48, 53, 58})
				testutil.Equal(t, "length of a step", ends[5]-ends[4], 5000)
			})
		})
	}
}

func TestStreamEndsCleanlyOnShutdown(t *testing.T) {
	inBubbleWithServer(t, func(s *streamServer) {
		t := s.t
		plain, packed := s.openStream(), s.openStream("Accept-Encoding", "gzip")
		for _, c := range []*streamClient{plain, packed} {
			if _, ok := c.next(); !ok {
				t.Fatal("no event")
			}
		}
		testutil.Equal(t, "open streams", s.fleet.Stats.Streams.Load(), 2)
		var reading sync.WaitGroup
		for _, c := range []*streamClient{plain, packed} {
			reading.Go(func() {
				if e, ok := c.next(); ok { // for gzip this also reads the checksum
					t.Errorf("the stream sent one more event, with the time %d", e.Now)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		s.stop()
		<-s.ended
		if took := time.Since(start); took > 10*time.Millisecond {
			t.Errorf("the program took %v to end with streams open", took)
		}
		reading.Wait()
		testutil.Equal(t, "open streams", s.fleet.Stats.Streams.Load(), 0)
		testutil.Equal(t, "cut off", s.fleet.Stats.StreamsCutOff.Load(), 0)
	})
}

func TestStreamSkipsSnapshotsForSlowClient(t *testing.T) {
	inBubbleWithServer(t, func(s *streamServer) {
		t := s.t
		connect := func() net.Conn {
			c, err := s.network.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			return c
		}
		slow, stalled := connect(), connect()
		lines := bufio.NewReader(slow)
		event := func() (e snapshotJSON) {
			t.Helper()
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if data, ok := strings.CutPrefix(line, "data: "); ok {
					monitortest.Decode(t, []byte(data), &e)
					return e
				}
			}
		}
		first := event()
		time.Sleep(9500 * time.Millisecond)
		second := event() // was made a second after the first, and was queued
		testutil.Equal(t, "age of the queued event", second.Now-first.Now, 1000)
		third := event()
		testutil.Equal(t, "age of the next event", third.Now-first.Now, 9000)
		if third.History == nil {
			t.Error("the newest event lacks the history, although a step of it has ended since the last")
		}
		testutil.Equal(t, "skipped", s.fleet.Stats.SnapshotsSkipped.Load(), 7)
		testutil.Equal(t, "cut off too early", s.fleet.Stats.StreamsCutOff.Load(), 0)
		time.Sleep(2 * time.Second)
		testutil.Equal(t, "cut off", s.fleet.Stats.StreamsCutOff.Load(), 1)
		if rest, err := io.ReadAll(stalled); err != nil || bytes.HasSuffix(rest, []byte("0\r\n\r\n")) {
			t.Errorf("a stream that was cut off looks complete: %q %v", rest, err)
		}
		testutil.Equal(t, "open streams", s.fleet.Stats.Streams.Load(), 1)
	})
}

func TestStreamCountIsLimited(t *testing.T) {
	inBubbleWithServer(t, func(s *streamServer) {
		t := s.t
		var all []*streamClient
		for range 100 {
			c := s.openStream()
			if _, ok := c.next(); !ok {
				t.Fatal("no event")
			}
			all = append(all, c)
		}
		resp, body := s.request("GET", "/events", "Accept-Encoding", "gzip")
		testutil.Equal(t, "status", resp.StatusCode, 503)
		testutil.Equal(t, "headers", []string{resp.Header.Get("Content-Type"), resp.Header.Get("Content-Encoding"), resp.Header.Get("Retry-After")}, []string{"application/json", "", "10"})
		testutil.Equal(t, "response", body, `{"error":"there are 100 open streams already, or the program is shutting down: close some, or poll /api/v1/fleet"}`+"\n")
		testutil.Equal(t, "refused", s.fleet.Stats.StreamsRefused.Load(), 1)
		all[0].resp.Body.Close()
		time.Sleep(2 * time.Second) // the server notices it at the latest when it writes
		synctest.Wait()
		if _, ok := s.openStream().next(); !ok {
			t.Error("a stream is refused although another was closed")
		}
	})
}

func TestGzipChunksAreIndependent(t *testing.T) {
	first, second := deflateChunk([]byte("data: one, two, three\n\n")), deflateChunk([]byte("data: one, two, three\n\n"))
	var sum gzipTrailer
	stream := bytes.Clone(gzipHeader)
	for _, piece := range [][]byte{second, first} { // in any order
		stream = append(stream, piece...)
		sum.update([]byte("data: one, two, three\n\n"))
	}
	r, err := gzip.NewReader(bytes.NewReader(append(stream, sum.bytes()...)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	testutil.Equal(t, "stream", string(got), strings.Repeat("data: one, two, three\n\n", 2))
}

func TestStreamOfStandby(t *testing.T) {
	inBubbleWithServer(t, func(s *streamServer) {
		t := s.t
		s.fleet.Stats.ActsAsLeader.Store(false)
		time.Sleep(1100 * time.Millisecond)
		e, _ := s.openStream().next()
		testutil.Equal(t, "role", e.Leader.Role, "standby")
		testutil.Equal(t, "workers", len(e.Workers), 2)
	})
}
