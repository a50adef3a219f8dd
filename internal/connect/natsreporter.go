package connect

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"

	"github.com/nats-io/nats.go"
)

// link tells log and status once per change how the connection is.
type connReporter struct {
	log     *slog.Logger
	servers string
	hooks   NATSHooks

	mu            sync.Mutex // the first connection is made elsewhere than in nats.go's callbacks
	up            bool
	outageLogged  bool            // that there is no connection
	loggedReasons []string        // told of why one that was lost cannot be made again
	lostConn      *nats.Conn      // the connection that is lost; nil: none is
	lastFault     string          // fault that was told and may come again
	loggedDenials map[string]bool // permissions that we lack and have told, of those that no hook looks after
	lastHandled   error           // the last fault, as nats.go has it

	dialErrors dialErrors
}

// unreachable hears of every attempt that failed, but of those that nats.go makes, and returns
// why it did.
func (l *connReporter) dialFailed(err error) (why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	why = l.dialErrors.cause(err)
	l.reportError(why)
	switch {
	case !l.outageLogged:
		l.log.Warn("NATS is not connected; connecting goes on", l.attrsWithCause(err, why)...)
	case isAuthError(err) && l.lastFault != err.Error():
		l.log.Warn("NATS reports a fault", l.attrs(err)...)
		l.lastFault = err.Error()
	}
	l.outageLogged = true
	return why
}

// blame hears why no server could be connected to. That there is none says nothing.
func (l *connReporter) reportError(err error) {
	if l.hooks.ConnectError != nil && err != nil && !errors.Is(err, nats.ErrNoServers) {
		l.hooks.ConnectError(err)
	}
}

// isRefusal reports whether a server does not want these credentials.
func isAuthError(err error) bool {
	return slices.ContainsFunc(authErrors, func(r error) bool { return errors.Is(err, r) })
}

func (l *connReporter) connected(nc *nats.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !nc.IsConnected() {
		return // the callback came late: it is lost again
	}
	l.log.Info("Connected to NATS", "server", serverURL(nc))
	l.outageLogged, l.loggedReasons, l.lastFault, l.lostConn = false, nil, "", nil
	l.setStatus(true)
}

func (l *connReporter) disconnected(nc *nats.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !nc.IsClosed() && !l.outageLogged {
		l.log.Warn("Lost the connection to NATS; connecting goes on", l.attrs(err)...)
		l.outageLogged = true
	}
	l.lostConn = nc
	l.setStatus(false)
}

// closed hears that a connection is closed for good, and not by us.
func (l *connReporter) closed(nc *nats.Conn) {
	l.attemptFailed()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.outageLogged {
		l.log.Warn("NATS has closed the connection; connecting goes on", l.attrs(nc.LastError())...)
		l.outageLogged = true
	}
	l.setStatus(false)
}

// round hears when nats.go is about to try all servers, for the nth time since the connection
// was lost, and says how long it is to wait before.
func (l *connReporter) reconnectDelay(n int) time.Duration {
	if n > 1 {
		l.attemptFailed()
		l.logStillLost()
	}
	return backoff.Pause(n - 1)
}

// mostReasons bounds how many are told of one loss.
const maxLoggedReasons = 3

// stillLost says why no server can be reached, each reason once. Of refused credentials fault
// hears.
func (l *connReporter) logStillLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last error
	if l.lostConn != nil {
		last = l.lostConn.LastError()
	}
	why := l.dialErrors.cause(last)
	l.dialErrors.clear()
	l.reportError(why)
	if why == nil || isAuthError(last) || len(l.loggedReasons) >= maxLoggedReasons || slices.Contains(l.loggedReasons, why.Error()) {
		return
	}
	l.log.Warn("NATS cannot be reached; connecting goes on", l.attrsWithCause(last, why)...)
	l.loggedReasons = append(l.loggedReasons, why.Error())
}

// failed hears of each attempt to connect that failed.
func (l *connReporter) attemptFailed() {
	if l.hooks.AttemptFailed != nil {
		l.hooks.AttemptFailed()
	}
}

