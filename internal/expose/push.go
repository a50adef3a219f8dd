package expose

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"dynamo-metrics/internal/stats"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
	"github.com/prometheus/common/expfmt"
)

// Gateway is a Pushgateway and how to push to it.
type Gateway struct {
	URL          *url.URL // with or without a path; userinfo becomes basic auth
	Job          string
	Grouping     map[string]string // further labels of the grouping key
	Interval     time.Duration
	DeleteOnExit bool // take the group away at the end, instead of a last push
}

// lastPush bounds what is said to the gateway when the program ends.
const lastPushTimeout = 2 * time.Second

// Push puts all metrics into the group of the gateway once an interval until ctx
// ends, and once more then. A gateway in trouble is reported when its state
// changes, counted, and tried again at the next interval; it never ends the program.
func Push(ctx context.Context, g Gateway, metrics prometheus.Gatherer, t *stats.Stats, log *slog.Logger) {
	bare := *g.URL
	bare.User = nil
	log.Info("Started pushing metrics to Pushgateway at " + bare.String() + " with job name '" + g.Job + "'")
	p := pusher{gateway: g, url: bare.String(), metrics: metrics, stats: t, log: log}

	p.waitForPoll(ctx)
	p.stats.ActsAsLeader.Wait(ctx, true)
	ticker := time.NewTicker(g.Interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		p.push(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		if !p.stats.ActsAsLeader.Load() {
			p.stats.ActsAsLeader.Wait(ctx, true)
			ticker.Reset(g.Interval) // who takes over pushes at once
		}
	}
	p.finalPush(context.WithoutCancel(ctx))
}

// awaitPoll waits for the first poll, at most one interval: before it there is
// nothing to push, and a push replaces what is there.
func (p *pusher) waitForPoll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.gateway.Interval)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !p.stats.HasPolled() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

type pusher struct {
	gateway Gateway
	url     string // without userinfo
	metrics prometheus.Gatherer
	stats   *stats.Stats
	log     *slog.Logger
	failing bool
}

// push is one push of many. A program that is not, or not any more, its namespace's
// only one has no right to the group.
func (p *pusher) push(ctx context.Context) {
	if !p.stats.ActsAsLeader.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(10*time.Second, p.gateway.Interval/10*9))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { // another program may push from then on
		p.stats.ActsAsLeader.Wait(ctx, false)
		cancel()
	})
	err := p.put(ctx)
	switch {
	// Not the cause: that is the signal, or the error, which ends the program.
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return // not the gateway's fault, and the last push is yet to come, or another program's
	case err != nil && !p.failing:
		p.log.Warn("Failed to push metrics to Pushgateway; trying again at every interval", "error", err)
	case err == nil && p.failing:
		p.log.Info("Pushing metrics to Pushgateway again")
	}
	p.failing = err != nil
}

// put replaces what is in the group and counts that, unless the end of the program, or of
// its claim, cut it short.
func (p *pusher) put(ctx context.Context) error {
	err := p.client(ctx).Push()
	switch {
	case err == nil:
		p.stats.PushOK.Add(1)
		p.stats.LastPush.Store(time.Now().UnixNano())
	case !errors.Is(ctx.Err(), context.Canceled):
		p.stats.PushError.Add(1)
		p.stats.CountFailure(stats.PeerPushgateway)
	}
	return err
}

// last is the last word to the gateway.
func (p *pusher) finalPush(ctx context.Context) {
	if !p.stats.ActsAsLeader.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastPushTimeout)
	defer cancel()
	if p.gateway.DeleteOnExit {
		if err := p.client(ctx).Delete(); err != nil {
			p.stats.CountFailure(stats.PeerPushgateway)
			p.log.Warn("Failed to delete the metrics from Pushgateway", "error", err)
		}
	} else if err := p.put(ctx); err != nil {
		p.log.Warn("Failed to make the last push to Pushgateway", "error", err)
	}
}

// client is made anew for each request: a Pusher keeps the first error for good. It sends
// text, as the original did: there are gateways that read nothing else, and answer 200 to
// what they have thrown away.
func (p *pusher) client(ctx context.Context) *push.Pusher {
	c := push.New(p.url, p.gateway.Job).Gatherer(p.metrics).Client(gatewayClient{ctx, p.gateway.URL}).
		Format(expfmt.NewFormat(expfmt.TypeTextPlain))
	for name, value := range p.gateway.Grouping {
		c.Grouping(name, value)
	}
	if user := p.gateway.URL.User; user != nil {
		password, _ := user.Password()
		c.BasicAuth(user.Username(), password)
	}
	return c
}
