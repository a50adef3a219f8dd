package connect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

var natsServers = list{flag: "nats-server", schemes: []string{"nats", "tls", "ws", "wss"}}

// inboxes is where the answers to what we ask arrive.
const inboxes = "_INBOX.dynamo-metrics"

// dialTimeout bounds the attempt to reach one address.
const dialTimeout = nats.DefaultTimeout

// maxDenials bounds how many subjects that we may not use are told.
const maxDenials = 32

// refusals are the errors of a server that does not want these credentials.
var refusals = []error{
	nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported,
}

// NATS connects to one of the servers of a comma list, however long that takes. If ctx
// is cancelled first, connection and error are nil; if it had a deadline, the error says
// why there is no connection. Credentials are those in the URL, or
// else those of Dynamo's environment variables; credentials that are refused now are
// an error, later they are tried again and again. What the connection loses it
// regains by itself, for good; meanwhile publishing fails.
//
// Status, which may be nil, hears each change of the connection, and log says it
// once. Extra options must leave the handlers of connection and disconnection alone.
func NATS(ctx context.Context, servers string, getenv func(string) string, log *slog.Logger,
	status func(connected bool), extra ...nats.Option) (*nats.Conn, error) {
	urls, err := natsServers.parse(servers)
	if err != nil {
		return nil, err
	}
	l := &link{log: log, servers: shown(urls), status: status}
	opts := nats.GetDefaultOptions()
	for _, u := range urls {
		if isWebsocket(u) != isWebsocket(urls[0]) {
			return nil, fmt.Errorf("--nats-server %q: want websocket servers only, or none", l.servers)
		}
		opts.Servers = append(opts.Servers, u.String())
	}
	if err := apply(&opts, slices.Concat(defaults(l), extra)); err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", l.servers, err)
	}
	auth, source, err := natsAuth(urls, getenv, opts.TLSCertCB != nil)
	if err != nil {
		return nil, err
	}
	if err := apply(&opts, auth); err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", l.servers, err)
	}
	var last error
	for attempt := 0; ctx.Err() == nil; attempt++ {
		nc, err := dial(ctx, opts)
		if err == nil {
			return nc, nil
		}
		if slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }) {
			return nil, fmt.Errorf("connect to NATS at %s with %s: %w", l.servers, source, err)
		}
		if ctx.Err() == nil {
			last = err
			l.unreachable(err)
			Wait(ctx, Pause(attempt))
		}
	}
	if late(ctx) {
		return nil, fmt.Errorf("connect to NATS at %s: %w", l.servers, cmp.Or(last, errNoAnswer))
	}
	return nil, nil
}

func apply(opts *nats.Options, all []nats.Option) error {
	for _, set := range all {
		if err := set(opts); err != nil {
			return err
		}
	}
	return nil
}

func isWebsocket(u *url.URL) bool { return strings.HasPrefix(u.Scheme, "ws") }

// dial is Connect, but gives up when ctx ends.
func dial(ctx context.Context, opts nats.Options) (*nats.Conn, error) {
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
func defaults(l *link) []nats.Option {
	return []nats.Option{
		nats.Name("dynamo-metrics"),
		// Still below _INBOX, where everybody may answer, but apart from the inboxes
		// of others: a server can let us hear no more than our own.
		nats.CustomInboxPrefix(inboxes),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(rounds int) time.Duration { return Pause(rounds - 1) }),
		nats.IgnoreAuthErrorAbort(),
		// What is published while disconnected would arrive late and in a heap.
		nats.ReconnectBufSize(-1),
		// A server that hangs is noticed when the third ping is due, after 9 s.
		nats.PingInterval(3 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(5 * time.Second),
		nats.SetCustomDialer(&flow{Dialer: net.Dialer{Timeout: dialTimeout}}),
		nats.ConnectHandler(l.connected),
		nats.ReconnectHandler(l.connected),
		nats.DisconnectErrHandler(l.disconnected),
		nats.ErrorHandler(l.fault),
	}
}

// link tells log and status once per change how the connection is.
type link struct {
	log     *slog.Logger
	servers string
	status  func(bool)

	mu        sync.Mutex // the first connection is made elsewhere than in nats.go's callbacks
	up        bool
	announced bool            // that there is no connection
	last      string          // fault that was told and may come again
	denied    map[string]bool // permissions that we lack and have told
}

// unreachable hears of every attempt at the first connection that failed.
func (l *link) unreachable(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.announced {
		l.log.Warn("NATS is not connected; connecting goes on", l.about(err)...)
	}
	l.announced = true
}

func (l *link) connected(nc *nats.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !nc.IsConnected() {
		return // the callback came late: it is lost again
	}
	l.log.Info("Connected to NATS", "server", where(nc))
	l.announced, l.last = false, ""
	l.set(true)
}

func (l *link) disconnected(nc *nats.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !nc.IsClosed() && !l.announced {
		l.log.Warn("Lost the connection to NATS; connecting goes on", l.about(err)...)
		l.announced = true
	}
	l.set(false)
}

// fault hears what the server holds against us, which nats.go would print on stderr.
// The same fault comes with every attempt to reconnect, or with every message.
func (l *link) fault(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		return // who subscribed counts what is lost
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, nats.ErrPermissionViolation) {
		l.deny(err)
		return
	}
	if l.last == err.Error() {
		return
	}
	l.last = err.Error()
	attrs := l.about(err)
	if sub != nil {
		attrs = append(attrs, "subject", sub.Subject)
	}
	l.log.Warn("NATS reports a fault", attrs...)
}

// deny says once of each permission that we lack it: that comes again with every poll
// and every reconnection, for several subjects in turn.
func (l *link) deny(err error) {
	if l.denied[err.Error()] || len(l.denied) >= maxDenials {
		return
	}
	if l.denied == nil {
		l.denied = make(map[string]bool)
	}
	l.denied[err.Error()] = true
	l.log.Warn("NATS denies a permission; going on without what it is for (SECURITY.md lists those needed)",
		"server", l.servers, "error", err)
	if len(l.denied) == maxDenials {
		l.log.Warn("NATS denies many permissions; further ones are not logged", "server", l.servers)
	}
}

// about are the fields of a line on what is wrong.
func (l *link) about(err error) []any {
	attrs := []any{"server", l.servers, "error", err}
	if hint := natsHint(err); hint != "" {
		attrs = append(attrs, "hint", hint)
	}
	return attrs
}

// where is the server of nc. What nats.go calls redacted still has the user's name,
// which is the secret where that is a token.
func where(nc *nats.Conn) string {
	u, err := url.Parse(nc.ConnectedUrl())
	if err != nil {
		return ""
	}
	return shown([]*url.URL{u})
}

func (l *link) set(up bool) {
	if l.up != up && l.status != nil {
		l.status(up)
	}
	l.up = up
}
