package process

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards connections to a server. It can delay and break them.
type Proxy struct {
	Address string

	target   string
	listener net.Listener
	work     sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	delay time.Duration
	conns map[net.Conn]bool
}

// NewProxy forwards connections from its address to the target until the test ends.
func NewProxy(t *testing.T, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Address: l.Addr().String(), target: target, listener: l, conns: make(map[net.Conn]bool)}
	p.work.Go(p.accept)
	t.Cleanup(func() { l.Close(); p.Cut(); p.work.Wait() })
	return p
}

// Cut breaks all connections, and new ones at once, until Restore.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		c.Close()
	}
}

// Restore lets new connections through again.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// SetDelay delays each byte by d in each direction from now on.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.target)
		if err != nil {
			c.Close()
			continue
		}
		p.track(c, s)
		p.work.Go(func() { p.forward(c, s) })
		p.work.Go(func() { p.forward(s, c) })
	}
}

// track keeps connections, so that Cut can break them.
func (p *Proxy) track(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
		if p.cut {
			c.Close()
		}
	}
}

// chunk is a piece of data and the time at which it is to be forwarded.
type chunk struct {
	bytes []byte
	due   time.Time
}

// forward copies from one connection to the other until either of them ends.
func (p *Proxy) forward(from, to net.Conn) {
	under := make(chan chunk, 1<<14) // data on its way
	p.work.Go(func() {
		defer to.Close()
		for c := range under {
			time.Sleep(time.Until(c.due))
			if _, err := to.Write(c.bytes); err != nil {
				from.Close()
			}
		}
	})
	defer close(under)
	for {
		b := make([]byte, 32<<10)
		n, err := from.Read(b)
		if n > 0 {
			p.mu.Lock()
			due := time.Now().Add(p.delay)
			p.mu.Unlock()
			under <- chunk{b[:n], due}
		}
		if err != nil {
			p.mu.Lock()
			delete(p.conns, from)
			p.mu.Unlock()
			return
		}
	}
}
