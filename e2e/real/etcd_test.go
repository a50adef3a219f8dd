//go:build real

package real

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcd is a process of Debian's etcd, 3.4. Some of the faults here are specific to that
// release.
type etcd struct {
	*process.Process
	url, peer string
	args      []string
	ec        *clientv3.Client
}

// newMember starts a member of a cluster. initial lists the other members, as name=URL
// pairs.
func newMember(t *testing.T, name, initial string, flags ...string) *etcd {
	t.Helper()
	e := &etcd{url: "http://" + process.FreeAddress(t), peer: "http://" + process.FreeAddress(t)}
	if initial != "" {
		initial += ","
	}
	e.args = append([]string{"--name", name, "--data-dir", filepath.Join(t.TempDir(), "etcd"), "--logger", "zap", "--log-level", "error",
		"--listen-client-urls", e.url, "--advertise-client-urls", e.url, "--listen-peer-urls", e.peer, "--initial-advertise-peer-urls", e.peer,
		"--initial-cluster", initial + name + "=" + e.peer}, flags...)
	e.ec = devstacktest.EtcdClient(t, e.url)
	return e
}

// start returns when etcd serves.
func (e *etcd) start(t *testing.T) *etcd {
	t.Helper()
	e.launch(t)
	return e.waitUntilServing(t)
}

func (e *etcd) launch(t *testing.T) {
	t.Helper()
	e.Process = process.Start(t, nil, process.Installed(t, "etcd", "etcd-server"), e.args...)
}

func (e *etcd) waitUntilServing(t *testing.T) *etcd {
	t.Helper()
	testutil.Until(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := e.ec.Status(ctx, e.url)
		return err
	})
	return e
}

func (e *etcd) register(t *testing.T, ec *clientv3.Client, id uint64) {
	t.Helper()
	in := fleet.Instance{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, ID: id}
	testutil.Until(t, func() error {
		_, err := ec.Put(t.Context(), wire.LayoutV1.Key("dynamo", in), string(wire.LayoutV1.Value("dynamo", in, "s")))
		return err
	})
}

// startAtEtcd runs the program with a comma list of endpoints.
func startAtEtcd(t *testing.T, endpoints string, env []string, args ...string) *metrics {
	t.Helper()
	args = append([]string{"--host", "127.0.0.1", "--metrics-port", "0", "--nats-server", "none", "--component", "backend", "--etcd-endpoints", endpoints}, args...)
	p := process.Start(t, env, filepath.Join(bin, "metrics"), args...)
	return &metrics{p, "http://" + strings.TrimSuffix(p.WaitForLine("Prometheus metrics server started at "), "/metrics")}
}

// waitForSilentWorkers waits until the program is completely ready, and shows this many
// silent workers.
func (m *metrics) waitForSilentWorkers(n int) {
	m.T.Helper()
	testutil.Until(m.T, func() error {
		text, err := get(m.url + "/metrics?standby=1")
		if err != nil {
			return err
		}
		if got := process.ParseSamples(text)[silentWorkers]; got != strconv.Itoa(n) {
			return fmt.Errorf("%s silent workers, want %d", got, n)
		}
		_, err = get(m.url + "/-/ready?strict=true")
		return err
	})
}

const silentWorkers = `llm_workers{component="backend",endpoint="generate",state="silent"}`

func TestEtcdLearnerAmongTheEndpoints(t *testing.T) {
	t.Parallel()
	voter := newMember(t, "a", "").start(t)
	learner := newMember(t, "l", "a="+voter.peer, "--initial-cluster-state", "existing")
	if _, err := voter.ec.MemberAddAsLearner(t.Context(), []string{learner.peer}); err != nil {
		t.Fatal(err)
	}
	learner.start(t)
	voter.register(t, voter.ec, 0x11)
	voter.register(t, voter.ec, 0x12)
	pair := []*metrics{startAtEtcd(t, learner.url+","+voter.url, nil, "--standby"), startAtEtcd(t, voter.url+","+learner.url, nil, "--standby")}
	for _, m := range pair {
		m.waitForSilentWorkers(2)
	}
	leader, other := waitForOneLeader(t, pair[0], pair[1])
	other.WaitForLine("Standing by: ")
	leader.Terminate()
	other.waitUntilLeading(true)
}

