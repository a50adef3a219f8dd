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
	// MaxEtcdMessage bounds one message from etcd in bytes: a page of a listing, or an event.
	MaxEtcdMessage = 4 << 20

	connectTimeout = 5 * time.Second // for a connection to etcd and the login
	shortTimeout   = 2 * time.Second // the same, while other endpoints have not been tried yet

	replaceAfter = time.Minute // how long the cluster must be unreachable before another one may replace it
)

// EtcdEndpoints are the endpoints of one etcd cluster. A session uses one endpoint at a time. A
// client of all endpoints would change the endpoint from call to call, so one member that
// returns errors, such as a learner or a member without a leader, would break every task that takes
// several calls.
type EtcdEndpoints struct {
	urls   []*url.URL
	config clientv3.Config // without Endpoints
	getenv func(string) string
	log    *slog.Logger

	once    sync.Once
	cluster atomic.Uint64 // the id of the cluster that was used last; 0: unknown
}

// NewEtcdEndpoints parses a comma-separated list of endpoints, and reads the credentials in
// Dynamo's environment variables.
func NewEtcdEndpoints(endpoints string, getenv func(string) string, log *slog.Logger) (*EtcdEndpoints, error) {
	urls, err := etcdServers.parse(endpoints)
	if err != nil {
		return nil, err
	}
	config, err := etcdConfig(urls, getenv, log)
	if err != nil {
		return nil, err
	}
	config.MaxCallRecvMsgSize = MaxEtcdMessage
	// The second attempt is for a call whose token has expired. Any other failure ends the
	// session, because another endpoint may work.
	config.MaxUnaryRetries = 2
	config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(failFast))
	return &EtcdEndpoints{urls: urls, config: config, getenv: getenv, log: log}, nil
}

// failFast makes a call fail with the reason when the server is unreachable. By default, etcd's
// client lets it wait until its deadline.
func failFast(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return invoke(ctx, method, request, reply, conn, append(options, grpc.WaitForReady(false))...)
}

// String lists the endpoints, without credentials.
func (e *EtcdEndpoints) String() string { return redactedURLs(e.urls) }

// configFor returns the configuration of a client of one endpoint.
func (e *EtcdEndpoints) configFor(i int, timeout time.Duration) clientv3.Config {
	config := e.config
	config.Endpoints, config.DialTimeout = e.config.Endpoints[i:i+1], timeout
	return config
}

// EtcdSessions opens sessions, one endpoint after the other. Its methods must not be called
// concurrently.
type EtcdSessions struct {
	endpoints *EtcdEndpoints
	current   int   // index of the endpoint of the next session
	failures  int   // sessions that have failed since the last success
	succeeded bool  // a session has succeeded
	authError error // the first one before any success; nil: none

	failingSince  time.Time      // when the first session after the last success failed
	otherClusters map[int]uint64 // the cluster ids of endpoints that belong to another cluster than before, by index
}

// Sessions returns sessions that begin at the first endpoint.
func (e *EtcdEndpoints) Sessions() *EtcdSessions { return &EtcdSessions{endpoints: e} }

// EtcdSession is a client of one endpoint. Each session logs in again, so an expired token cannot
// block it.
type EtcdSession struct {
	*clientv3.Client
	Endpoint string

	sessions *EtcdSessions
	cluster  uint64
}

// Open connects to the current endpoint and logs in, until ctx ends. The session outlives ctx.
func (s *EtcdSessions) Open(ctx context.Context) (*EtcdSession, error) {
	s.endpoints.once.Do(func() { s.endpoints.chooseCluster(ctx) })
	timeout := connectTimeout
	if s.failures < len(s.endpoints.urls)-1 {
		timeout = shortTimeout
	}
	client, err := newEtcdClient(clientv3.WithRequireLeader(ctx), s.endpoints.configFor(s.current, timeout))
	if err == nil {
		if err = awaitReady(ctx, client.ActiveConnection(), timeout); err != nil {
			client.Close()
		}
	}
	switch {
	case err == nil:
		return &EtcdSession{Client: client, Endpoint: s.Endpoint(), sessions: s}, nil
	case IsEtcdAuthError(err):
		err = fmt.Errorf("with %s and %s: %w", etcdUser, etcdPass, err)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer in %v", timeout)
	}
	return nil, fmt.Errorf("connect to etcd at %s: %w", s.Endpoint(), err)
}

// Endpoint returns the current endpoint.
func (s *EtcdSessions) Endpoint() string {
	return redactedURLs(s.endpoints.urls[s.current : s.current+1])
}

// Explain returns what is wrong with TLS at the current endpoint, or err if nothing is.
func (s *EtcdSessions) Explain(ctx context.Context, err error) error {
	return cmp.Or(EtcdTLSError(ctx, s.Endpoint(), s.endpoints.getenv), err)
}

// Succeeded records that the session works.
func (s *EtcdSessions) Succeeded() {
	s.failures, s.succeeded, s.authError, s.otherClusters = 0, true, nil, nil
}

// Failed records that the session has failed, and moves on to the next endpoint. It reports
// whether all endpoints have been tried since the last success.
func (s *EtcdSessions) Failed(err error) (all bool) {
	if s.failures == 0 {
		s.failingSince = time.Now()
	}
	s.current = (s.current + 1) % len(s.endpoints.urls)
	s.failures++
	if !s.succeeded && s.authError == nil && IsEtcdAuthError(err) {
		s.authError = err
	}
	return s.failures >= len(s.endpoints.urls)
}

