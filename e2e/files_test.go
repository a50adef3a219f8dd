package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// registryDir is a directory in which workers register, as in Dynamo's file discovery.
type registryDir struct {
	t    *testing.T
	path string
}

func (d registryDir) file(e entry) string {
	bucket, name := wire.FileName(e.key)
	return filepath.Join(d.path, bucket, name)
}

// put writes keys as workers do: into a temporary file that is then renamed. modified is
// the time when they were last touched.
func (d registryDir) put(modified time.Time, entries ...entry) {
	d.t.Helper()
	for _, e := range entries {
		file := d.file(e)
		draft := filepath.Join(filepath.Dir(file), ".tmp_"+filepath.Base(file))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			d.t.Fatal(err)
		}
		if err := os.WriteFile(draft, []byte(e.value), 0o644); err != nil {
			d.t.Fatal(err)
		}
		if err := os.Chtimes(draft, modified, modified); err != nil {
			d.t.Fatal(err)
		}
		if err := os.Rename(draft, file); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d registryDir) remove(entries ...entry) {
	d.t.Helper()
	for _, e := range entries {
		if err := os.Remove(d.file(e)); err != nil {
			d.t.Fatal(err)
		}
	}
}

// touch keeps the keys of live workers fresh until the end of the test.
func (d registryDir) touch(entries ...entry) {
	every(d.t, time.Second, func() {
		now := time.Now()
		for _, e := range entries {
			os.Chtimes(d.file(e), now, now) // fails if the file was removed
		}
	})
}

// every calls f once in each period until the end of the test.
func every(t *testing.T, period time.Duration, f func()) {
	tick := time.NewTicker(period)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-tick.C:
				f()
			case <-t.Context().Done():
				return
			}
		}
	}()
	t.Cleanup(func() { tick.Stop(); <-ended })
}

func TestFileRegistryOfWorkers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	dir := registryDir{t, filepath.Join(t.TempDir(), "dynamo store")}
	// This etcd must not receive any connection.
	etcd, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	var asked atomic.Int64
	go func() {
		for {
			conn, err := etcd.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			conn.Close()
		}
	}()
	env := []string{"NATS_SERVER=" + s.NATS.URL(), "ETCD_ENDPOINTS=http://" + etcd.Addr().String(), "DYN_FILE_KV=" + dir.path}
	m := serve(t, env, "--discovery", "file", "--poll-interval", "0.1")
	m.WaitForLine(" WARN files: The registry cannot be read; keeping the last known fleet and retrying error=\"the directory " + dir.path + " does not exist\"")
	m.waitForSamples(samples{`dynamo_metrics_connected{system="file"}`: "0", `dynamo_metrics_connected{system="nats"}`: "1"})
	if status, body := get(m.url + "/-/ready"); status != 503 || !strings.HasPrefix(body, "not ready: the directory of workers cannot be read") {
		t.Errorf("GET /-/ready without a directory: %d %q", status, body)
	}
	if err := os.Mkdir(dir.path, 0o755); err != nil {
		t.Fatal(err)
	}
	m.waitUntilReady() // no worker has registered
	m.waitForNATSEvents()

	p := newPublisher(t, "PUB")
	first := append(registration(1), channel(wire.TopicLoad, 10, natsTransport))
	second := append(registration(2), channel(wire.TopicLoad, 20, zmqTransport(p.address)))
	dead := append(registration(3), channel(wire.TopicLoad, 30, natsTransport)) // the worker has not touched its keys for long
	dir.put(time.Now(), first...)
	dir.put(time.Now(), second...)
	dir.put(time.Now().Add(-time.Hour), dead...)
	dir.touch(first...)
	dir.touch(second...)
	m.waitForPublishers(1, 0)
	s.publish(scope+"."+wire.TopicLoad, event{10, 0, wire.TopicLoad, load16(1, 10)}.envelope())
	p.send(event{20, 0, wire.TopicLoad, load16(2, 20)}.frames(wire.TopicLoad))
	m.waitForSamples(samples{
		workerSeries("llm_kv_blocks_active", "generate", 1): "10",
		workerSeries("llm_kv_blocks_active", "generate", 2): "20",
		workerSeries("llm_kv_blocks_total", "generate", 1):  "1000",
		workersSeries("generate", "answering"):              "2",
		workersSeries("generate", "silent"):                 "0",
		`llm_load_avg{` + backend + `}`:                     "15",
		`dynamo_metrics_connected{system="file"}`:           "1",
		`dynamo_metrics_connected{system="etcd"}`:           "",
		`dynamo_metrics_leader`:                             "",
		`llm_worker_info{` + backend + `,model="tiny",source="active_load",worker_id="1",worker_id_hex="1"}`: "1",
	})

	dir.remove(second...)
	m.waitForSamples(samples{workersSeries("generate", "answering"): "1", `llm_load_avg{` + backend + `}`: "10"})
	m.waitFor(func(p samples) error { return p.matchNoneOf(2) })
	m.waitForPublishers(0, 0)
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 1): "10"})
	if n := asked.Load(); n > 0 {
		t.Errorf("etcd has had %d connections, want none", n)
	}
	m.Terminate()
}

