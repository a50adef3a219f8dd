package collect

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// HitRates books the KV hit-rate events of the namespace until ctx ends.
func HitRates(ctx context.Context, conn *nats.Conn, namespace string, f *fleet.Fleet, log *slog.Logger) error {
	subject := wire.HitRateSubject(namespace)
	events, err := conn.Subscribe(subject, booker(ctx, f, log))
	if err == nil {
		err = events.SetPendingLimits(-1, maxPending)
	}
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	defer events.Unsubscribe()
	log.Info("Subscribing to KV hit rate events on subject: " + subject)

	drops := dropCounter{subscription: events, tally: &f.Tally}
	defer drops.count()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			drops.count()
		case <-ctx.Done():
			return nil
		}
	}
}

// booker is what is done with each event.
func booker(ctx context.Context, f *fleet.Fleet, log *slog.Logger) nats.MsgHandler {
	verbose := log.Enabled(ctx, slog.LevelDebug)
	return func(m *nats.Msg) {
		f.Tally.Receive(fleet.HitRate)
		hit, err := wire.ParseHitRate(m.Data)
		if err != nil {
			f.Tally.Reject(fleet.HitRate, fleet.BadJSON)
			if verbose {
				log.Debug("Failed to deserialize KV hit rate event", "error", err)
			}
			return
		}
		f.Hit(hit.Worker, hit.ISLBlocks, hit.OverlapBlocks)
		if verbose {
			log.Debug(fmt.Sprintf("Received KV hit rate event: worker_id=%d, isl_blocks=%d, overlap_blocks=%d",
				hit.Worker, hit.ISLBlocks, hit.OverlapBlocks))
		}
	}
}

// dropCounter carries what the NATS client drops of a subscription over to the tally.
type dropCounter struct {
	subscription *nats.Subscription
	tally        *fleet.Tally
	counted      int
}

func (d *dropCounter) count() {
	dropped, err := d.subscription.Dropped()
	if err != nil || dropped == d.counted {
		return // an error says that the subscription has ended, and was counted before
	}
	d.tally.Drop(fleet.QueueFull, uint64(dropped-d.counted))
	d.counted = dropped
}