// PermanentError returns why a retry does not help, or nil if it may. The error is permanent if
// no session has ever succeeded, and etcd rejects the credentials at all endpoints that answer.
// After a success, a permission that is denied may be granted again.
func (s *EtcdSessions) PermanentError() error {
	if s.failures < len(s.endpoints.urls) {
		return nil
	}
	return s.authError
}

// CheckCluster checks the header of a response: all responses of a session must be from one
// cluster, the same as in earlier sessions, unless that cluster was replaced.
func (s *EtcdSession) CheckCluster(h *etcdserverpb.ResponseHeader) error {
	id := h.GetClusterId()
	if s.cluster == 0 {
		known := &s.sessions.endpoints.cluster
		if before := known.Load(); before != 0 && before != id && !s.sessions.isReplacement(id) {
			return fmt.Errorf("etcd at %s belongs to another cluster (%x) than before (%x)", s.Endpoint, id, before)
		}
		known.Store(id)
		s.cluster = id
	}
	if s.cluster != id {
		return fmt.Errorf("etcd at %s belongs to another cluster now (%x, before %x)", s.Endpoint, id, s.cluster)
	}
	return nil
}

// isReplacement records that the current endpoint belongs to another cluster than before. It
// reports whether that cluster has replaced the old one: most endpoints belong to it, or no
// endpoint of the old cluster has worked for replaceAfter. Otherwise the list of endpoints is
// wrong, or the old cluster is only unreachable.
func (s *EtcdSessions) isReplacement(id uint64) bool {
	if s.otherClusters == nil {
		s.otherClusters = make(map[int]uint64)
	}
	s.otherClusters[s.current] = id
	n := 0
	for _, other := range s.otherClusters {
		if other == id {
			n++
		}
	}
	return n > len(s.endpoints.urls)/2 || s.failures > 0 && time.Since(s.failingSince) > replaceAfter
}

// clusterVote is the cluster id that an endpoint returns.
type clusterVote struct {
	endpoint int
	cluster  uint64 // 0: none
}

// chooseCluster finds out to which cluster the endpoints belong, before the first session. If they
// belong to several, all programs with the same endpoints choose the same cluster, whatever the
// order of the endpoints.
func (e *EtcdEndpoints) chooseCluster(ctx context.Context) {
	if len(e.urls) == 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	var requests sync.WaitGroup
	defer requests.Wait()
	defer cancel()
	votes := make(chan clusterVote, len(e.urls))
	for i := range e.urls {
		requests.Go(func() { votes <- clusterVote{i, e.clusterID(ctx, i)} })
	}
	ids, counts := make([]uint64, len(e.urls)), make(map[uint64]int)
	var chosen uint64 // the cluster of most endpoints; if several have as many, the one with the lowest id
	for range e.urls {
		vote := <-votes
		if vote.cluster == 0 {
			continue
		}
		ids[vote.endpoint] = vote.cluster
		counts[vote.cluster]++
		if n := counts[vote.cluster]; n > counts[chosen] || n == counts[chosen] && vote.cluster < chosen {
			chosen = vote.cluster
		}
		if counts[chosen] > len(e.urls)/2 { // the other votes cannot change that
			break
		}
	}
	e.cluster.Store(chosen)
	if len(counts) < 2 {
		return
	}
	var others []string
	for i, id := range ids {
		if id != 0 && id != chosen {
			others = append(others, redactedURLs(e.urls[i:i+1]))
		}
	}
	e.log.Warn("--etcd-endpoints lists endpoints of several etcd clusters, and only those of one are used: want one cluster",
		"cluster", fmt.Sprintf("%x", chosen), "not_used", strings.Join(others, ","))
}

// clusterID returns the cluster id of an endpoint, which members return without a login. It
// returns 0 if the endpoint does not answer, is a learner, or has no leader.
func (e *EtcdEndpoints) clusterID(ctx context.Context, i int) uint64 {
	config := e.configFor(i, shortTimeout)
	config.Username, config.Password = "", ""
	client, err := newEtcdClient(ctx, config)
	if err != nil {
		return 0
	}
	defer client.Close()
	var status etcdserverpb.StatusResponse
	if fetchStatus(ctx, client.ActiveConnection(), &status) != nil || status.Leader == 0 || status.IsLearner {
		return 0
	}
	return status.GetHeader().GetClusterId()
}

func fetchStatus(ctx context.Context, conn *grpc.ClientConn, response *etcdserverpb.StatusResponse) error {
	return conn.Invoke(ctx, "/etcdserverpb.Maintenance/Status", new(etcdserverpb.StatusRequest), response, grpc.WaitForReady(false))
}

// awaitReady waits until conn is connected. It fails as soon as an attempt has failed, or after
// timeout. Without it, calls to etcd would wait, and not report that no server answers.
func awaitReady(ctx context.Context, conn *grpc.ClientConn, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure || !conn.WaitForStateChange(ctx, state) {
			return connectError(ctx, conn)
		}
	}
	return nil
}

// connectError returns why conn is not connected. Only a call that fails fast reports that.
func connectError(ctx context.Context, conn *grpc.ClientConn) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := fetchStatus(ctx, conn, new(etcdserverpb.StatusResponse))
	if err == nil {
		return errors.New("the first attempt to connect failed, although a later one succeeded")
	}
	return errors.New(plainMessage(status.Convert(err).Message()))
}

// plainMessage removes the prefixes that gRPC puts before the reason why a connection failed.
func plainMessage(message string) string {
	if _, quoted, found := strings.Cut(message, "connection error: desc = "); found {
		if inner, err := strconv.Unquote(quoted); err == nil {
			return strings.TrimPrefix(strings.TrimPrefix(inner, "transport: "), "Error while dialing: ")
		}
	}
	return message
}
