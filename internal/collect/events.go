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

// Events books what workers, routers and frontends publish, whatever it comes by.
type Events struct {
	fleet         *fleet.Fleet
	namespaces    wire.Namespaces
	log           *slog.Logger
	verbose       bool     // single events are logged
	topicPrefixes []string // what a broker is asked for: the prefixes of the namespaces' subjects

	permissions      *Permissions
	subscribed       bool // to NATS, as the log has said
	gapDetector      gapDetector
	openGaps         openGaps
	logNoWorkerID    sync.Once // says that an engine does not know its worker's id
	logNamelessTrace sync.Once // says that a frontend does not say who served a request
	logFirstZMQ      sync.Once // says that there is ZMQ

	dial func(ctx context.Context, address string) (net.Conn, error) // publishers of ZMQ; nil: over TCP
}

// NewEvents books the events of the namespaces in the Fleet.
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

// message books an event of a topic in the form that its release gives it: an
// envelope, or to 0.8 bare JSON. At is the publisher's endpoint, as far as it is known.
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

// kinds are the topics that are read.
var kindOfTopic = map[string]stats.Kind{
	wire.TopicLoad:        stats.LoadEvent,
	wire.TopicHitRate:     stats.HitRate,
	wire.TopicForwardPass: stats.ForwardPass,
}

// counted are the numbers of what came one way into the program: of one publisher, or of many.
type sequenceTracker interface {
	record(of stream, number uint64) sequenceGap
}

// envelope books what is in an envelope (0.9 to 1.6), unless it is a copy of what
// another broker has brought. Numbers are nil where what did not come may come otherwise.
func (e *Events) handleEnvelope(at fleet.Endpoint, topic string, v wire.Envelope, numbers sequenceTracker, by *deduper) {
	kind := kindOfTopic[topic]
	if string(v.Topic) != topic {
		e.reject(kind, stats.BadID, errors.New("topic and subject of an event differ"))
		return
	}
	t := &e.fleet.Stats
	// The one look at the clock for each event: a lag in milliseconds needs it.
	t.RecordLag(time.Since(time.UnixMilli(int64(v.PublishedAt))))
	behind := false
	if numbers != nil {
		behind = e.detectGap(gapKey{numbers, stream{v.Publisher, kind}}, v.Sequence)
	}
	switch kind {
	case stats.LoadEvent:
		e.handleLoad(at, v, by, behind)
	case stats.HitRate:
		hit, err := wire.ParseHitRateMsgpack(v.Payload)
		if err == nil && by.classify(v, kind, hit.Worker, 0) == duplicate {
			t.CountRejected(kind, stats.Repeated)
			return
		}
		e.recordHit(hit, stats.BadMsgpack, err)
	case stats.ForwardPass:
		e.handleForwardPass(at, v, by, behind)
	}
}

// count notes the number of an event, and what has not come before it. It reports whether
// the event comes after later ones.
func (e *Events) detectGap(key gapKey, number uint64) (tooOld bool) {
	if e.openGaps.record(key, number) {
		return true
	}
	if s := key.tracker.record(key.stream, number); s.missing > 0 {
		e.openGaps.add(key, s, time.Now())
	}
	return false
}

// bare books an event in JSON (to 0.8).
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

func (e *Events) handleLoad(at fleet.Endpoint, v wire.Envelope, by *deduper, behind bool) {
	l, err := wire.ParseActiveLoad(v.Payload)
	if err != nil {
		e.reject(stats.LoadEvent, stats.BadMsgpack, err)
		return
	}
	if by.classify(v, stats.LoadEvent, l.Worker, l.Rank) != inOrder { // a late one is not the load any more
		e.fleet.Stats.CountRejected(stats.LoadEvent, stats.Repeated)
		return
	}
	from := fleet.Origin{Endpoint: at, Worker: l.Worker, Rank: l.Rank, Sent: v.PublishedAt, OutOfOrder: behind}
	e.recordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: l.KVActive()}, l.IsEstimate())
}

// publish books a load, unless it is a router's word, or says nothing.
func (e *Events) recordLoad(from fleet.Origin, source fleet.Source, l fleet.Load, estimate bool) {
	switch {
	case estimate:
		e.fleet.Stats.CountRejected(stats.LoadEvent, stats.Estimate)
	case l == fleet.Load{}:
		e.reject(stats.LoadEvent, stats.BadLoad, errors.New("a load without a value"))
	default:
		e.fleet.RecordLoad(from, source, l)
	}
}

func (e *Events) recordHit(hit wire.HitRate, otherwise stats.Reason, err error) {
	if err != nil {
		e.fleet.Stats.CountRejected(stats.HitRate, otherwise)
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

func (e *Events) handleForwardPass(at fleet.Endpoint, v wire.Envelope, by *deduper, behind bool) {
	p, err := wire.ParseForwardPass(v.Payload)
	if err != nil {
		e.reject(stats.ForwardPass, stats.BadMsgpack, err)
		return
	}
	if !p.HasWorkerID {
		e.fleet.Stats.CountRejected(stats.ForwardPass, stats.NoWorker)
		e.logNoWorkerID.Do(func() {
			e.log.Warn("Forward passes come without their worker's id and cannot be shown: an engine was not told it when it was started", "endpoint", at)
		})
		return
	}
	order := by.classify(v, stats.ForwardPass, p.Worker, p.Rank)
	if order == duplicate {
		e.fleet.Stats.CountRejected(stats.ForwardPass, stats.Repeated)
		return
	}
	e.fleet.RecordForwardPass(fleet.Origin{Endpoint: at, Worker: p.Worker, Rank: p.Rank}, fleet.Pass{
		OutOfOrder:        order == late || behind,
		Counter:           p.Counter,
		Seconds:           p.WallTime,
		Running:           p.Running(),
		Waiting:           p.Waiting(),
		PrefillTokens:     p.Scheduled.PrefillTokens,
		DecodeTokens:      p.Scheduled.DecodeRequests, // each makes one a pass
		QueuedTokens:      p.Queued.PrefillTokens,
		ScheduledKVTokens: p.Scheduled.PrefillKVTokens + p.Scheduled.DecodeKVTokens,
	})
}

// trace books a record of the request trace (1.4 to 1.6).
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
