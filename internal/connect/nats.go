package connect

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"

	"github.com/nats-io/nats.go"
)

var natsServers = serverList{flag: "nats-server", schemes: []string{"nats", "tls", "ws", "wss"}}

// inboxes is where the answers to what we ask arrive.
const inboxPrefix = "_INBOX.dynamo-metrics"

// dialTimeout bounds the attempt to reach one address.
const dialTimeout = nats.DefaultTimeout

// refusals are the errors of a server that does not want these credentials.
var authErrors = []error{
	nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported,
}

// NATSHooks hear what becomes of a connection to NATS. Any may be nil.
type NATSHooks struct {
	// Status hears each change of the connection.
	StatusChanged func(connected bool)

	// Refused hears of a subject that the server does not let us subscribe to, or publish on;
	// empty if it does not say which. It reports whether it looks after that subject, and
	// whether that is news: what is none is not said again.
	Denied func(subject string, publishing bool) (known, isNew bool)

	// Why hears what is in the way of each attempt to connect that failed.
	ConnectError func(error)

	// Failed hears of each attempt to connect that failed.
	AttemptFailed func()
}

// NATS connects to one of the servers of a comma list, however long that takes. If ctx
// is cancelled first, connection and error are nil; if it had a deadline, the error says
// why there is no connection. Credentials are those in the URL, or
// else those of Dynamo's environment variables; credentials that are refused now are
// an error, later they are tried again and again. What the connection loses it
// regains by itself, unless the server says what the client does not know: then it is closed.
//
// Status, which may be nil, hears each change of the connection, and log says it
// once. Extra options must leave the handlers of connection and disconnection alone.
func DialNATS(ctx context.Context, servers string, getenv func(string) string, log *slog.Logger,
	status func(connected bool), extra ...nats.Option) (*nats.Conn, error) {
	c, err := newNATSClient(servers, getenv, log, NATSHooks{StatusChanged: status}, extra)
	if err != nil {
		return nil, err
	}
	return c.connect(ctx)
}

// HoldNATS is NATS for good: it has each connection used until ctx ends, and where one is
// closed makes another. Use is called with the connection, and a ctx that ends with it.
// Credentials are an error before the first connection only.
func RunNATS(ctx context.Context, servers string, getenv func(string) string, log *slog.Logger, hooks NATSHooks,
	use func(ctx context.Context, nc *nats.Conn) error, extra ...nats.Option) error {
	c, err := newNATSClient(servers, getenv, log, hooks, extra)
	if err != nil {
		return err
	}
	for brief := 0; ctx.Err() == nil; {
		nc, err := c.connect(ctx)
		if err != nil || nc == nil {
			return err
		}
		began := time.Now()
		if err := c.use(ctx, nc, use); err != nil || ctx.Err() != nil {
			return err
		}
		// Who closes each connection at once is not asked any faster for it.
		if brief++; time.Since(began) > shortLived {
			brief = 0
		}
		backoff.Wait(ctx, shortLivedPause(brief))
	}
	return nil
}

// briefPause is how long to wait after so many connections in a row that were closed soon.
func shortLivedPause(connections int) time.Duration {
	return min(time.Duration(connections)*backoff.Server.Longest, shortLived)
}

// longestBrief is how long a connection that is closed at once lasts, at most.
const shortLived = 5 * time.Second

// use has one connection used until it is closed, or ctx ends, and then closes it.
func (c *natsClient) use(ctx context.Context, nc *nats.Conn, use func(context.Context, *nats.Conn) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := nc.StatusChanged(nats.CLOSED)
	var watching sync.WaitGroup
	watching.Go(func() {
		defer cancel()
		if nc.IsClosed() { // before its status was asked for
			return
		}
		select {
		case <-closed:
		case <-ctx.Done():
		}
	})
	err := use(ctx, nc)
	cancel()
	watching.Wait()
	if nc.IsClosed() {
		c.reporter.closed(nc)
		return nil // what failed because of that will be done anew
	}
	nc.Close()
	return err
}

