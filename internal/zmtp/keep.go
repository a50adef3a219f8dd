package zmtp

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// Keep keeps the subscription until ctx ends: what is lost it regains, after pauses
// that grow from 100 ms to 5 s, for as long as it takes. It fails only where no attempt
// can succeed, because Address or Topics are wrong.
//
// Status, which may be nil, hears nil when the subscription is set, and else why it is
// not, whenever that changes. Between the two messages are lost: publishers keep none.
func (s *Sub) Keep(ctx context.Context, deliver func(frames [][]byte), status func(error)) error {
	if _, err := s.check(); err != nil {
		return err
	}
	l := link{status: status}
	for attempt := 0; ctx.Err() == nil; attempt++ {
		var since time.Time
		err := s.run(ctx, deliver, func() {
			since = time.Now()
			l.set(nil)
			s.connected()
		})
		if ctx.Err() != nil {
			return nil
		}
		l.set(err)
		if s.Failed != nil {
			s.Failed(err)
		}
		// Who accepts us only to fail right after is not tried any faster for it.
		if !since.IsZero() && time.Since(since) >= longestPause {
			attempt = 0
		}
		wait(ctx, pause(attempt))
	}
	return nil
}

// link tells status each change once.
type link struct {
	status func(error)
	known  bool
	last   string // trouble, "" if none
}

func (l *link) set(err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	if l.status != nil && (!l.known || now != l.last) {
		l.status(err)
	}
	l.known, l.last = true, now
}

// pause is how long to wait before the next attempt after n that failed in a row, up to
// a fifth off, so that a publisher's subscribers do not come back in step.
func pause(n int) time.Duration {
	full := longestPause
	if n < 6 {
		full = min(firstPause<<n, longestPause)
	}
	return full - rand.N(full/5)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
