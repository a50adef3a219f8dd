//go:build real

package real

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// captures is the directory with captured messages of real workers and of the original.
const captures = "../../internal/wire/testdata"

// replayed is a worker that answers stats polls with the captured reply of a real worker,
// registered under the keys of that worker.
type replayed struct {
	s    *servers
	id   uint64
	poll *nats.Subscription
	keys []string
}

var (
	serviceName = regexp.MustCompile(`"name":"([^"]+)"`)
	leaseID     = regexp.MustCompile(`"subject":"[^"]*-([0-9a-f]+)"`)
)

// replay starts a worker with the reply in one file and the keys in another.
func (s *servers) replay(replyFile, keysFile string) *replayed {
	s.t.Helper()
	reply := s.read(replyFile)
	hex := string(leaseID.FindSubmatch(reply)[1])
	id, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	w := &replayed{s: s, id: id}
	w.poll, err = s.nats.Subscribe("$SRV.STATS."+string(serviceName.FindSubmatch(reply)[1]), func(m *nats.Msg) {
		m.Respond(reply)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.nats.Flush(); err != nil {
		s.t.Fatal(err)
	}
	var registry []struct{ Key, Value string }
	if err := json.Unmarshal(s.read(keysFile), &registry); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range registry {
		if strings.HasSuffix(e.Key, ":"+hex) {
			w.keys = append(w.keys, e.Key)
			if _, err := s.etcd.Put(s.t.Context(), e.Key, e.Value); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return w
}

// terminate ends the worker as SIGTERM does.
func (w *replayed) terminate() {
	w.s.t.Helper()
	for _, key := range w.keys {
		if _, err := w.s.etcd.Delete(w.s.t.Context(), key); err != nil {
			w.s.t.Fatal(err)
		}
	}
	if err := w.poll.Unsubscribe(); err != nil {
		w.s.t.Fatal(err)
	}
}

// replayOriginals starts the three workers whose replies the original received.
func (s *servers) replayOriginals() (workers []*replayed) {
	s.t.Helper()
	for _, reply := range []string{"stats_reply_1.json", "stats_reply_2.json", "stats_reply_3.json"} {
		workers = append(workers, s.replay(filepath.Join(captures, "original", reply), filepath.Join(captures, "0.1.1", "etcd_keys.json")))
	}
	return workers
}

// publishOriginalHits publishes the hit-rate events that the original received.
func (s *servers) publishOriginalHits() {
	s.t.Helper()
	var events []struct {
		Worker  uint64 `json:"worker_id"`
		ISL     int    `json:"isl_blocks"`
		Overlap int    `json:"overlap_blocks"`
	}
	if err := json.Unmarshal(s.read(filepath.Join(captures, "original", "hit_rate_events.json")), &events); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range events {
		s.publishHit(e.Worker, e.ISL, e.Overlap)
	}
}

func (s *servers) read(file string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}
