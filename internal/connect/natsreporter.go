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

// connReporter logs each change of a connection once, and calls the hooks.
type connReporter struct {
	log     *slog.Logger
	servers string
	hooks   NATSHooks

	mu            sync.Mutex // needed because the first connection is not made in nats.go's callbacks
	up            bool
	outageLogged  bool            // it was logged that there is no connection
	loggedReasons []string        // why a lost connection could not be restored
	lostConn      *nats.Conn      // nil: none is lost
	lastFault     string          // the last logged error that may be repeated
	loggedDenials map[string]bool // permission errors on subjects that no hook handles
	lastHandled   error           // the last asynchronous error of nats.go that was handled

	dialErrors dialErrors
}

// dialFailed handles a failed attempt to connect that was not made by nats.go itself, and returns
// why it failed.
func (r *connReporter) dialFailed(err error) (why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	why = r.dialErrors.cause(err)
	r.reportError(why)
	switch {
	case !r.outageLogged:
		r.log.Warn("NATS is not connected; retrying", r.attrsWithCause(err, why)...)
	case isAuthError(err) && r.lastFault != err.Error():
		r.log.Warn("NATS reports a fault", r.attrs(err)...)
		r.lastFault = err.Error()
	}
	r.outageLogged = true
	return why
}

// reportError calls ConnectError, unless the error is only that no server is available.
func (r *connReporter) reportError(err error) {
	if r.hooks.ConnectError != nil && err != nil && !errors.Is(err, nats.ErrNoServers) {
		r.hooks.ConnectError(err)
	}
}

// isAuthError reports whether a server rejects the credentials.
func isAuthError(err error) bool {
	return slices.ContainsFunc(authErrors, func(r error) bool { return errors.Is(err, r) })
}

func (r *connReporter) connected(nc *nats.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !nc.IsConnected() {
		return // the callback was late: the connection is lost again
	}
	r.log.Info("Connected to NATS", "server", serverURL(nc))
	r.outageLogged, r.loggedReasons, r.lastFault, r.lostConn = false, nil, "", nil
	r.setStatus(true)
}

func (r *connReporter) disconnected(nc *nats.Conn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !nc.IsClosed() && !r.outageLogged {
		r.log.Warn("Lost the connection to NATS; retrying", r.attrs(err)...)
		r.outageLogged = true
	}
	r.lostConn = nc
	r.setStatus(false)
}

// closed handles a connection that the server has closed for good.
func (r *connReporter) closed(nc *nats.Conn) {
	r.attemptFailed()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.outageLogged {
		r.log.Warn("NATS has closed the connection; retrying", r.attrs(nc.LastError())...)
		r.outageLogged = true
	}
	r.setStatus(false)
}

// reconnectDelay returns how long nats.go waits before it tries all servers for the nth time
// since the connection was lost.
func (r *connReporter) reconnectDelay(n int) time.Duration {
	if n > 1 {
		r.attemptFailed()
		r.logStillLost()
	}
	return backoff.Pause(n - 1)
}

// maxLoggedReasons bounds how many reasons are logged for one loss.
const maxLoggedReasons = 3

// logStillLost logs why no server can be reached, each reason once. asyncError handles rejected
// credentials.
func (r *connReporter) logStillLost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var last error
	if r.lostConn != nil {
		last = r.lostConn.LastError()
	}
	why := r.dialErrors.cause(last)
	r.dialErrors.clear()
	r.reportError(why)
	if why == nil || isAuthError(last) || len(r.loggedReasons) >= maxLoggedReasons || slices.Contains(r.loggedReasons, why.Error()) {
		return
	}
	r.log.Warn("NATS cannot be reached; retrying", r.attrsWithCause(last, why)...)
	r.loggedReasons = append(r.loggedReasons, why.Error())
}

// attemptFailed calls AttemptFailed.
func (r *connReporter) attemptFailed() {
	if r.hooks.AttemptFailed != nil {
		r.hooks.AttemptFailed()
	}
}