// natsClient makes connections to NATS, one after the other.
type natsClient struct {
	reporter    *connReporter
	opts        nats.Options
	credentials string // of the credentials
	accepted    bool   // the servers have taken them
}

func newNATSClient(servers string, getenv func(string) string, log *slog.Logger, hooks NATSHooks, extra []nats.Option) (*natsClient, error) {
	urls, err := natsServers.parse(servers)
	if err != nil {
		return nil, err
	}
	c := &natsClient{reporter: &connReporter{log: log, servers: redactedURLs(urls), hooks: hooks}, opts: nats.GetDefaultOptions()}
	for _, u := range urls {
		if isWebsocket(u) != isWebsocket(urls[0]) {
			return nil, fmt.Errorf("--nats-server %q: want websocket servers only, or none", c.reporter.servers)
		}
		c.opts.Servers = append(c.opts.Servers, u.String())
	}
	if err := applyOptions(&c.opts, slices.Concat(defaultOptions(c.reporter), extra)); err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", c.reporter.servers, err)
	}
	auth, source, err := natsCredentials(urls, getenv, c.opts.TLSCertCB != nil)
	if err != nil {
		return nil, err
	}
	if err := applyOptions(&c.opts, auth); err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", c.reporter.servers, err)
	}
	c.credentials = source
	warnInsecure(getenv, log)
	return c, nil
}

// connect makes a connection, however long that takes.
func (c *natsClient) connect(ctx context.Context) (*nats.Conn, error) {
	var last error
	for attempt := 0; ctx.Err() == nil; attempt++ {
		c.reporter.dialErrors.clear()
		nc, err := connectNATS(ctx, c.opts)
		if err == nil {
			c.accepted = true
			return nc, nil
		}
		if ctx.Err() != nil {
			break
		}
		c.reporter.attemptFailed()
		if !c.accepted && isAuthError(err) {
			return nil, fmt.Errorf("connect to NATS at %s with %s: %w", c.reporter.servers, c.credentials, err)
		}
		last = c.reporter.dialFailed(err)
		backoff.Wait(ctx, backoff.Pause(attempt))
	}
	if isTimeout(ctx) {
		return nil, fmt.Errorf("connect to NATS at %s: %w", c.reporter.servers, cmp.Or(last, errNoAnswer))
	}
	return nil, nil
}

func applyOptions(opts *nats.Options, all []nats.Option) error {
	for _, set := range all {
		if err := set(opts); err != nil {
			return err
		}
	}
	return nil
}

func isWebsocket(u *url.URL) bool { return strings.HasPrefix(u.Scheme, "ws") }

// dial is Connect, but gives up when ctx ends.
func connectNATS(ctx context.Context, opts nats.Options) (*nats.Conn, error) {
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := opts.Connect()
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		return r.nc, r.err
	case <-ctx.Done():
		// Connect takes no context. It ends by itself, within its time-out.
		go func() {
			if r := <-done; r.err == nil {
				r.nc.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// defaults are the options of every connection of ours.
func defaultOptions(l *connReporter) []nats.Option {
	return []nats.Option{
		nats.Name("dynamo-metrics"),
		// Still below _INBOX, where everybody may answer, but apart from the inboxes
		// of others: a server can let us hear no more than our own.
		nats.CustomInboxPrefix(inboxPrefix),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(l.reconnectDelay),
		nats.IgnoreAuthErrorAbort(),
		// What is published while disconnected would arrive late and in a heap.
		nats.ReconnectBufSize(-1),
		// A server that hangs is noticed when the third ping is due, after 9 s.
		nats.PingInterval(3 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(5 * time.Second),
		nats.SetCustomDialer(&backpressureDialer{Dialer: net.Dialer{Timeout: dialTimeout}, reporter: l}),
		nats.ConnectHandler(l.connected),
		nats.ReconnectHandler(l.connected),
		nats.DisconnectErrHandler(l.disconnected),
		nats.ErrorHandler(l.asyncError),
	}
}
