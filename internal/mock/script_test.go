package mock

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// script has the load of a worker, until it is changed, and hits that are each published
// once.
type script struct {
	mu        sync.Mutex
	load      fleet.Load
	loadCalls int // calls of Load
	hits      [][2]int
}

func (p *script) Load(int) fleet.Load {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loadCalls++
	return p.load
}

func (p *script) Hit(int) (isl, overlap int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.hits) == 0 {
		return 0, 0, false
	}
	h := p.hits[0]
	p.hits = p.hits[1:]
	return h[0], h[1], true
}

// changeLoad waits until Load was called some more times, and then changes the load.
func (p *script) changeLoad(t *testing.T, change func(*fleet.Load)) {
	t.Helper()
	p.mu.Lock()
	before := p.loadCalls
	p.mu.Unlock()
	testutil.Until(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.loadCalls < before+2 {
			return fmt.Errorf("the load was sampled %d times only", p.loadCalls-before)
		}
		change(&p.load)
		return nil
	})
}

func (p *script) addHits(hits ...[2]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hits = append(p.hits, hits...)
}

func newScript() *script { return &script{load: newLoad(11, 100, 4, 42, 1000, 0.25, 0.4)} }

func (p *script) config(release, plane string) Config {
	c := backend(release)
	c.EventPlane, c.Load, c.Hit, c.EventInterval = plane, p.Load, p.Hit, time.Millisecond
	return c
}
