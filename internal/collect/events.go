package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// Events records in the Fleet what workers, routers and frontends publish, over NATS or ZeroMQ.
type Events struct {
	fleet         *fleet.Fleet
	namespaces    wire.Namespaces
	log           *slog.Logger
	verbose       bool     // log single events
	topicPrefixes []string // subscribed to at ZeroMQ brokers

	permissions      *Permissions
	subscribed       bool // the log has named the NATS subscriptions
	gapDetector      gapDetector
	openGaps         openGaps
	logNoWorkerID    sync.Once // an engine publishes forward passes without a worker id
	logNamelessTrace sync.Once // a frontend publishes traces that name no worker
	logFirstZMQ      sync.Once // the first connection to a ZeroMQ publisher

	dial func(ctx context.Context, address string) (net.Conn, error) // connects to ZeroMQ publishers; nil: over TCP
}

// NewEvents returns an Events that records the events of these namespaces in the Fleet.
func NewEvents(f *fleet.Fleet, namespaces wire.Namespaces, log *slog.Logger) *Events {
	return &Events{
		fleet:         f,
		openGaps:      openGaps{fleet: f},
		namespaces:    namespaces,
		log:           log,
		verbose:       log.Enabled(context.Background(), slog.LevelDebug),
		permissions:   newPermissions(f, namespaces, log),
		topicPrefixes: wire.BrokerTopics(namespaces, slices.Collect(maps.Keys(kindOfTopic))...),
	}
}

// handleMessage handles an event of a topic in the format of any release: an envelope, or bare
// JSON up to 0.8. at is the publisher's endpoint, as far as it is known.
func (e *Events) handleMessage(at fleet.Endpoint, topic string, data []byte) {
	kind := kindOfTopic[topic]
	e.fleet.Stats.CountMessage(kind)
	if !wire.IsEnvelope(data) {
		e.handleJSON(topic, data)
		return
	}
	envelope, err := wire.ParseEnvelope(data)
	if err != nil {
		e.reject(kind, stats.BadMsgpack, err)
		return
	}
	e.handleEnvelope(at, topic, envelope, &e.gapDetector, nil)
}

// kindOfTopic has the topics that the program reads.
var kindOfTopic = map[string]stats.Kind{
	wire.TopicLoad:        stats.LoadEvent,
	wire.TopicHitRate:     stats.HitRate,
	wire.TopicForwardPass: stats.ForwardPass,
}

// sequenceTracker finds gaps in sequence numbers: in those of one publisher, or of many.
type sequenceTracker interface {
	record(key stream, number uint64) sequenceGap
}

// handleEnvelope handles an event in an envelope (0.9 to 1.6), unless another broker has
// delivered a copy of it. tracker is nil where a missing event may still arrive from another
// broker.
func (e *Events) handleEnvelope(at fleet.Endpoint, topic string, v wire.Envelope, tracker sequenceTracker, dedup *deduper) {
	kind := kindOfTopic[topic]
	if string(v.Topic) != topic {
		e.reject(kind, stats.BadID, errors.New("the topic in the envelope differs from the subject"))
		return
	}
	counts := &e.fleet.Stats
	// The clock is read once per event, because a lag in milliseconds needs it.
	counts.RecordLag(time.Since(time.UnixMilli(int64(v.PublishedAt))))
	outOfOrder := false
	if tracker != nil {
		outOfOrder = e.detectGap(gapKey{tracker, stream{v.Publisher, kind}}, v.Sequence)
	}
	switch kind {
	case stats.LoadEvent:
		e.handleLoad(at, v, dedup, outOfOrder)
	case stats.HitRate:
		hit, err := wire.ParseHitRateMsgpack(v.Payload)
		if err == nil && dedup.classify(v, kind, hit.Worker, 0) == duplicate {
			counts.CountRejected(kind, stats.Repeated)
			return
		}
		e.recordHit(hit, stats.BadMsgpack, err)
	case stats.ForwardPass:
		e.handleForwardPass(at, v, dedup, outOfOrder)
	}
}

// detectGap records the sequence number of an event, and opens a gap if numbers before it are
// missing. It reports whether a later event arrived first.
func (e *Events) detectGap(key gapKey, number uint64) (outOfOrder bool) {
	if e.openGaps.record(key, number) {
		return true
	}
	if s := key.tracker.record(key.stream, number); s.missing > 0 {
		e.openGaps.add(key, s, time.Now())
	}
	return false
}

// handleJSON handles an event in bare JSON (up to 0.8).
func (e *Events) handleJSON(topic string, data []byte) {
	switch topic {
	case wire.TopicLoad:
		l, err := wire.ParseLoadEvent(data)
		if err != nil {
			e.reject(stats.LoadEvent, stats.BadJSON, err)
			return
		}
		e.recordLoad(fleet.Origin{Worker: l.Worker, Rank: l.Rank}, l.Source, l.Load, l.Estimate)
	case wire.TopicHitRate:
		hit, err := wire.ParseHitRate(data)
		e.recordHit(hit, stats.BadJSON, err)
	default:
		e.reject(kindOfTopic[topic], stats.BadMsgpack, errors.New("not an envelope"))
	}
}

