package exposition

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
	DeleteOnExit bool // delete the group at the end, instead of a last push
}

// lastPushTimeout bounds the last request to the gateway when the program ends.
const lastPushTimeout = 2 * time.Second

// Push puts all metrics into the gateway's group at each interval until ctx ends, and once more
// then. It counts failed pushes, logs them when the gateway's state changes, and tries again at
// the next interval. A failed push never ends the program.
func Push(ctx context.Context, g Gateway, metrics prometheus.Gatherer, st *stats.Stats, log *slog.Logger) {
	bare := *g.URL
	bare.User = nil
	log.Info("Started pushing metrics to Pushgateway at " + bare.String() + " with job name '" + g.Job + "'")
	p := pusher{gateway: g, url: bare.String(), metrics: metrics, stats: st, log: log}

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
			ticker.Reset(g.Interval) // a new leader pushes at once
		}
	}
	p.finalPush(context.WithoutCancel(ctx))
}

// waitForPoll waits for the first poll, but no longer than one interval. Before the first poll there
// is nothing to push, and a push would replace the group's metrics.
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

// push pushes once, if this program is the leader. No other program may push to the group.
func (p *pusher) push(ctx context.Context) {
	if !p.stats.ActsAsLeader.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(10*time.Second, p.gateway.Interval/10*9))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { // once this program no longer leads, another may push
		p.stats.ActsAsLeader.Wait(ctx, false)
		cancel()
	})
	err := p.put(ctx)
	switch {
	// This compares ctx.Err(), because context.Cause is the signal or the error that ends the program.
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return // not the gateway's fault; the final push follows, or another program pushes
	case err != nil && !p.failing:
		p.log.Warn("Failed to push metrics to Pushgateway; trying again at every interval", "error", err)
	case err == nil && p.failing:
		p.log.Info("Pushing metrics to Pushgateway again")
	}
	p.failing = err != nil
}

// put replaces the group's metrics and counts the push, unless the end of the program or of its
// leadership interrupted it.
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

// finalPush pushes once more, or deletes the group.
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

// client makes a Pusher for one request, because a Pusher keeps its first error. It sends text, as
// the original did: some gateways read nothing else, and answer 200 to metrics that they discard.
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
