package collect

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/tinylib/msgp/msgp"
)

// zmqNetwork is a network in memory with ZeroMQ publishers. It must be used in a synctest
// bubble.
type zmqNetwork struct {
	t     *testing.T
	fleet *fleet.Fleet
	log   *testutil.Log

	mu         sync.Mutex
	publishers map[string]*fakePublisher // by host and port
	drops      map[string]bool           // addresses that do not respond; other addresses without a publisher refuse connections
	dialing    map[string]int
	maxDialing map[string]int // the most at the same time
	dials      map[string]int
}

// fakePublisher is a publisher of ZMTP 3.1.
type fakePublisher struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

// runZMQNetwork runs a test with an Events that has this many slots.
func runZMQNetwork(t *testing.T, slots int, test func(*zmqNetwork)) {
	synctest.Test(t, func(t *testing.T) {
		log, journal := testutil.NewLog()
		p := &zmqNetwork{
			t: t, fleet: fleet.New(fleet.Target{}, 1000, true), log: journal, publishers: make(map[string]*fakePublisher), drops: make(map[string]bool),
			dialing: make(map[string]int), maxDialing: make(map[string]int), dials: make(map[string]int),
		}
		p.fleet.Sync(fleet.Listing{})
		e := NewEvents(p.fleet, "dynamo", log)
		e.dial = p.dial
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.ZMQ(ctx, nil, slots) }()
		test(p)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		all := slices.Collect(maps.Keys(p.publishers))
		p.mu.Unlock()
		for _, address := range all {
			p.stop(address)
		}
	})
}

func (p *zmqNetwork) dial(ctx context.Context, address string) (net.Conn, error) {
	p.mu.Lock()
	s, drops := p.publishers[address], p.drops[address]
	p.dials[address]++
	p.dialing[address]++
	p.maxDialing[address] = max(p.maxDialing[address], p.dialing[address])
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.dialing[address]--
		p.mu.Unlock()
	}()
	switch {
	case s != nil:
		ours, theirs := net.Pipe()
		s.mu.Lock()
		s.conns[theirs] = true
		s.mu.Unlock()
		go s.serve(theirs)
		return ours, nil
	case drops:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
}

const (
	greetingSize = 64
	greeting     = "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f\x03\x01NULL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

// serve serves a connection.
func (s *fakePublisher) serve(c net.Conn) {
	defer c.Close()
	in := make([]byte, 256)
	io.ReadFull(c, in[:greetingSize])
	c.Write(append([]byte(greeting), make([]byte, greetingSize-len(greeting))...))
	for ready := false; ; {
		if _, err := io.ReadFull(c, in[:2]); err != nil {
			return
		}
		body := in[:in[1]]
		io.ReadFull(c, body)
		s.mu.Lock()
		switch {
		case !ready:
			ready = true
			c.Write([]byte("\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"))
		case strings.HasPrefix(string(body), "\x04PING"):
			c.Write([]byte("\x04\x05\x04PONG"))
		}
		s.mu.Unlock()
	}
}

// send sends a message to all subscribers.
func (s *fakePublisher) send(frames ...[]byte) {
	var b []byte
	for i, f := range frames {
		flags := byte(3)
		if i == len(frames)-1 {
			flags = 2
		}
		b = append(binary.BigEndian.AppendUint64(append(b, flags), uint64(len(f))), f...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Write(b)
	}
}

// sendHit sends a hit-rate event.
func (s *fakePublisher) sendHit(publisher, number, worker uint64) {
	payload := msgp.AppendMapHeader(nil, 3)
	for i, key := range []string{"worker_id", "isl_blocks", "overlap_blocks"} {
		payload = msgp.AppendUint64(msgp.AppendString(payload, key), []uint64{worker, 10, 5}[i])
	}
	e := msgp.AppendMapHeader(nil, 5)
	for i, key := range []string{"publisher_id", "sequence", "published_at"} {
		e = msgp.AppendUint64(msgp.AppendString(e, key), []uint64{publisher, number, 1}[i])
	}
	e = msgp.AppendString(msgp.AppendString(e, "topic"), wire.TopicHitRate)
	e = msgp.AppendBytes(msgp.AppendString(e, "payload"), payload)
	s.send([]byte(wire.TopicHitRate), binary.BigEndian.AppendUint64(nil, publisher), binary.BigEndian.AppendUint64(nil, number),
		append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(e))), e...))
}

// listen starts a publisher at an address.
func (p *zmqNetwork) listen(address string) *fakePublisher {
	s := &fakePublisher{conns: make(map[net.Conn]bool)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publishers[address] = s
	return s
}

// dropPackets makes an address drop every packet.
func (p *zmqNetwork) dropPackets(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drops[address] = true
}

// dialCounts returns how often an address was dialed, and how often at most at the same time.
func (p *zmqNetwork) dialCounts(address string) (times, atOnce int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials[address], p.maxDialing[address]
}

// dialedAddresses returns how many addresses were dialed.
func (p *zmqNetwork) dialedAddresses() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.dials)
}

// stop stops the publisher at an address.
func (p *zmqNetwork) stop(address string) {
	p.mu.Lock()
	s := p.publishers[address]
	delete(p.publishers, address)
	p.mu.Unlock()
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// hitRateChannel returns a channel of hit rates.
func hitRateChannel(publisher uint64, address string, e fleet.Endpoint) fleet.Channel {
	return fleet.Channel{Endpoint: e, Topic: wire.TopicHitRate, Publisher: publisher, Plane: fleet.ZMQPlane, Address: "tcp://" + address}
}

// checkPublishers compares the numbers of publishers that are connected, that are announced, and
// that wait.
func (p *zmqNetwork) checkPublishers(up, all, waiting int64) {
	p.t.Helper()
	counts := &p.fleet.Stats
	got := fmt.Sprint(counts.PublishersUp.Load(), counts.Publishers.Load(), counts.PublishersWaiting.Load())
	if want := fmt.Sprint(up, all, waiting); got != want {
		p.t.Errorf("publishers connected, announced, waiting: %s, want %s", got, want)
	}
}

// checkHits compares how many events were received, and how many are missing.
func (p *zmqNetwork) checkHits(events, missing uint64) {
	p.t.Helper()
	time.Sleep(gapTimeout + time.Second) // then open gaps count as missing
	synctest.Wait()
	counts := &p.fleet.Stats
	if n, m := counts.Messages(stats.HitRate), counts.MissedEvents.Load(); n != events || m != missing {
		p.t.Errorf("%d events were received and %d are missing, want %d and %d", n, m, events, missing)
	}
}