func (e *Events) handleLoad(at fleet.Endpoint, v wire.Envelope, dedup *deduper, outOfOrder bool) {
	l, err := wire.ParseActiveLoad(v.Payload)
	if err != nil {
		e.reject(stats.LoadEvent, stats.BadMsgpack, err)
		return
	}
	if dedup.classify(v, stats.LoadEvent, l.Worker, l.Rank) != inOrder { // an older load must not replace a newer one
		e.fleet.Stats.CountRejected(stats.LoadEvent, stats.Repeated)
		return
	}
	from := fleet.Origin{Endpoint: at, Worker: l.Worker, Rank: l.Rank, Sent: v.PublishedAt, OutOfOrder: outOfOrder}
	e.recordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: l.KVActive()}, l.IsEstimate())
}

// recordLoad records a load, unless it is a router's estimate or has no value.
func (e *Events) recordLoad(from fleet.Origin, source fleet.Source, l fleet.Load, estimate bool) {
	switch {
	case estimate:
		e.fleet.Stats.CountRejected(stats.LoadEvent, stats.Estimate)
	case l == fleet.Load{}:
		e.reject(stats.LoadEvent, stats.BadLoad, errors.New("the load has no value"))
	default:
		e.fleet.RecordLoad(from, source, l)
	}
}

// recordHit records a hit, or counts the event as rejected for reason if err is not nil.
func (e *Events) recordHit(hit wire.HitRate, reason stats.Reason, err error) {
	if err != nil {
		e.fleet.Stats.CountRejected(stats.HitRate, reason)
		if e.verbose {
			e.log.Debug("Failed to deserialize KV hit rate event", "error", err)
		}
		return
	}
	e.fleet.RecordHit(hit.Worker, hit.ISLBlocks, hit.OverlapBlocks)
	if e.verbose {
		e.log.Debug(fmt.Sprintf("Received KV hit rate event: worker_id=%d, isl_blocks=%d, overlap_blocks=%d",
			hit.Worker, hit.ISLBlocks, hit.OverlapBlocks))
	}
}

func (e *Events) handleForwardPass(at fleet.Endpoint, v wire.Envelope, dedup *deduper, outOfOrder bool) {
	p, err := wire.ParseForwardPass(v.Payload)
	if err != nil {
		e.reject(stats.ForwardPass, stats.BadMsgpack, err)
		return
	}
	if !p.HasWorkerID {
		e.fleet.Stats.CountRejected(stats.ForwardPass, stats.NoWorker)
		e.logNoWorkerID.Do(func() {
			e.log.Warn("Forward passes without a worker id cannot be shown: an engine was started without its worker id", "endpoint", at)
		})
		return
	}
	order := dedup.classify(v, stats.ForwardPass, p.Worker, p.Rank)
	if order == duplicate {
		e.fleet.Stats.CountRejected(stats.ForwardPass, stats.Repeated)
		return
	}
	e.fleet.RecordForwardPass(fleet.Origin{Endpoint: at, Worker: p.Worker, Rank: p.Rank}, fleet.Pass{
		OutOfOrder:        order == late || outOfOrder,
		Counter:           p.Counter,
		Seconds:           p.WallTime,
		Running:           p.Running(),
		Waiting:           p.Waiting(),
		PrefillTokens:     p.Scheduled.PrefillTokens,
		DecodeTokens:      p.Scheduled.DecodeRequests, // each decode request makes one token per pass
		QueuedTokens:      p.Queued.PrefillTokens,
		ScheduledKVTokens: p.Scheduled.PrefillKVTokens + p.Scheduled.DecodeKVTokens,
	})
}

// handleTrace handles a record of the request trace (1.4 to 1.6).
func (e *Events) handleTrace(data []byte) {
	e.fleet.Stats.CountMessage(stats.Trace)
	r, err := wire.ParseTrace(data)
	if errors.Is(err, wire.ErrNotRequestEnd) {
		return
	}
	if err != nil {
		e.reject(stats.Trace, stats.BadJSON, err)
		return
	}
	if !r.Prefill.OK && !r.Decode.OK {
		e.fleet.Stats.CountRejected(stats.Trace, stats.NoWorker)
		e.logNamelessTrace.Do(func() {
			e.log.Info("Request traces name no worker and cannot be shown: a frontend of 1.4 names them only for requests with a session header, later ones always do")
		})
		return
	}
	id := func(w fleet.Opt[wire.TraceWorker]) fleet.Opt[uint64] {
		return fleet.Opt[uint64]{V: w.V.Worker, OK: w.OK}
	}
	e.fleet.RecordRequest(fleet.Request{
		Prefill: id(r.Prefill), Decode: id(r.Decode),
		ISLBlocks: r.ISLBlocks, OverlapBlocks: r.OverlapBlocks,
		FirstToken: r.TTFT, InterToken: r.InterToken, Duration: r.Duration,
	})
}

func (e *Events) reject(kind stats.Kind, reason stats.Reason, err error) {
	e.fleet.Stats.CountRejected(kind, reason)
	if e.verbose {
		e.log.Debug("Ignored an event", "kind", kind, "error", err)
	}
}