// TestEtcdMemberWithoutLeaderAmongTheEndpoints has a member that has lost the others. Here
// these belong to another cluster, which is also left out.
func TestEtcdMemberWithoutLeaderAmongTheEndpoints(t *testing.T) {
	t.Parallel()
	healthy := newMember(t, "a", "").start(t)
	healthy.register(t, healthy.ec, 0x11)
	x := newMember(t, "x", "")
	y := newMember(t, "y", "x="+x.peer)
	x.args[len(x.args)-1] += ",y=" + y.peer
	x.launch(t)
	y.start(t)
	x.waitUntilServing(t)
	y.Kill()
	testutil.Until(t, func() error {
		status, err := x.ec.Status(t.Context(), x.url)
		if err == nil && status.Leader != 0 {
			err = errors.New("it still takes the other program for its leader")
		}
		return err
	})
	pair := []*metrics{startAtEtcd(t, x.url+","+healthy.url, nil, "--standby"), startAtEtcd(t, healthy.url+","+x.url, nil, "--standby")}
	for _, m := range pair {
		m.waitForSilentWorkers(1)
	}
	leader, other := waitForOneLeader(t, pair[0], pair[1])
	other.WaitForLine("Standing by: ")
	leader.Terminate()
	other.waitUntilLeading(true)
}

// etcdUser is the user of an etcd with authentication, in the program's environment.
var etcdUser = []string{"ETCD_AUTH_USERNAME=root", "ETCD_AUTH_PASSWORD=s3cret"}

// enableAuth enables authentication for that user, and returns a client that has logged in.
func (e *etcd) enableAuth(t *testing.T) *clientv3.Client {
	t.Helper()
	_, err1 := e.ec.UserAdd(t.Context(), "root", "s3cret")
	_, err2 := e.ec.RoleAdd(t.Context(), "root")
	_, err3 := e.ec.UserGrantRole(t.Context(), "root", "root")
	_, err4 := e.ec.AuthEnable(t.Context())
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{e.url}, Username: "root", Password: "s3cret", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ec.Close() })
	return ec
}

// TestEtcdTokenExpiresInAnOutage checks that the program does not log in with its expired
// token, which 3.4 would refuse.
func TestEtcdTokenExpiresInAnOutage(t *testing.T) {
	t.Parallel()
	e := newMember(t, "a", "", "--auth-token-ttl", "2").start(t)
	root := e.enableAuth(t)
	e.register(t, root, 0x11)
	way := process.NewProxy(t, strings.TrimPrefix(e.url, "http://"))
	m := startAtEtcd(t, "http://"+way.Address, etcdUser)
	m.waitForSilentWorkers(1)
	m.waitUntilLeading(true)
	way.Cut()
	m.waitForSamples(map[string]string{`dynamo_metrics_connected{system="etcd"}`: "0"})
	m.waitUntilLeading(false)   // ten seconds: longer than the token's lifetime
	fresh, err := clientv3.New( // the test's own token has expired as well
		clientv3.Config{Endpoints: []string{e.url}, Username: "root", Password: "s3cret", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fresh.Close() })
	e.register(t, fresh, 0x12)
	way.Restore()
	m.waitForSilentWorkers(2)
	m.waitUntilLeading(true)
}

func TestEtcdLeaseRenewalsDoNotLogIn(t *testing.T) {
	t.Parallel()
	e := newMember(t, "a", "").start(t)
	e.enableAuth(t)
	m := startAtEtcd(t, e.url, etcdUser, "--standby")
	m.waitUntilReady()
	other := startAtEtcd(t, e.url, etcdUser, "--standby")
	other.WaitForLine("Standing by: ")
	other.waitUntilReady()
	logins, renewals := e.startedCalls(t, "Authenticate"), e.receivedMessages(t, "LeaseKeepAlive")
	testutil.Until(t, func() error {
		if n := e.receivedMessages(t, "LeaseKeepAlive") - renewals; n < 10 {
			return fmt.Errorf("%d renewals, want ten", n)
		}
		return nil
	})
	if now := e.startedCalls(t, "Authenticate"); now != logins {
		t.Errorf("%d logins, and %d before ten renewals", now, logins)
	}
	t.Logf("%d logins in all", logins)
}