func TestFileRegistryUnreadableKeepsWorkers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	dir := registryDir{t, t.TempDir()}
	all := append(registration(1), channel(wire.TopicLoad, 10, natsTransport))
	dir.put(time.Now(), all...)
	dir.touch(all...)
	m := serve(t, s.env(), "--discovery", "file", "--file-kv", dir.path)
	m.waitForNATSEvents()
	s.publish(scope+"."+wire.TopicLoad, event{10, 0, wire.TopicLoad, load16(1, 10)}.envelope())
	shown := samples{workerSeries("llm_kv_blocks_active", "generate", 1): "10", workersSeries("generate", "answering"): "1"}
	m.waitForSamples(shown)

	bucket := filepath.Join(dir.path, "v1/mdc")
	if err := os.Rename(bucket, bucket+" away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bucket, nil, 0o644); err != nil { // not a directory
		t.Fatal(err)
	}
	m.waitUntilNotReady("the directory of workers cannot be read")
	m.waitForSamples(samples{`dynamo_metrics_connected{system="file"}`: "0"})
	m.waitForSamples(shown)
	if err := os.Remove(bucket); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(bucket+" away", bucket); err != nil {
		t.Fatal(err)
	}
	m.waitUntilReady()
	m.waitForSamples(shown)
	m.waitForSamples(samples{`dynamo_metrics_connected{system="file"}`: "1"})
	const warning = "The registry cannot be read"
	m.WaitForLine(warning)
	if n := len(m.LinesWith(warning)); n != 1 {
		t.Errorf("the log reports %d times that it cannot be read", n)
	}
}

func TestFileRegistryRemovedKeepsWorkers(t *testing.T) {
	t.Parallel()
	dir := registryDir{t, filepath.Join(t.TempDir(), "store")}
	dir.put(time.Now(), registration(1)...)
	dir.touch(registration(1)...)
	m := serve(t, nil, "--discovery", "file", "--file-kv", dir.path, "--nats-server", "none")
	m.waitUntilReady()
	shown := samples{workersSeries("generate", "silent"): "1", `dynamo_metrics_disconnects_total{system="file"}`: "0"}
	m.waitForSamples(shown)

	if err := os.Rename(dir.path, dir.path+" away"); err != nil {
		t.Fatal(err)
	}
	m.waitUntilNotReady("the directory of workers cannot be read")
	if status, body := get(m.url + "/-/ready"); status != 200 || body != "ready, but: the directory of workers cannot be read\n" {
		t.Errorf("GET /-/ready: %d %q", status, body)
	}
	testutil.Until(t, func() error {
		if _, body := get(m.url + "/api/v1/fleet"); !strings.Contains(body, `"id":"connection:file"`) || !strings.Contains(body, "does it exist, is it mounted here") {
			return fmt.Errorf("the snapshot does not contain it: %s", body)
		}
		return nil
	})
	m.waitForSamples(samples{workersSeries("generate", "silent"): "1", `dynamo_metrics_connected{system="file"}`: "0", `dynamo_metrics_disconnects_total{system="file"}`: "1"})
	m.waitFor(func(p samples) error {
		if p[`dynamo_metrics_errors_total{source="file"}`] == "0" {
			return fmt.Errorf("no call has failed")
		}
		return nil
	})

	dir.put(time.Now(), append(registration(1), registration(2)...)...)
	dir.touch(registration(2)...)
	m.waitUntilReady()
	m.waitForSamples(samples{workersSeries("generate", "silent"): "2", `dynamo_metrics_connected{system="file"}`: "1"})
	for _, line := range []string{"The registry cannot be read", "The registry can be read again"} {
		m.WaitForLine(line)
		if n := len(m.LinesWith(line)); n != 1 {
			t.Errorf("logged %d times: %s", n, line)
		}
	}
}
