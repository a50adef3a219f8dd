package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// What a round of fuzzing sends.
const (
	fuzzEvents  = 5000 // over NATS
	fuzzReplies = 200  // to one poll
	fuzzKeys    = 60   // put into etcd
	fuzzFrames  = 200  // messages of each honest ZeroMQ publisher
	fuzzNames   = 300  // made-up endpoints of the watched component, by each of three ways
	fuzzEntries = 20   // of them registered, and as many model cards

	// fuzzLines is more series than a page can have: twelve of each attachment, and of each
	// endpoint.
	fuzzLines = 12 * (8*fuzzLimit + 1026)

	fuzzLimit = 500 // --max-workers
)

// fuzzer sends what is almost right by every way into the program. Of such messages
// anything may be, but for the good worker's values, the program's life, and each
// message's being counted.
type fuzzer struct {
	*stage
	m     *instance
	seed  uint64
	round uint64
	begin time.Time
	seeds map[stats.Kind][][]byte

	good     *goodWorker
	leaflets *leaflets
	registry *scribbler
	zmq      *speakers
	sent     map[stats.Kind]int
	counted  map[stats.Kind]int // as of the last time that all were
	named    int                // endpoints that are made up, by each way
	lines    int                // series of the last page
}

// The streams of random numbers of a round. Each has its own, so that what one way
// needs does not change what goes by another.
const (
	eventStream = iota
	replyStream
	keyStream
	frameStream
	rudeStream
	pageStream
	streams
)

func (f *fuzzer) random(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(f.seed, f.round*streams+stream))
}

// fuzz fuzzes a program for so long at least. A seed of 0 is another one each time.
func (s *stage) fuzz(ctx context.Context, length time.Duration, seed uint64, stderr io.Writer) (err error) {
	if seed == 0 {
		seed = rand.Uint64N(math.MaxInt64)
	}
	fmt.Fprintf(stderr, "fuzzing with --seed %d\n", seed)
	f := &fuzzer{stage: s, seed: seed, seeds: garbage.Messages(), sent: make(map[stats.Kind]int), counted: make(map[stats.Kind]int)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("fuzz --seed %d, round %d: %w", seed, f.round, err)
		}
	}()
	if f.good, err = newGoodWorker(ctx, s); err != nil {
		return err
	}
	if f.zmq, err = newSpeakers(); err != nil {
		return err
	}
	defer f.zmq.close()
	if f.leaflets, err = newLeaflets(ctx, s, f.random(pageStream)); err != nil {
		return err
	}
	defer f.leaflets.close()
	f.registry = newScribbler(s.client, f.zmq)
	if f.m, err = s.metrics(ctx, garbage.Namespace, "--component", garbage.Endpoint.Component,
		"--poll-interval", "0.1", "--max-workers", strconv.Itoa(fuzzLimit),
		"--scrape-workers", "on", "--scrape-interval", "1", "--worker-metrics-url", f.leaflets.template()); err != nil {
		return err
	}
	defer f.m.end()
	return f.run(ctx, length)
}

func (f *fuzzer) run(ctx context.Context, length time.Duration) error {
	f.sent[stats.InstanceKeys] += 2 // the good worker's, and that of the one with a page
	if err := f.announce(ctx); err != nil {
		return err
	}
	for f.begin = time.Now(); time.Since(f.begin) < length; f.round++ {
		if err := f.once(ctx); err != nil {
			return cmp.Or(f.m.death(), err)
		}
	}
	if err := f.leave(ctx); err != nil {
		return cmp.Or(f.m.death(), err)
	}
	p, err := f.m.page(ctx)
	if err != nil {
		return err
	}
	_, peak, err := f.m.resident()
	if err != nil {
		return err
	}
	f.m.end()
	if said := f.m.panicked(); said != "" || !f.m.cmd.ProcessState.Success() {
		return fmt.Errorf("the program ends with %v: %s", f.m.cmd.ProcessState, said)
	}
	f.figures(look(p), peak)
	return nil
}

// announce tells the program of the honest ZeroMQ publishers, and waits until it
// listens to them.
func (f *fuzzer) announce(ctx context.Context) error {
	for _, e := range f.zmq.announcements() {
		if err := f.registry.put(ctx, e, f.sent); err != nil {
			return err
		}
	}
	f.registry.keep()
	return f.m.counts(ctx, `dynamo_metrics_zmq_publishers{state="connected"}`, len(f.zmq.honest))
}

