package zmtp

import (
	"context"
	"time"

	"dynamo-metrics/internal/backoff"
)

// pauses is the backoff policy for attempts to connect to a publisher.
var pauses = backoff.Policy{First: 100 * time.Millisecond, Longest: 5 * time.Second, Jitter: 5}

// RunReconnecting is like Run, but connects again when a connection fails, until ctx ends. The
// backoff between attempts grows from 100 ms to 5 s. It returns an error only if no attempt
// can succeed, because Address or Topics are invalid.
//
// status may be nil. Otherwise it is called with nil when the subscription is set, and with
// the reason when it is not, each time that changes. Messages that are published while
// there is no subscription are lost, because publishers do not store them.
func (s *Sub) RunReconnecting(ctx context.Context, deliver func(frames [][]byte), status func(error)) error {
	if _, err := s.validate(); err != nil {
		return err
	}
	r := statusReporter{status: status}
	for attempt := 0; ctx.Err() == nil; attempt++ {
		var connectedAt time.Time
		err := s.run(ctx, deliver, func() {
			connectedAt = time.Now()
			r.report(nil)
			s.callOnConnected()
		})
		if ctx.Err() != nil {
			return nil
		}
		r.report(err)
		if s.OnFailure != nil {
			s.OnFailure(err)
		}
		// A connection that fails soon after it was made does not reset the backoff.
		if !connectedAt.IsZero() && time.Since(connectedAt) >= pauses.Longest {
			attempt = 0
		}
		backoff.Wait(ctx, pauses.Pause(attempt))
	}
	return nil
}

// statusReporter calls status once for each change.
type statusReporter struct {
	status   func(error)
	reported bool
	last     string // the last error, "" for none
}

func (r *statusReporter) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if r.status != nil && (!r.reported || text != r.last) {
		r.status(err)
	}
	r.reported, r.last = true, text
}