// fault hears what the server holds against us, which nats.go would print on stderr.
// The same fault comes with every attempt to reconnect, or with every message.
func (l *connReporter) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.lastHandled = err }()
	if isAuthError(err) {
		l.reportError(err)
	}
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		return // who subscribed counts what is lost
	case errors.Is(err, nats.ErrPermissionViolation):
		l.permissionDenied(err)
		return
	case errors.Is(err, nats.ErrMaxSubscriptionsExceeded) && l.hooks.Denied != nil:
		l.hooks.Denied("", false) // which of them it does not say
	}
	if l.lastFault == err.Error() {
		return
	}
	l.lastFault = err.Error()
	attrs := l.attrs(err)
	if sub != nil {
		attrs = append(attrs, "subject", sub.Subject)
	}
	l.log.Warn("NATS reports a fault", attrs...)
}

// maxDenials bounds how many subjects that we may not use are told.
const maxLoggedDenials = 32

// deny says once of each permission that we lack it: that comes again with every poll
// and every reconnection, for several subjects in turn. Whether it is news of a subject
// that is looked after, who does that knows.
func (l *connReporter) permissionDenied(err error) {
	if l.hooks.Denied != nil {
		if known, isNew := l.hooks.Denied(deniedSubject(err)); known {
			if isNew {
				l.logDenied(err)
			}
			return
		}
	}
	if l.loggedDenials[err.Error()] || len(l.loggedDenials) >= maxLoggedDenials {
		return
	}
	if l.loggedDenials == nil {
		l.loggedDenials = make(map[string]bool)
	}
	l.loggedDenials[err.Error()] = true
	l.logDenied(err)
	if len(l.loggedDenials) == maxLoggedDenials {
		l.log.Warn("NATS denies many permissions; further ones are not logged", "server", l.servers)
	}
}

func (l *connReporter) logDenied(err error) {
	l.log.Warn("NATS denies a permission; going on without what it is for (SECURITY.md lists those needed)",
		"server", l.servers, "error", err)
}

// refusedSubject is the subject of a permission that we lack, and whether that is to publish.
func deniedSubject(err error) (subject string, publishing bool) {
	what, quoted, _ := strings.Cut(err.Error(), ` to "`)
	quoted, prefixErr := strconv.QuotedPrefix(`"` + quoted)
	if prefixErr == nil {
		subject, _ = strconv.Unquote(quoted)
	}
	return subject, strings.HasSuffix(what, "Publish")
}

// about are the fields of a line on what is wrong.
func (l *connReporter) attrs(err error) []any { return l.attrsWithCause(err, err) }

// because are the same where more is known than the error of nats.go.
func (l *connReporter) attrsWithCause(err, why error) []any {
	attrs := []any{"server", l.servers, "error", why}
	if hint := natsTLSHint(err); hint != "" {
		attrs = append(attrs, "hint", hint)
	}
	return attrs
}

// where is the server of nc. What nats.go calls redacted still has the user's name,
// which is the secret where that is a token.
func serverURL(nc *nats.Conn) string {
	u, err := url.Parse(nc.ConnectedUrl())
	if err != nil {
		return ""
	}
	return redactedURLs([]*url.URL{u})
}

func (l *connReporter) setStatus(up bool) {
	if l.up != up && l.hooks.StatusChanged != nil {
		l.hooks.StatusChanged(up)
	}
	l.up = up
}

// FlushNATS has everything that was sent arrive at the server, and returns when what that
// had to say against it has been heard: by who looks after refused subjects, too.
func FlushNATS(ctx context.Context, nc *nats.Conn, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return err
	}
	if f, ok := nc.Opts.CustomDialer.(*backpressureDialer); ok {
		f.reporter.awaitError(nc.LastError())
	}
	return nil
}

// hear waits until a fault has been heard: nats.go tells them from a goroutine of its own, in
// their order. What it never tells is not waited for twice.
func (l *connReporter) awaitError(fault error) {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		heard := fault == nil || errors.Is(l.lastHandled, fault)
		if !heard && time.Since(begin) > time.Second {
			l.lastHandled, heard = fault, true
		}
		l.mu.Unlock()
		if heard {
			return
		}
	}
}
