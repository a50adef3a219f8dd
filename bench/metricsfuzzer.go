package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// metricsFuzzerID is the id of the worker whose own metrics are almost valid. No seed has it.
const metricsFuzzerID = 0x74b0dc5119495cff

// metricsFuzzer serves that worker's metrics. Each response is different, and every second one is
// certainly malformed. The workers in the fuzzed registry serve no metrics, whatever address
// their model cards name.
type metricsFuzzer struct {
	server  http.Server
	address string // host:port
	served  atomic.Uint64

	mu    sync.Mutex
	rng   *rand.Rand
	seeds [][]byte
}

// newMetricsFuzzer registers the worker and serves its metrics until close.
func newMetricsFuzzer(ctx context.Context, s *environment, rng *rand.Rand) (*metricsFuzzer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve a worker's metrics: %w", err)
	}
	l := &metricsFuzzer{address: listener.Addr().String(), rng: rng, seeds: garbage.Messages()[stats.WorkerMetrics]}
	l.server.Handler = l
	go l.server.Serve(listener) // returns after close
	in := fleet.Instance{Endpoint: garbage.Endpoint, ID: metricsFuzzerID}
	value := wire.LayoutV1.Value(garbage.Namespace, in, "127.0.0.1:9/"+wire.HexID(in.ID))
	if _, err := s.client.Put(ctx, wire.LayoutV1.Key(garbage.Namespace, in), string(value)); err != nil {
		l.close()
		return nil, fmt.Errorf("register the worker that serves metrics: %w", err)
	}
	return l, nil
}

func (l *metricsFuzzer) close() { l.server.Close() }

// template returns the URL template for the worker's metrics.
func (l *metricsFuzzer) template() string { return "http://" + l.address + "/{worker_id}" }

func (l *metricsFuzzer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/"+strconv.FormatUint(metricsFuzzerID, 10) {
		http.NotFound(w, r)
		return
	}
	l.mu.Lock()
	body := garbage.Mutate(l.rng, l.seeds)
	l.mu.Unlock()
	if l.served.Load()%2 == 0 {
		body = append(body, "\nvllm:num_requests_running{\n"...)
	}
	w.Write(body) // if a response is lost, the check of the counts fails
	l.served.Add(1)
}
