package connect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

const (
	// EtcdMessage bounds, in bytes, one message of etcd's: a page of a listing, or an event.
	EtcdMessage = 4 << 20

	connectIn = 5 * time.Second // bounds a connection to etcd, and a login there
	hurriedIn = 2 * time.Second // the same while there are endpoints that were not tried yet

	replacedAfter = time.Minute // for how long the cluster may be away before another takes its place
)

// EtcdEndpoints are the addresses of one etcd. A session works with one of them at a time:
// a client of all of them goes round them call by call, so that one that answers with
// errors, as a learner or a member without a leader does, breaks what needs several answers.
type EtcdEndpoints struct {
	urls   []*url.URL
	config clientv3.Config // but for the endpoint
	getenv func(string) string
	log    *slog.Logger

	once    sync.Once
	cluster atomic.Uint64 // the id of the one that was last worked with; 0: not known
}

// NewEtcdEndpoints reads a comma list of endpoints, and the credentials of Dynamo's
// environment variables.
func NewEtcdEndpoints(endpoints string, getenv func(string) string, log *slog.Logger) (*EtcdEndpoints, error) {
	urls, err := etcdServers.parse(endpoints)
	if err != nil {
		return nil, err
	}
	config, err := etcdConfig(urls, getenv, log)
	if err != nil {
		return nil, err
	}
	config.MaxCallRecvMsgSize = EtcdMessage
	// Once more with a new token, where the old one is of no use any more. What else fails
	// ends the session: there may be better endpoints.
	config.MaxUnaryRetries = 2
	config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(atOnce))
	return &EtcdEndpoints{urls: urls, config: config, getenv: getenv, log: log}, nil
}

// atOnce has a call fail where the server cannot be reached, and say why: etcd's client has
// it wait until its time is over.
func atOnce(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return invoke(ctx, method, request, reply, conn, append(options, grpc.WaitForReady(false))...)
}

// String lists the endpoints.
func (e *EtcdEndpoints) String() string { return shown(e.urls) }

// only is the configuration of a client of one endpoint.
func (e *EtcdEndpoints) only(i int, within time.Duration) clientv3.Config {
	config := e.config
	config.Endpoints, config.DialTimeout = e.config.Endpoints[i:i+1], within
	return config
}

// EtcdSessions goes round the endpoints, session by session. Its methods must not be called
// at once.
type EtcdSessions struct {
	of      *EtcdEndpoints
	at      int   // the endpoint of the next session
	tried   int   // sessions that have failed since one was good
	entered bool  // one was good
	refusal error // before that; nil: there was none

	failing time.Time      // when the first of them failed
	others  map[int]uint64 // what clusters the endpoints are of, if that is another than before
}

// Sessions begins at the first endpoint.
func (e *EtcdEndpoints) Sessions() *EtcdSessions { return &EtcdSessions{of: e} }

// EtcdSession is a client of one endpoint, which has logged in there by itself: a token that
// has expired cannot stand in its way.
type EtcdSession struct {
	*clientv3.Client
	Endpoint string

	of      *EtcdSessions
	cluster uint64
}

// Open connects to the endpoint whose turn it is, and logs in. It ends with ctx; the session
// outlives it.
func (s *EtcdSessions) Open(ctx context.Context) (*EtcdSession, error) {
	s.of.once.Do(func() { s.of.elect(ctx) })
	within := connectIn
	if s.tried < len(s.of.urls)-1 {
		within = hurriedIn
	}
	client, err := newClient(clientv3.WithRequireLeader(ctx), s.of.only(s.at, within))
	if err == nil {
		if err = reach(ctx, client.ActiveConnection(), within); err != nil {
			client.Close()
		}
	}
	switch {
	case err == nil:
		return &EtcdSession{Client: client, Endpoint: s.Endpoint(), of: s}, nil
	case EtcdRefused(err):
		err = fmt.Errorf("with %s and %s: %w", etcdUser, etcdPass, err)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer in %v", within)
	}
	return nil, fmt.Errorf("connect to etcd at %s: %w", s.Endpoint(), err)
}

// Endpoint is the one whose turn it is.
func (s *EtcdSessions) Endpoint() string { return shown(s.of.urls[s.at : s.at+1]) }

// Why is err, or if the endpoint whose turn it is does not speak TLS as it should, that.
func (s *EtcdSessions) Why(ctx context.Context, err error) error {
	return cmp.Or(EtcdTLS(ctx, s.Endpoint(), s.of.getenv), err)
}

// Good says that the session works.
func (s *EtcdSessions) Good() { s.tried, s.entered, s.refusal, s.others = 0, true, nil, nil }

// Fail goes on to the next endpoint, since the session has failed. It reports whether all
// of them have been tried since one was good.
func (s *EtcdSessions) Fail(err error) (all bool) {
	if s.tried == 0 {
		s.failing = time.Now()
	}
	s.at = (s.at + 1) % len(s.of.urls)
	s.tried++
	if !s.entered && s.refusal == nil && EtcdRefused(err) {
		s.refusal = err
	}
	return s.tried >= len(s.of.urls)
}

