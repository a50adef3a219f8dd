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
type link struct {
	log     *slog.Logger
	servers string
	hooks   NATSHooks

	mu        sync.Mutex // the first connection is made elsewhere than in nats.go's callbacks
	up        bool
	announced bool            // that there is no connection
	reasons   []string        // told of why one that was lost cannot be made again
	lost      *nats.Conn      // the connection that is lost; nil: none is
	last      string          // fault that was told and may come again
	denied    map[string]bool // permissions that we lack and have told, of those that no hook looks after
	heard     error           // the last fault, as nats.go has it

	dials dials
}

// unreachable hears of every attempt that failed, but of those that nats.go makes, and returns
// why it did.
func (l *link) unreachable(err error) (why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	why = l.dials.why(err)
	l.blame(why)
	switch {
	case !l.announced:
		l.log.Warn("NATS is not connected; connecting goes on", l.because(err, why)...)
	case isRefusal(err) && l.last != err.Error():
		l.log.Warn("NATS reports a fault", l.about(err)...)
		l.last = err.Error()
	}
	l.announced = true
	return why
}

// blame hears why no server could be connected to. That there is none says nothing.
func (l *link) blame(err error) {
	if l.hooks.Why != nil && err != nil && !errors.Is(err, nats.ErrNoServers) {
		l.hooks.Why(err)
	}
}

// isRefusal reports whether a server does not want these credentials.
func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) })
}

func (l *link) connected(nc *nats.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !nc.IsConnected() {
		return // the callback came late: it is lost again
	}
	l.log.Info("Connected to NATS", "server", where(nc))
	l.announced, l.reasons, l.last, l.lost = false, nil, "", nil
	l.set(true)
}

func (l *link) disconnected(nc *nats.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !nc.IsClosed() && !l.announced {
		l.log.Warn("Lost the connection to NATS; connecting goes on", l.about(err)...)
		l.announced = true
	}
	l.lost = nc
	l.set(false)
}

// closed hears that a connection is closed for good, and not by us.
func (l *link) closed(nc *nats.Conn) {
	l.failed()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.announced {
		l.log.Warn("NATS has closed the connection; connecting goes on", l.about(nc.LastError())...)
		l.announced = true
	}
	l.set(false)
}

// round hears when nats.go is about to try all servers, for the nth time since the connection
// was lost, and says how long it is to wait before.
func (l *link) round(n int) time.Duration {
	if n > 1 {
		l.failed()
		l.stillLost()
	}
	return backoff.Pause(n - 1)
}

// mostReasons bounds how many are told of one loss.
const mostReasons = 3

// stillLost says why no server can be reached, each reason once. Of refused credentials fault
// hears.
func (l *link) stillLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last error
	if l.lost != nil {
		last = l.lost.LastError()
	}
	why := l.dials.why(last)
	l.dials.clear()
	l.blame(why)
	if why == nil || isRefusal(last) || len(l.reasons) >= mostReasons || slices.Contains(l.reasons, why.Error()) {
		return
	}
	l.log.Warn("NATS cannot be reached; connecting goes on", l.because(last, why)...)
	l.reasons = append(l.reasons, why.Error())
}

// failed hears of each attempt to connect that failed.
func (l *link) failed() {
	if l.hooks.Failed != nil {
		l.hooks.Failed()
	}
}

// fault hears what the server holds against us, which nats.go would print on stderr.
// The same fault comes with every attempt to reconnect, or with every message.
func (l *link) fault(_ *nats.Conn, sub *nats.Subscription, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.heard = err }()
	if isRefusal(err) {
		l.blame(err)
	}
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		return // who subscribed counts what is lost
	case errors.Is(err, nats.ErrPermissionViolation):
		l.deny(err)
		return
	case errors.Is(err, nats.ErrMaxSubscriptionsExceeded) && l.hooks.Refused != nil:
		l.hooks.Refused("", false) // which of them it does not say
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

// maxDenials bounds how many subjects that we may not use are told.
const maxDenials = 32

// deny says once of each permission that we lack it: that comes again with every poll
// and every reconnection, for several subjects in turn. Whether it is news of a subject
// that is looked after, who does that knows.
func (l *link) deny(err error) {
	if l.hooks.Refused != nil {
		if known, news := l.hooks.Refused(refusedSubject(err)); known {
			if news {
				l.sayDenied(err)
			}
			return
		}
	}
	if l.denied[err.Error()] || len(l.denied) >= maxDenials {
		return
	}
	if l.denied == nil {
		l.denied = make(map[string]bool)
	}
	l.denied[err.Error()] = true
	l.sayDenied(err)
	if len(l.denied) == maxDenials {
		l.log.Warn("NATS denies many permissions; further ones are not logged", "server", l.servers)
	}
}

func (l *link) sayDenied(err error) {
	l.log.Warn("NATS denies a permission; going on without what it is for (SECURITY.md lists those needed)",
		"server", l.servers, "error", err)
}

// refusedSubject is the subject of a permission that we lack, and whether that is to publish.
func refusedSubject(err error) (subject string, publishing bool) {
	what, quoted, _ := strings.Cut(err.Error(), ` to "`)
	quoted, prefixErr := strconv.QuotedPrefix(`"` + quoted)
	if prefixErr == nil {
		subject, _ = strconv.Unquote(quoted)
	}
	return subject, strings.HasSuffix(what, "Publish")
}

// about are the fields of a line on what is wrong.
func (l *link) about(err error) []any { return l.because(err, err) }

// because are the same where more is known than the error of nats.go.
func (l *link) because(err, why error) []any {
	attrs := []any{"server", l.servers, "error", why}
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
	if l.up != up && l.hooks.Status != nil {
		l.hooks.Status(up)
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
	if f, ok := nc.Opts.CustomDialer.(*flow); ok {
		f.link.hear(nc.LastError())
	}
	return nil
}

// hear waits until a fault has been heard: nats.go tells them from a goroutine of its own, in
// their order. What it never tells is not waited for twice.
func (l *link) hear(fault error) {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		heard := fault == nil || errors.Is(l.heard, fault)
		if !heard && time.Since(begin) > time.Second {
			l.heard, heard = fault, true
		}
		l.mu.Unlock()
		if heard {
			return
		}
	}
}
