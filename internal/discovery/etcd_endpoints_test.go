package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"go.etcd.io/etcd/server/v3/embed"
)

// member starts a member of a cluster. cluster lists all members as name=URL pairs.
func member(t *testing.T, name, peer, cluster, state string) *devstack.EtcdServer {
	t.Helper()
	u, err := url.Parse(peer)
	if err != nil {
		t.Fatal(err)
	}
	s, err := devstack.Etcd(devstack.EtcdConfig{Dir: t.TempDir(), Tune: func(c *embed.Config) {
		c.Name, c.ListenPeerUrls, c.AdvertisePeerUrls, c.InitialCluster, c.ClusterState = name, []url.URL{*u}, []url.URL{*u}, cluster, state
		c.InitialClusterToken = t.Name() // so that each cluster has its own id
		c.TickMs, c.ElectionMs = 50, 500 // a busy machine must not cause an election
	}})
	if err != nil {
		t.Error(err) // not Fatal: it may run in another goroutine
		return nil
	}
	t.Cleanup(s.Close)
	return s
}

func peerURL(t *testing.T) string {
	t.Helper()
	port, err := devstack.FreePort("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}

// singleMember returns a cluster of one member, which other members can join.
func singleMember(t *testing.T) (s *devstack.EtcdServer, peer string) {
	t.Helper()
	peer = peerURL(t)
	s = member(t, "a", peer, "a="+peer, embed.ClusterStateFlagNew)
	if s == nil {
		t.FailNow()
	}
	return s, peer
}

// addLearner adds a learner to a cluster. A learner rejects most requests.
func addLearner(t *testing.T, voter *devstack.EtcdServer, peer string) string {
	t.Helper()
	own := peerURL(t)
	if _, err := devstacktest.EtcdClient(t, voter.Endpoint()).MemberAddAsLearner(t.Context(), []string{own}); err != nil {
		t.Fatal(err)
	}
	s := member(t, "l", own, "a="+peer+",l="+own, embed.ClusterStateFlagExisting)
	if s == nil {
		t.FailNow()
	}
	return s.Endpoint()
}

// leaderlessMember returns a member of a cluster whose only other member has stopped.
func leaderlessMember(t *testing.T) string {
	t.Helper()
	peers := [2]string{peerURL(t), peerURL(t)}
	cluster := "x=" + peers[0] + ",y=" + peers[1]
	var members [2]*devstack.EtcdServer
	var starting sync.WaitGroup
	for i, name := range []string{"x", "y"} {
		starting.Go(func() { members[i] = member(t, name, peers[i], cluster, embed.ClusterStateFlagNew) })
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	members[1].Close()
	ec := devstacktest.EtcdClient(t, members[0].Endpoint())
	testutil.Until(t, func() error {
		status, err := ec.Status(t.Context(), members[0].Endpoint())
		if err == nil && status.Leader != 0 {
			err = errors.New("it still has a leader")
		}
		return err
	})
	return members[0].Endpoint()
}

// deadEndpoint is an address where no server will ever listen. A port that is free now may soon be
// another test's.
const deadEndpoint = "http://127.0.0.1:1"

// silentServer accepts connections and never sends anything.
func silentServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { defer c.Close(); _, _ = io.Copy(io.Discard, c) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return "http://" + l.Addr().String()
}

// requireAuth enables authentication in an etcd, with the user root and a password.
func requireAuth(t *testing.T, endpoint, password string) {
	t.Helper()
	ec := devstacktest.EtcdClient(t, endpoint)
	_, err1 := ec.UserAdd(t.Context(), "root", password)
	_, err2 := ec.RoleAdd(t.Context(), "root")
	_, err3 := ec.UserGrantRole(t.Context(), "root", "root")
	_, err4 := ec.AuthEnable(t.Context())
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
}

// One bad endpoint does not keep a pair of programs from watching the registry, or one of them
// from leading, whatever the order of the endpoints.
func TestEtcdOneBadEndpointOfSeveral(t *testing.T) {
	t.Parallel()
	good, peer := singleMember(t)
	ec := devstacktest.EtcdClient(t, good.Endpoint())
	other, _ := singleMember(t)
	sameServer := strings.Replace(good.Endpoint(), "127.0.0.1", "localhost", 1)
	for name, bad := range map[string][]string{
		"none":                nil,
		"refuses":             {deadEndpoint},
		"is silent":           {silentServer(t)},
		"refuses, is silent":  {deadEndpoint, silentServer(t)},
		"never answers calls": {silentGRPCServer(t)},
		"a learner":           {addLearner(t, good, peer)},
		"without a leader":    {leaderlessMember(t)},
		"another cluster's":   {other.Endpoint(), sameServer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := wire.Namespaces(strings.NewReplacer(" ", "-", "'", "", ",", "").Replace(name))
			key, value := wire.LayoutInstances.Key(string(namespace), worker(1)), wire.LayoutInstances.Value(string(namespace), worker(1), "s")
			if _, err := ec.Put(t.Context(), key, string(value)); err != nil {
				t.Fatal(err)
			}
			var pair [2]*Etcd
			for i, endpoints := range [][]string{append(slices.Clone(bad), good.Endpoint()), append([]string{good.Endpoint()}, bad...)} {
				p := newEtcdAt(t, strings.Join(endpoints, ","))
				p.Namespaces = namespace
				testutil.Start(t, p.Watch)
				startHold(t, p, true)
				pair[i] = p
			}
			for _, p := range pair {
				waitWorker(t, p, 1)
				testutil.Until(t, func() error { return connected(p) })
			}
			devstacktest.WaitOneLeads(t, &pair[0].Fleet.Stats, &pair[1].Fleet.Stats)
		})
	}
}

func connected(p *Etcd) error {
	if !p.Fleet.Stats.Etcd.Up() {
		return errors.New("etcd is not connected")
	}
	return nil
}

func waitWorker(t *testing.T, p *Etcd, id uint64) {
	t.Helper()
	testutil.Until(t, func() error {
		if !p.Fleet.IsRegistered(worker(id)) {
			return fmt.Errorf("worker %d is not registered", id)
		}
		return nil
	})
}

// The password is wrong at one of the endpoints.
func TestEtcdRefusalByOneEndpoint(t *testing.T) {
	t.Parallel()
	good, _ := singleMember(t)
	other, _ := singleMember(t)
	requireAuth(t, good.Endpoint(), "s3cret")
	requireAuth(t, other.Endpoint(), "an0ther")
	user := []string{"ETCD_AUTH_USERNAME", "root", "ETCD_AUTH_PASSWORD", "s3cret"}
	sameServer := strings.Replace(good.Endpoint(), "127.0.0.1", "localhost", 1)
	for _, endpoints := range [][]string{{other.Endpoint(), good.Endpoint(), sameServer}, {good.Endpoint(), sameServer, other.Endpoint()}} {
		p := newEtcdAt(t, strings.Join(endpoints, ","), user...)
		stopWatching, ended := testutil.Start(t, p.Watch)
		stop, _ := startHold(t, p, false)
		devstacktest.WaitLeads(t, &p.Fleet.Stats, true)
		select {
		case err := <-ended:
			t.Errorf("the watch ended: %v", err)
		default:
		}
		stop()
		stopWatching()
	}
	// If every reachable endpoint refuses the credentials, Watch and Hold fail and say why.
	p := newEtcdAt(t, other.Endpoint()+","+deadEndpoint, user...)
	for what, loop := range map[string]func(context.Context) error{
		"Watch": p.Watch,
		"Hold":  func(ctx context.Context) error { return keyOf(p).Hold(ctx, []byte("{}"), true) },
	} {
		_, ended := testutil.Start(t, loop)
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "with ETCD_AUTH_USERNAME and ETCD_AUTH_PASSWORD: etcdserver: authentication failed") {
			t.Errorf("%s ended with %v", what, err)
		}
	}
}

// Each change of the connection is logged once, also the first one.
func TestEtcdLogsConnectionChanges(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	p := newEtcdAt(t, r.Stack.Etcd.Endpoint())
	log, out := testutil.NewLog()
	p.Log = log
	const disconnected = "etcd is not connected; keeping the last known fleet and reconnecting"
	connected := `msg="Connected to etcd" endpoint=` + r.Stack.Etcd.Endpoint() + "\n"
	testutil.Start(t, p.Watch)
	testutil.Until(t, out.HasCount(connected, 1))
	for n := range 2 {
		r.StopEtcd()
		testutil.Until(t, out.HasCount(disconnected, n+1))
		r.StartEtcd(t)
		testutil.Until(t, out.HasCount(connected, n+2))
	}
	if n := out.Count("\n"); n != 5 {
		t.Errorf("%d lines, want five:\n%s", n, out)
	}
	down := newEtcdAt(t, "http://127.0.0.1:1,http://x.invalid:2379")
	down.Log, out = testutil.NewLog()
	testutil.Start(t, down.Watch)
	testutil.Until(t, out.HasCount(disconnected, 1))
	testutil.Until(t, out.HasCount("127.0.0.1:1: connect: connection refused", 1))
}

// Each listing is followed by a new watch on the same connection.
func TestEtcdRelistIsNoReconnect(t *testing.T) {
	p := newEtcdAt(t, "http://127.0.0.1:1")
	log, out := testutil.NewLog()
	p.Log = log
	w := etcdWatcher{Etcd: p, sessions: p.Endpoints.Sessions()}
	for range 3 {
		w.markConnected("x")
	}
	if n := out.Count("Connected to etcd"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, out)
	}
}