// leave waits until a few of the worker's pages were read: they are at most every second.
func (f *fuzzer) leave(ctx context.Context) error {
	err := until(ctx, 10*time.Millisecond, func() error {
		if n := f.leaflets.served.Load(); n < 2 && f.m.death() == nil {
			return fmt.Errorf("%d pages of a worker are read", n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.settle(ctx)
}

// once is one round.
func (f *fuzzer) once(ctx context.Context) error {
	f.zmq.rehearse(f.random(rudeStream))
	if err := f.registry.scribble(ctx, f.random(keyStream), f.sent); err != nil {
		return err
	}
	if err := f.zmq.say(f.random(frameStream), f.sent); err != nil {
		return err
	}
	if err := f.events(f.random(eventStream)); err != nil {
		return err
	}
	forged, err := f.names(ctx)
	if err != nil {
		return err
	}
	if err := f.replies(ctx, f.random(replyStream), forged); err != nil {
		return err
	}
	return f.settle(ctx)
}

// names publishes loads and forward passes of made-up endpoints, all in the name of one
// id, registers some, and gives answers of others.
func (f *fuzzer) names(ctx context.Context) (answers [][]byte, err error) {
	for range fuzzNames {
		f.named++
		e := fleet.Endpoint{Component: garbage.Endpoint.Component, Name: fmt.Sprint("made_", f.named)}
		for topic, event := range map[string][]byte{
			wire.TopicLoad: garbage.LoadEvent(firstForged, 0, 77), wire.TopicForwardPass: garbage.ForwardPass(firstForged, 0, 1, 0.5),
		} {
			if err := f.nats.Publish(garbage.Subject(garbage.Namespace, e, topic), event); err != nil {
				return nil, fmt.Errorf("publish: %w", err)
			}
		}
		answers = append(answers, garbage.StatsReply(goodService(), e.Name, firstForged+uint64(f.named), "forged", 77))
	}
	f.sent[stats.LoadEvent] += fuzzNames
	f.sent[stats.ForwardPass] += fuzzNames
	for n := range fuzzEntries {
		in := fleet.Instance{Endpoint: fleet.Endpoint{Component: garbage.Endpoint.Component, Name: fmt.Sprintf("come_%d_%d", f.round, n)}, ID: firstNamed + uint64(n)}
		for _, e := range []garbage.Entry{garbage.Registration(garbage.Namespace, in), garbage.Card(garbage.Namespace, in)} {
			if err := f.registry.put(ctx, e, f.sent); err != nil {
				return nil, err
			}
		}
	}
	return answers, f.nats.FlushTimeout(patience)
}

// checkNames complains unless what is of made-up endpoints is counted as that, or as of an id
// that there is no room for.
func (f *fuzzer) checkNames(v view) error {
	over := func(l stats.Limit) float64 {
		return v.series[fmt.Sprintf("dynamo_metrics_over_limit_total{kind=%q}", l)]
	}
	events := v.series[notRegistered(stats.LoadEvent)] + v.series[notRegistered(stats.ForwardPass)]
	// One of each may wait, and goes with its id.
	if got := events + 2*over(stats.WorkerLimit) + over(stats.RankLimit); got < float64(2*f.named-2) {
		return fmt.Errorf("%.0f events are of no use, of %d of made-up endpoints", got, 2*f.named)
	}
	if got := v.series[notRegistered(stats.StatsReply)]; got < float64(f.named) {
		return fmt.Errorf("%.0f answers are of no use, of %d of made-up endpoints", got, f.named)
	}
	if f.lines = v.lines; f.lines > fuzzLines {
		return fmt.Errorf("there are %d series, at most %d can be", f.lines, fuzzLines)
	}
	return nil
}

// events publishes on every subject, and among it hits of the good worker.
func (f *fuzzer) events(rng *rand.Rand) error {
	subjects := garbage.Subjects()
	kinds := slices.Sorted(maps.Keys(subjects))
	for i := range fuzzEvents {
		kind := kinds[rng.IntN(len(kinds))]
		subject := subjects[kind][rng.IntN(len(subjects[kind]))]
		if err := f.nats.Publish(subject, garbage.Mutated(rng, f.seeds[kind])); err != nil {
			return fmt.Errorf("publish on %s: %w", subject, err)
		}
		f.sent[kind]++
		if i%100 > 0 {
			continue
		}
		if err := f.good.hit(f.nats); err != nil {
			return err
		}
		f.sent[stats.HitRate]++
	}
	return f.nats.FlushTimeout(patience)
}

// replies answers the next poll, and gives these answers, too.
func (f *fuzzer) replies(ctx context.Context, rng *rand.Rand, all [][]byte) error {
	for range fuzzReplies {
		all = append(all, garbage.Mutated(rng, f.seeds[stats.StatsReply]))
	}
	f.sent[stats.StatsReply] += len(all)
	return f.good.mutter(ctx, f.m, all)
}

// settle waits until the program has counted every message, and shows what the good
// worker has said and nothing else of it.
func (f *fuzzer) settle(ctx context.Context) error {
	err := until(ctx, 10*time.Millisecond, func() error {
		if f.m.death() != nil {
			return nil // there is nothing to wait for
		}
		answered, read := f.good.answered.Load(), f.leaflets.served.Load()
		p, err := f.m.page(ctx)
		if err != nil {
			return err
		}
		v := look(p)
		for _, kind := range stats.Kinds() {
			want := f.sent[kind]
			switch kind {
			case stats.StatsReply:
				want += int(answered)
			case stats.WorkerMetrics:
				want = int(read)
			}
			f.counted[kind] = want
			if got := v.series[received(kind)]; got != float64(want) {
				return fmt.Errorf("%v: %.0f messages received of %d", kind, got, want)
			}
		}
		if err := f.good.check(p); err != nil {
			return err
		}
		if err := f.checkNames(v); err != nil {
			return err
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if _, err := parser.TextToMetricFamilies(bytes.NewReader(p)); err != nil {
			return fmt.Errorf("the page cannot be read: %w", err)
		}
		return nil
	})
	return cmp.Or(f.m.death(), err)
}

func received(k stats.Kind) string {
	return fmt.Sprintf("dynamo_metrics_messages_total{kind=%q}", k)
}

// figures says what has become of all messages.
func (f *fuzzer) figures(v view, peak int64) {
	name := fmt.Sprintf("fuzzing of %.0f s, seed %d, %d rounds: ", time.Since(f.begin).Seconds(), f.seed, f.round)
	f.table.add(row{measure: name + "panics; code at the end", ours: "0; 0", must: "0; 0", met: true, gate: true})
	f.table.add(row{
		measure: name + "messages dropped", ours: fmt.Sprintf("%.0f", v.series[droppedSeries]), must: "0", met: v.series[droppedSeries] == 0, gate: true,
	})
	for _, kind := range stats.Kinds() {
		if kind == stats.OtherKeys {
			continue // those are parts of resources of Kubernetes, of which there is none here
		}
		var reasons []string
		for _, r := range stats.Reasons() {
			if n := v.series[fmt.Sprintf("dynamo_metrics_rejected_messages_total{kind=%q,reason=%q}", kind, r)]; n > 0 {
				reasons = append(reasons, fmt.Sprintf("%v %s", r, count(int(n))))
			}
		}
		f.table.add(row{
			measure: name + kind.String() + " sent; received; rejected, by reason",
			ours:    fmt.Sprintf("%s; as many; %s", count(f.counted[kind]), strings.Join(reasons, ", ")),
			must:    "sent = received, some rejected", met: len(reasons) > 0, gate: true,
		})
	}
	f.table.add(row{
		measure: name + "hits of the good worker among them; blocks sent − shown", ours: fmt.Sprintf("%s; 0", count(f.good.hits)), must: "0", met: true, gate: true,
	})
	f.table.add(row{
		measure: name + "made-up endpoints, by each of three ways; series of the last page",
		ours:    fmt.Sprintf("%s; %s", count(f.named), count(f.lines)), must: "all of no use; ≤ " + count(fuzzLines), met: true, gate: true,
	})
	f.table.add(row{measure: name + "connections to ZeroMQ publishers that talk nonsense", ours: count(f.zmq.met())})
	most := int64(200e6)
	f.table.add(row{
		measure: name + fmt.Sprintf("resident at most, --max-workers %d", fuzzLimit), ours: megabytes(peak), must: "≤ " + megabytes(most), met: peak <= most, gate: true,
	})
}
