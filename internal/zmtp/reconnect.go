package zmtp

import (
	"context"
	"time"

	"dynamo-metrics/internal/backoff"
)

// pauses are those between attempts to reach a publisher.
var pauses = backoff.Policy{First: 100 * time.Millisecond, Longest: 5 * time.Second, Jitter: 5}

// Keep keeps the subscription until ctx ends: what is lost it regains, after pauses
// that grow from 100 ms to 5 s, for as long as it takes. It fails only where no attempt
// can succeed, because Address or Topics are wrong.
//
// Status, which may be nil, hears nil when the subscription is set, and else why it is
// not, whenever that changes. Between the two messages are lost: publishers keep none.
func (s *Sub) RunReconnecting(ctx context.Context, deliver func(frames [][]byte), status func(error)) error {
	if _, err := s.validate(); err != nil {
		return err
	}
	l := statusReporter{status: status}
	for attempt := 0; ctx.Err() == nil; attempt++ {
		var since time.Time
		err := s.run(ctx, deliver, func() {
			since = time.Now()
			l.report(nil)
			s.callOnConnected()
		})
		if ctx.Err() != nil {
			return nil
		}
		l.report(err)
		if s.OnFailure != nil {
			s.OnFailure(err)
		}
		// Who accepts us only to fail right after is not tried any faster for it.
		if !since.IsZero() && time.Since(since) >= pauses.Longest {
			attempt = 0
		}
		backoff.Wait(ctx, pauses.Pause(attempt))
	}
	return nil
}

// link tells status each change once.
type statusReporter struct {
	status   func(error)
	reported bool
	last     string // trouble, "" if none
}

func (l *statusReporter) report(err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	if l.status != nil && (!l.reported || now != l.last) {
		l.status(err)
	}
	l.reported, l.last = true, now
}