// asyncError handles an error from the server, which nats.go would print on stderr. The same
// error may be repeated with every attempt to reconnect, or with every message.
func (r *connReporter) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.lastHandled = err }()
	if isAuthError(err) {
		r.reportError(err)
	}
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		return // the subscriber counts what is dropped
	case errors.Is(err, nats.ErrPermissionViolation):
		r.permissionDenied(err)
		return
	case errors.Is(err, nats.ErrMaxSubscriptionsExceeded) && r.hooks.Denied != nil:
		r.hooks.Denied("", false) // the server does not name the subscription
	}
	if r.lastFault == err.Error() {
		return
	}
	r.lastFault = err.Error()
	attrs := r.attrs(err)
	if sub != nil {
		attrs = append(attrs, "subject", sub.Subject)
	}
	r.log.Warn("NATS reports a fault", attrs...)
}

// maxLoggedDenials bounds how many denied subjects are logged.
const maxLoggedDenials = 32

// permissionDenied logs once that a permission is denied. The error is repeated with every poll
// and every reconnection, for several subjects in turn. If a hook handles the subject, it
// decides whether the denial is new.
func (r *connReporter) permissionDenied(err error) {
	if r.hooks.Denied != nil {
		if known, isNew := r.hooks.Denied(deniedSubject(err)); known {
			if isNew {
				r.logDenied(err)
			}
			return
		}
	}
	if r.loggedDenials[err.Error()] || len(r.loggedDenials) >= maxLoggedDenials {
		return
	}
	if r.loggedDenials == nil {
		r.loggedDenials = make(map[string]bool)
	}
	r.loggedDenials[err.Error()] = true
	r.logDenied(err)
	if len(r.loggedDenials) == maxLoggedDenials {
		r.log.Warn("NATS denies many permissions; further ones are not logged", "server", r.servers)
	}
}

func (r *connReporter) logDenied(err error) {
	r.log.Warn("NATS denies a permission; continuing without it (SECURITY.md lists the permissions that are needed)",
		"server", r.servers, "error", err)
}

// deniedSubject returns the subject of a permission error, and whether it is about publishing.
func deniedSubject(err error) (subject string, publishing bool) {
	what, quoted, _ := strings.Cut(err.Error(), ` to "`)
	quoted, prefixErr := strconv.QuotedPrefix(`"` + quoted)
	if prefixErr == nil {
		subject, _ = strconv.Unquote(quoted)
	}
	return subject, strings.HasSuffix(what, "Publish")
}

// attrs returns the attributes of a log line about an error.
func (r *connReporter) attrs(err error) []any { return r.attrsWithCause(err, err) }

// attrsWithCause returns the attributes of a log line about an error of nats.go whose cause, why,
// is known more precisely.
func (r *connReporter) attrsWithCause(err, why error) []any {
	attrs := []any{"server", r.servers, "error", why}
	if hint := natsTLSHint(err); hint != "" {
		attrs = append(attrs, "hint", hint)
	}
	return attrs
}

// serverURL returns the server of nc. ConnectedUrlRedacted still contains the user name, which
// is the secret if it is a token.
func serverURL(nc *nats.Conn) string {
	u, err := url.Parse(nc.ConnectedUrl())
	if err != nil {
		return ""
	}
	return redactedURLs([]*url.URL{u})
}

func (r *connReporter) setStatus(up bool) {
	if r.up != up && r.hooks.StatusChanged != nil {
		r.hooks.StatusChanged(up)
	}
	r.up = up
}

// FlushNATS returns when the server has processed everything that was sent, and the handlers
// have handled every error that it sent back, those of denied subjects included.
func FlushNATS(ctx context.Context, nc *nats.Conn, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return err
	}
	if d, ok := nc.Opts.CustomDialer.(*backpressureDialer); ok {
		d.reporter.awaitError(nc.LastError())
	}
	return nil
}

// awaitError waits until an error was handled. nats.go calls the handler from another goroutine,
// in the order of the errors. If it never does, awaitError waits for that error only once.
func (r *connReporter) awaitError(want error) {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		handled := want == nil || errors.Is(r.lastHandled, want)
		if !handled && time.Since(begin) > time.Second {
			r.lastHandled, handled = want, true
		}
		r.mu.Unlock()
		if handled {
			return
		}
	}
}
