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

// inboxPrefix begins the subjects on which replies to the program's requests arrive.
const inboxPrefix = "_INBOX.dynamo-metrics"

// dialTimeout bounds the attempt to connect to one address.
const dialTimeout = nats.DefaultTimeout

// authErrors are the errors of a server that rejects the credentials.
var authErrors = []error{
	nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported,
}

// NATSHooks are called when a connection to NATS changes. Any may be nil.
type NATSHooks struct {
	// StatusChanged is called for each change of the connection.
	StatusChanged func(connected bool)

	// Denied is called for a subject that the server does not let the program subscribe to or
	// publish on. The subject is empty if the server does not name it. Denied reports whether it
	// handles that subject, and whether the denial is new: only a new one is logged.
	Denied func(subject string, publishing bool) (known, isNew bool)

	// ConnectError is called with the reason of each attempt to connect that failed.
	ConnectError func(error)

	// AttemptFailed is called for each attempt to connect that failed.
	AttemptFailed func()
}

// DialNATS connects to one of a comma-separated list of servers, and retries until it succeeds.
// If ctx is cancelled first, connection and error are nil; if its deadline passes, the error
// says why there is no connection. Credentials are taken from the URL, or else from Dynamo's
// environment variables. Credentials that the server rejects now are an error; if it rejects
// them later, they are retried. A lost connection is restored automatically, unless the server
// sends an error that nats.go does not know: then the connection is closed.
//
// status, which may be nil, is called for each change of the connection, and log gets one line.
// Extra options must not set the handlers for connections and disconnections.
func DialNATS(ctx context.Context, servers string, getenv func(string) string, log *slog.Logger,
	status func(connected bool), extra ...nats.Option) (*nats.Conn, error) {
	c, err := newNATSClient(servers, getenv, log, NATSHooks{StatusChanged: status}, extra)
	if err != nil {
		return nil, err
	}
	return c.connect(ctx)
}

// RunNATS keeps a connection until ctx ends: it calls use with each connection, and a ctx that
// ends with it, and makes another connection when one is closed. Rejected credentials are an
// error only before the first connection.
func RunNATS(ctx context.Context, servers string, getenv func(string) string, log *slog.Logger, hooks NATSHooks,
	use func(ctx context.Context, nc *nats.Conn) error, extra ...nats.Option) error {
	c, err := newNATSClient(servers, getenv, log, hooks, extra)
	if err != nil {
		return err
	}
	for shortLivedCount := 0; ctx.Err() == nil; {
		nc, err := c.connect(ctx)
		if err != nil || nc == nil {
			return err
		}
		began := time.Now()
		if err := c.use(ctx, nc, use); err != nil || ctx.Err() != nil {
			return err
		}
		// A server that closes each connection at once gets no more attempts than any other.
		if shortLivedCount++; time.Since(began) > shortLived {
			shortLivedCount = 0
		}
		backoff.Wait(ctx, shortLivedPause(shortLivedCount))
	}
	return nil
}

// shortLivedPause returns how long to wait after a number of short-lived connections in a row.
func shortLivedPause(connections int) time.Duration {
	return min(time.Duration(connections)*backoff.Server.Longest, shortLived)
}

// shortLived is the longest lifetime of a short-lived connection.
const shortLived = 5 * time.Second

// use calls the function use with a connection, waits until the connection is closed or ctx ends,
// and then closes it.
func (c *natsClient) use(ctx context.Context, nc *nats.Conn, use func(context.Context, *nats.Conn) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := nc.StatusChanged(nats.CLOSED)
	var watching sync.WaitGroup
	watching.Go(func() {
		defer cancel()
		if nc.IsClosed() { // before StatusChanged was called
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
		return nil // any error of use has the same cause, and the caller connects again
	}
	nc.Close()
	return err
}

// natsClient makes connections to NATS, one after the other.
type natsClient struct {
	reporter    *connReporter
	opts        nats.Options
	credentials string // their source, for errors
	accepted    bool   // a server has accepted the credentials
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

// connect connects, and retries until it succeeds.
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

// connectNATS calls Connect, but returns when ctx ends.
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
		// Connect takes no context. It returns by itself, within its timeout.
		go func() {
			if r := <-done; r.err == nil {
				r.nc.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// defaultOptions returns the options of every connection.
func defaultOptions(r *connReporter) []nats.Option {
	return []nats.Option{
		nats.Name("dynamo-metrics"),
		// Below _INBOX, where servers permit replies, but apart from the inboxes of other
		// clients, so that a server can permit only these.
		nats.CustomInboxPrefix(inboxPrefix),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(r.reconnectDelay),
		nats.IgnoreAuthErrorAbort(),
		// Messages that are published while disconnected would arrive late and all at once.
		nats.ReconnectBufSize(-1),
		// A server that hangs is noticed when the third ping is due, after 9 s.
		nats.PingInterval(3 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(5 * time.Second),
		nats.SetCustomDialer(&backpressureDialer{Dialer: net.Dialer{Timeout: dialTimeout}, reporter: r}),
		nats.ConnectHandler(r.connected),
		nats.ReconnectHandler(r.connected),
		nats.DisconnectErrHandler(r.disconnected),
		nats.ErrorHandler(r.asyncError),
	}
}
