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
	MaxEtcdMessage = 4 << 20

	connectTimeout = 5 * time.Second // bounds a connection to etcd, and a login there
	hurriedTimeout = 2 * time.Second // the same while there are endpoints that were not tried yet

	replaceAfter = time.Minute // for how long the cluster may be away before another takes its place
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
	config.MaxCallRecvMsgSize = MaxEtcdMessage
	// Once more with a new token, where the old one is of no use any more. What else fails
	// ends the session: there may be better endpoints.
	config.MaxUnaryRetries = 2
	config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(failFast))
	return &EtcdEndpoints{urls: urls, config: config, getenv: getenv, log: log}, nil
}

// atOnce has a call fail where the server cannot be reached, and say why: etcd's client has
// it wait until its time is over.
func failFast(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return invoke(ctx, method, request, reply, conn, append(options, grpc.WaitForReady(false))...)
}

// String lists the endpoints.
func (e *EtcdEndpoints) String() string { return redactedURLs(e.urls) }

// only is the configuration of a client of one endpoint.
func (e *EtcdEndpoints) configFor(i int, within time.Duration) clientv3.Config {
	config := e.config
	config.Endpoints, config.DialTimeout = e.config.Endpoints[i:i+1], within
	return config
}

// EtcdSessions goes round the endpoints, session by session. Its methods must not be called
// at once.
type EtcdSessions struct {
	endpoints *EtcdEndpoints
	current   int   // the endpoint of the next session
	failures  int   // sessions that have failed since one was good
	succeeded bool  // one was good
	authError error // before that; nil: there was none

	failingSince  time.Time      // when the first of them failed
	otherClusters map[int]uint64 // what clusters the endpoints are of, if that is another than before
}

// Sessions begins at the first endpoint.
func (e *EtcdEndpoints) Sessions() *EtcdSessions { return &EtcdSessions{endpoints: e} }

// EtcdSession is a client of one endpoint, which has logged in there by itself: a token that
// has expired cannot stand in its way.
type EtcdSession struct {
	*clientv3.Client
	Endpoint string

	sessions *EtcdSessions
	cluster  uint64
}

// Open connects to the endpoint whose turn it is, and logs in. It ends with ctx; the session
// outlives it.
func (s *EtcdSessions) Open(ctx context.Context) (*EtcdSession, error) {
	s.endpoints.once.Do(func() { s.endpoints.chooseCluster(ctx) })
	within := connectTimeout
	if s.failures < len(s.endpoints.urls)-1 {
		within = hurriedTimeout
	}
	client, err := newEtcdClient(clientv3.WithRequireLeader(ctx), s.endpoints.configFor(s.current, within))
	if err == nil {
		if err = awaitReady(ctx, client.ActiveConnection(), within); err != nil {
			client.Close()
		}
	}
	switch {
	case err == nil:
		return &EtcdSession{Client: client, Endpoint: s.Endpoint(), sessions: s}, nil
	case IsEtcdAuthError(err):
		err = fmt.Errorf("with %s and %s: %w", etcdUser, etcdPass, err)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer in %v", within)
	}
	return nil, fmt.Errorf("connect to etcd at %s: %w", s.Endpoint(), err)
}

// Endpoint is the one whose turn it is.
func (s *EtcdSessions) Endpoint() string {
	return redactedURLs(s.endpoints.urls[s.current : s.current+1])
}

// Why is err, or if the endpoint whose turn it is does not speak TLS as it should, that.
func (s *EtcdSessions) Explain(ctx context.Context, err error) error {
	return cmp.Or(EtcdTLSError(ctx, s.Endpoint(), s.endpoints.getenv), err)
}

// Good says that the session works.
func (s *EtcdSessions) Succeeded() {
	s.failures, s.succeeded, s.authError, s.otherClusters = 0, true, nil, nil
}

// Fail goes on to the next endpoint, since the session has failed. It reports whether all
// of them have been tried since one was good.
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

// Refusal is why it is of no use to go on; nil if that may be of use: etcd knows who we are,
// and will not have us, at all endpoints that answer, and that from the start. What was
// granted once may be granted again.
func (s *EtcdSessions) PermanentError() error {
	if s.failures < len(s.endpoints.urls) {
		return nil
	}
	return s.authError
}

// Check looks at the header of an answer: the session has to do with one cluster, and with
// the same as the sessions before, unless that is replaced.
func (s *EtcdSession) CheckCluster(h *etcdserverpb.ResponseHeader) error {
	id := h.GetClusterId()
	if s.cluster == 0 {
		known := &s.sessions.endpoints.cluster
		if before := known.Load(); before != 0 && before != id && !s.sessions.isReplacement(id) {
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

// vote is what an endpoint says of the cluster that it is of.
type clusterVote struct {
	endpoint int
	cluster  uint64 // 0: nothing
}

// elect finds out of which cluster the endpoints are, before the first of them is worked
// with. Where they are of several, all programs with the same endpoints choose the same,
// in whatever order they have them.
func (e *EtcdEndpoints) chooseCluster(ctx context.Context) {
	if len(e.urls) == 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hurriedTimeout)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers := make(chan clusterVote, len(e.urls))
	for i := range e.urls {
		asking.Go(func() { answers <- clusterVote{i, e.clusterID(ctx, i)} })
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
			others = append(others, redactedURLs(e.urls[i:i+1]))
		}
	}
	e.log.Warn("--etcd-endpoints lists endpoints of several etcd clusters, and those of one alone are used: want one cluster",
		"cluster", fmt.Sprintf("%x", chosen), "not_used", strings.Join(others, ","))
}

// clusterOf asks an endpoint for its cluster's id, which members tell all clients. It is 0 of
// one that is of no use: it does not answer, is a learner, or knows of no leader.
func (e *EtcdEndpoints) clusterID(ctx context.Context, i int) uint64 {
	config := e.configFor(i, hurriedTimeout)
	config.Username, config.Password = "", ""
	client, err := newEtcdClient(ctx, config)
	if err != nil {
		return 0
	}
	defer client.Close()
	var answer etcdserverpb.StatusResponse
	if fetchStatus(ctx, client.ActiveConnection(), &answer) != nil || answer.Leader == 0 || answer.IsLearner {
		return 0
	}
	return answer.GetHeader().GetClusterId()
}

func fetchStatus(ctx context.Context, conn *grpc.ClientConn, answer *etcdserverpb.StatusResponse) error {
	return conn.Invoke(ctx, "/etcdserverpb.Maintenance/Status", new(etcdserverpb.StatusRequest), answer, grpc.WaitForReady(false))
}

// reach waits until conn is connected, no longer than it has hope: calls to etcd
// would wait, and not say that there is no server.
func awaitReady(ctx context.Context, conn *grpc.ClientConn, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure || !conn.WaitForStateChange(ctx, state) {
			return connectError(ctx, conn)
		}
	}
	return nil
}

// whyNot is why conn is not connected: only a call that does not wait says so.
func connectError(ctx context.Context, conn *grpc.ClientConn) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := fetchStatus(ctx, conn, new(etcdserverpb.StatusResponse))
	if err == nil {
		return errors.New("connected too late")
	}
	return errors.New(plainMessage(status.Convert(err).Message()))
}

// plain is what gRPC says of a connection, without what it puts around it: people read it.
func plainMessage(message string) string {
	if _, quoted, found := strings.Cut(message, "connection error: desc = "); found {
		if inner, err := strconv.Unquote(quoted); err == nil {
			return strings.TrimPrefix(strings.TrimPrefix(inner, "transport: "), "Error while dialing: ")
		}
	}
	return message
}
