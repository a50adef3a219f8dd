package devstack

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/grpclog"
)

func TestMain(m *testing.M) {
	// gRPC logs connection errors, which these tests provoke.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	os.Exit(m.Run())
}

func connectEtcd(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ec.Close() })
	return ec
}

func withTimeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestNATSKeepsPortAndStreamsOverARestart(t *testing.T) {
	config := NATSConfig{Dir: t.TempDir()}
	s, err := NATS(config)
	if err != nil {
		t.Fatal(err)
	}
	config, url := s.Config(), s.URL()
	addStream(t, url)
	s.Close()

	if s, err = NATS(config); err != nil {
		t.Fatal("restart:", err)
	}
	defer s.Close()
	if s.URL() != url {
		t.Errorf("restarted at %s, want %s", s.URL(), url)
	}
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, _ := nc.JetStream()
	if _, err := js.StreamInfo("s"); err != nil {
		t.Error("stream after the restart:", err)
	}
}

func addStream(t *testing.T, url string) {
	t.Helper()
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "s", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
}

func TestEtcdKeepsPortAndKeysOverARestart(t *testing.T) {
	s, err := Etcd(EtcdConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	config, endpoint := s.Config(), s.Endpoint()
	ctx := withTimeout(t)
	ec := connectEtcd(t, endpoint)
	ec.Watch(ctx, "k") // a stream that is open during Close
	if _, err := ec.Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	s.Close()
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Close with an open watch took %v", took)
	}

	if s, err = Etcd(config); err != nil {
		t.Fatal("restart:", err)
	}
	defer s.Close()
	if s.Endpoint() != endpoint {
		t.Errorf("restarted at %s, want %s", s.Endpoint(), endpoint)
	}
	if got, err := connectEtcd(t, endpoint).Get(ctx, "k"); err != nil || got.Count != 1 {
		t.Errorf("key after the restart: %v, %v; want one", got, err)
	}
}

func TestEtcdGrantsDynamosLeaseTTL(t *testing.T) {
	s, err := Etcd(EtcdConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ec := connectEtcd(t, s.Endpoint())
	lease, err := ec.Grant(withTimeout(t), 10)
	if err != nil || lease.TTL != 10 {
		t.Errorf("got %+v, %v; want a TTL of 10", lease, err)
	}
}

func TestServersRunSideBySide(t *testing.T) {
	for range 3 {
		n, err := NATS(NATSConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		e, err := Etcd(EtcdConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
	}
}

func TestInUseErrorNamesThePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, natsErr := NATS(NATSConfig{Port: port})
	_, etcdErr := Etcd(EtcdConfig{Port: port})
	for _, err := range []error{natsErr, etcdErr} {
		var inUse *InUseError
		if !errors.As(err, &inUse) || inUse.Addr != l.Addr().String() || !strings.Contains(err.Error(), inUse.Addr) {
			t.Errorf("got %v, want an error that names %s", err, l.Addr())
		}
	}
}

func TestServersFailOnAnUnusableDir(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := NATS(NATSConfig{Dir: file}); err == nil {
		s.Close()
		t.Error("NATS accepted a file as its directory")
	}
	if s, err := Etcd(EtcdConfig{Dir: file}); err == nil {
		s.Close()
		t.Error("etcd accepted a file as its directory")
	}
}

func TestServersRemoveTemporaryDirs(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	n, err := NATS(NATSConfig{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Etcd(EtcdConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 2 {
		t.Errorf("got %v while running, want two directories", left)
	}
	n.Close()
	e.Close()
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func BenchmarkNATS(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, err := NATS(NATSConfig{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}

func BenchmarkEtcd(b *testing.B) {
	for b.Loop() {
		s, err := Etcd(EtcdConfig{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}