// waitUntilReady waits until the program is completely ready.
func (m *metrics) waitUntilReady() {
	m.T.Helper()
	testutil.Until(m.T, func() error { _, err := get(m.url + "/-/ready?strict=true"); return err })
}

// startedCalls returns how many calls of a method were started.
func (e *etcd) startedCalls(t *testing.T, method string) int {
	t.Helper()
	return e.sum(t, `grpc_server_started_total\{grpc_method="`+method+`"[^}]*\} (\d+)`)
}

// receivedMessages returns how many messages the streams of a method have received.
func (e *etcd) receivedMessages(t *testing.T, method string) int {
	t.Helper()
	return e.sum(t, `grpc_server_msg_received_total\{grpc_method="`+method+`"[^}]*\} (\d+)`)
}

func (e *etcd) sum(t *testing.T, pattern string) (n int) {
	t.Helper()
	text, err := get(e.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		m, _ := strconv.Atoi(found[1])
		n += m
	}
	return n
}

// TestEtcdLosesItsDataBehindItsGRPCProxy restarts an etcd without data, while the gRPC
// proxy keeps the program's connection.
func TestEtcdLosesItsDataBehindItsGRPCProxy(t *testing.T) {
	t.Parallel()
	e := newMember(t, "a", "").start(t)
	address := process.FreeAddress(t)
	process.Start(t, nil, process.Installed(t, "etcd", "etcd-server"), "grpc-proxy", "start", "--endpoints="+e.url, "--listen-addr="+address,
		"--metrics-addr", "http://"+process.FreeAddress(t))
	for id := range uint64(5) {
		e.register(t, e.ec, 0x100+id)
	}
	m := startAtEtcd(t, "http://"+address, nil)
	m.waitForSilentWorkers(5)
	m.waitUntilLeading(true)
	e.Kill()
	if err := os.RemoveAll(e.args[3]); err != nil {
		t.Fatal(err)
	}
	e.start(t)
	e.register(t, e.ec, 0x999)
	m.waitForSilentWorkers(1)
	e.register(t, e.ec, 0x998)
	m.waitForSilentWorkers(2)
	m.waitUntilLeading(true)
}

// TestEtcdLargeValues checks that large values are read a few at a time and not kept.
func TestEtcdLargeValues(t *testing.T) {
	t.Parallel()
	e := newMember(t, "a", "").start(t)
	e.register(t, e.ec, 0x11)
	const cards = 200
	large := strings.Repeat("x", 1_400_000)
	put := func(i int) {
		t.Helper()
		if _, err := e.ec.Put(t.Context(), fmt.Sprintf("v1/mdc/dynamo/backend/generate/%x", i+1), large); err != nil {
			t.Fatal(err)
		}
	}
	for i := range cards {
		put(i)
	}
	m := startAtEtcd(t, e.url, nil)
	m.waitForSilentWorkers(1)
	const rejected = `dynamo_metrics_rejected_messages_total{kind="card",reason="size"}`
	m.waitForSamples(map[string]string{rejected: strconv.Itoa(cards)})
	for i := range 50 {
		put(i)
	}
	m.waitForSamples(map[string]string{rejected: strconv.Itoa(cards + 50)})
	peak := peakMemory(t, m.Pid())
	t.Logf("%d cards of 1.4 MB listed, and 50 watched: peak memory %d MiB", cards, peak>>20)
	if peak > 128<<20 {
		t.Errorf("peak memory %d MiB", peak>>20)
	}
	if n := len(m.LinesWith("A key of the registry is not read")); n != 1 {
		t.Errorf("the log names %d keys, want one", n)
	}
}

// peakMemory returns the peak resident memory of a process, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if found == nil {
		t.Fatalf("no peak in %s", b)
	}
	kib, _ := strconv.Atoi(string(found[1]))
	return kib << 10
}