// Refusal is why it is of no use to go on; nil if that may be of use: etcd knows who we are,
// and will not have us, at all endpoints that answer, and that from the start. What was
// granted once may be granted again.
func (s *EtcdSessions) Refusal() error {
	if s.tried < len(s.of.urls) {
		return nil
	}
	return s.refusal
}

// Check looks at the header of an answer: the session has to do with one cluster, and with
// the same as the sessions before, unless that is replaced.
func (s *EtcdSession) Check(h *etcdserverpb.ResponseHeader) error {
	id := h.GetClusterId()
	if s.cluster == 0 {
		known := &s.of.of.cluster
		if before := known.Load(); before != 0 && before != id && !s.of.replaced(id) {
			return fmt.Errorf("etcd at %s is of another cluster (%x) than before (%x)", s.Endpoint, id, before)
		}
		known.Store(id)
		s.cluster = id
	}
	if s.cluster != id {
		return fmt.Errorf("etcd at %s is another cluster now (%x, before %x)", s.Endpoint, id, s.cluster)
	}
	return nil
}

// replaced hears that the endpoint whose turn it is says to be of another cluster than before.
// It reports whether most say so, or none that is of the old one has been good for long: else
// the list is wrong, and the old cluster is only away.
func (s *EtcdSessions) replaced(id uint64) bool {
	if s.others == nil {
		s.others = make(map[int]uint64)
	}
	s.others[s.at] = id
	n := 0
	for _, other := range s.others {
		if other == id {
			n++
		}
	}
	return n > len(s.of.urls)/2 || s.tried > 0 && time.Since(s.failing) > replacedAfter
}

// vote is what an endpoint says of the cluster that it is of.
type vote struct {
	endpoint int
	cluster  uint64 // 0: nothing
}

// elect finds out of which cluster the endpoints are, before the first of them is worked
// with. Where they are of several, all programs with the same endpoints choose the same,
// in whatever order they have them.
func (e *EtcdEndpoints) elect(ctx context.Context) {
	if len(e.urls) == 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hurriedIn)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers := make(chan vote, len(e.urls))
	for i := range e.urls {
		asking.Go(func() { answers <- vote{i, e.clusterOf(ctx, i)} })
	}
	ids, votes := make([]uint64, len(e.urls)), make(map[uint64]int)
	var chosen uint64 // that of most, and of those with as many the least
	for range e.urls {
		a := <-answers
		if a.cluster == 0 {
			continue
		}
		ids[a.endpoint] = a.cluster
		votes[a.cluster]++
		if n := votes[a.cluster]; n > votes[chosen] || n == votes[chosen] && a.cluster < chosen {
			chosen = a.cluster
		}
		if votes[chosen] > len(e.urls)/2 { // whatever the others say
			break
		}
	}
	e.cluster.Store(chosen)
	if len(votes) < 2 {
		return
	}
	var others []string
	for i, id := range ids {
		if id != 0 && id != chosen {
			others = append(others, shown(e.urls[i:i+1]))
		}
	}
	e.log.Warn("--etcd-endpoints lists endpoints of several etcd clusters, and those of one alone are used: want one cluster",
		"cluster", fmt.Sprintf("%x", chosen), "not_used", strings.Join(others, ","))
}

// clusterOf asks an endpoint for its cluster's id, which members tell all clients. It is 0 of
// one that is of no use: it does not answer, is a learner, or knows of no leader.
func (e *EtcdEndpoints) clusterOf(ctx context.Context, i int) uint64 {
	config := e.only(i, hurriedIn)
	config.Username, config.Password = "", ""
	client, err := newClient(ctx, config)
	if err != nil {
		return 0
	}
	defer client.Close()
	var answer etcdserverpb.StatusResponse
	if askStatus(ctx, client.ActiveConnection(), &answer) != nil || answer.Leader == 0 || answer.IsLearner {
		return 0
	}
	return answer.GetHeader().GetClusterId()
}

func askStatus(ctx context.Context, conn *grpc.ClientConn, answer *etcdserverpb.StatusResponse) error {
	return conn.Invoke(ctx, "/etcdserverpb.Maintenance/Status", new(etcdserverpb.StatusRequest), answer, grpc.WaitForReady(false))
}

// reach waits until conn is connected, no longer than it has hope: calls to etcd
// would wait, and not say that there is no server.
func reach(ctx context.Context, conn *grpc.ClientConn, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure || !conn.WaitForStateChange(ctx, state) {
			return whyNot(ctx, conn)
		}
	}
	return nil
}

// whyNot is why conn is not connected: only a call that does not wait says so.
func whyNot(ctx context.Context, conn *grpc.ClientConn) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := askStatus(ctx, conn, new(etcdserverpb.StatusResponse))
	if err == nil {
		return errors.New("connected too late")
	}
	return errors.New(plain(status.Convert(err).Message()))
}

// plain is what gRPC says of a connection, without what it puts around it: people read it.
func plain(message string) string {
	if _, quoted, found := strings.Cut(message, "connection error: desc = "); found {
		if inner, err := strconv.Unquote(quoted); err == nil {
			return strings.TrimPrefix(strings.TrimPrefix(inner, "transport: "), "Error while dialing: ")
		}
	}
	return message
}
