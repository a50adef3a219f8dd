package exposition

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/expfmt"

	"dynamo-metrics/internal/fleet"
)

// A hundred clients send requests during a rendering. They share one rendering that has all
// changes from before their requests.
func TestPageCacheSharesRenderings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{Component: "backend", Name: "generate"}, 10, false)
		f.Advance(time.Now())
		renderings, first := 0, make(chan struct{})
		m := NewMetrics(Collector{Fleet: f, Now: func() time.Time {
			if renderings++; renderings == 1 {
				<-first
			}
			return time.Now()
		}})
		var readers sync.WaitGroup
		read := func(want string) {
			readers.Go(func() {
				reader := &reader{connection: http.NewResponseController(httptest.NewRecorder())}
				got := m.cache.render(m.formats[expfmt.TypeTextPlain], reader)
				defer m.cache.release(got, reader)
				if got.err != nil || !strings.Contains(got.body.String(), want) {
					t.Errorf("error %v, and the text lacks %q:\n%s", got.err, want, got.body.String())
				}
				z, err := gzip.NewReader(bytes.NewReader(got.gzip()))
				if err != nil {
					t.Error(err)
					return
				}
				if b, err := io.ReadAll(z); err != nil || !bytes.Equal(b, got.body.Bytes()) {
					t.Errorf("the compressed text differs, error %v", err)
				}
			})
		}
		read("llm_workers")
		synctest.Wait()
		f.RecordHit(7, 4, 1)
		for range 100 {
			read(`llm_kv_hit_rate_isl_blocks{component="backend",endpoint="generate",worker_id="7"} 4`)
		}
		synctest.Wait()
		close(first)
		readers.Wait()
		if renderings != 2 {
			t.Errorf("%d renderings for 101 readers, want 2", renderings)
		}
	})
}

func TestPageCacheDropsPanickedRendering(t *testing.T) {
	broken := true
	m := NewMetrics(Collector{Fleet: fleet.New(fleet.Target{}, 10, false), Now: func() time.Time {
		if broken {
			panic("broken")
		}
		return time.Now()
	}})
	h := m.Handler(slog.New(slog.DiscardHandler))
	func() {
		defer func() { recover() }() // as net/http does
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}()
	broken = false
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "dynamo_metrics_build_info") {
		t.Errorf("the next response: %d %s", w.Code, w.Body)
	}
}
