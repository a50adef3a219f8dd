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

// These constants say what one round of fuzzing sends, and what the program may show of it.
const (
	fuzzEvents     = 5000 // over NATS
	fuzzReplies    = 200  // to one poll
	fuzzKeys       = 60   // keys put into etcd
	fuzzFrames     = 200  // messages from each valid ZeroMQ publisher
	fuzzMadeUp     = 300  // made-up endpoints of the watched component, in each of three kinds of messages
	fuzzRegistered = 20   // made-up endpoints that are registered, and as many model cards

	// fuzzMaxSeries is more than the program can have: twelve series for each attachment (at
	// most 8 per worker, see SECURITY.md) and each endpoint. There are at most 1,026 of these:
	// the limit of 1,024, the one that the flags name, and the one of unknown ids.
	fuzzMaxSeries = 12 * (8*fuzzMaxWorkers + 1026)

	fuzzMaxWorkers = 500 // --max-workers
)

// fuzzer sends messages that are almost valid, to every input of the program. It does not
// matter what the program reads from them, as long as the control worker's values are right, the
// program keeps running, and every message is counted.
type fuzzer struct {
	*environment
	m     *instance
	seed  uint64
	round uint64
	begin time.Time
	seeds map[stats.Kind][][]byte

	control  *controlWorker
	metrics  *metricsFuzzer
	registry *registryFuzzer
	zmq      *zmqPublishers
	sent     map[stats.Kind]int
	counted  map[stats.Kind]int // the counts that were expected at the last scrape
	madeUp   int                // endpoints made up so far, in each kind of messages
	series   int                // series of the last scrape
}

// The streams of random numbers in a round. There is one for each input, so that a change
// to one input does not change the messages of the others.
const (
	eventStream = iota
	replyStream
	keyStream
	frameStream
	malformedStream
	metricsStream
	numStreams
)

func (f *fuzzer) newRand(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(f.seed, f.round*numStreams+stream))
}

// fuzz fuzzes the program for at least this long. A seed of 0 means a random seed.
func (s *environment) fuzz(ctx context.Context, length time.Duration, seed uint64, stderr io.Writer) (err error) {
	if seed == 0 {
		seed = rand.Uint64N(math.MaxInt64)
	}
	fmt.Fprintf(stderr, "fuzzing with --seed %d\n", seed)
	f := &fuzzer{environment: s, seed: seed, seeds: garbage.Messages(), sent: make(map[stats.Kind]int), counted: make(map[stats.Kind]int)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("fuzz --seed %d, round %d: %w", seed, f.round, err)
		}
	}()
	if f.control, err = newControlWorker(ctx, s); err != nil {
		return err
	}
	if f.zmq, err = newZMQPublishers(); err != nil {
		return err
	}
	defer f.zmq.close()
	if f.metrics, err = newMetricsFuzzer(ctx, s, f.newRand(metricsStream)); err != nil {
		return err
	}
	defer f.metrics.close()
	f.registry = newRegistryFuzzer(s.client, f.zmq)
	if f.m, err = s.startMetrics(ctx, garbage.Namespace, "--component", garbage.Endpoint.Component,
		"--poll-interval", "0.1", "--max-workers", strconv.Itoa(fuzzMaxWorkers),
		"--scrape-workers", "on", "--scrape-interval", "1", "--worker-metrics-url", f.metrics.template()); err != nil {
		return err
	}
	defer f.m.terminate()
	return f.run(ctx, length)
}

func (f *fuzzer) run(ctx context.Context, length time.Duration) error {
	f.sent[stats.InstanceKeys] += 2 // the control worker, and the worker with its own metrics
	if err := f.registerPublishers(ctx); err != nil {
		return err
	}
	for f.begin = time.Now(); time.Since(f.begin) < length; f.round++ {
		if err := f.runRound(ctx); err != nil {
			return cmp.Or(f.m.failure(), err)
		}
	}
	if err := f.waitForScrapes(ctx); err != nil {
		return cmp.Or(f.m.failure(), err)
	}
	p, err := f.m.scrape(ctx)
	if err != nil {
		return err
	}
	_, peak, err := f.m.resident()
	if err != nil {
		return err
	}
	f.m.terminate()
	if line := f.m.panicLine(); line != "" || !f.m.cmd.ProcessState.Success() {
		return fmt.Errorf("the program ended with %v: %s", f.m.cmd.ProcessState, line)
	}
	f.report(summarize(p), peak)
	return nil
}

// registerPublishers registers the valid ZeroMQ publishers and waits until the program has
// connected to them.
func (f *fuzzer) registerPublishers(ctx context.Context) error {
	for _, e := range f.zmq.validChannels() {
		if err := f.registry.put(ctx, e, f.sent); err != nil {
			return err
		}
	}
	f.registry.forgetPresent()
	return f.m.waitForSum(ctx, `dynamo_metrics_zmq_publishers{state="connected"}`, len(f.zmq.valid))
}

// waitForScrapes waits until the worker's metrics were scraped a few times, which happens
// at most once a second.
func (f *fuzzer) waitForScrapes(ctx context.Context) error {
	err := until(ctx, 10*time.Millisecond, func() error {
		if n := f.metrics.served.Load(); n < 2 && f.m.failure() == nil {
			return fmt.Errorf("the worker's metrics were scraped %d times", n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.waitForCounts(ctx)
}

// runRound runs one round.
func (f *fuzzer) runRound(ctx context.Context) error {
	f.zmq.changeGreetings(f.newRand(malformedStream))
	if err := f.registry.changeEntries(ctx, f.newRand(keyStream), f.sent); err != nil {
		return err
	}
	if err := f.zmq.publish(f.newRand(frameStream), f.sent); err != nil {
		return err
	}
	if err := f.sendEvents(f.newRand(eventStream)); err != nil {
		return err
	}
	forged, err := f.sendMadeUpNames(ctx)
	if err != nil {
		return err
	}
	if err := f.sendReplies(ctx, f.newRand(replyStream), forged); err != nil {
		return err
	}
	return f.waitForCounts(ctx)
}

// sendMadeUpNames publishes loads and forward passes of made-up endpoints, all with the
// same worker id, and registers some other endpoints. It returns poll replies for the first ones.
func (f *fuzzer) sendMadeUpNames(ctx context.Context) (answers [][]byte, err error) {
	for range fuzzMadeUp {
		f.madeUp++
		e := fleet.Endpoint{Component: garbage.Endpoint.Component, Name: fmt.Sprint("made_", f.madeUp)}
		for topic, event := range map[string][]byte{
			wire.TopicLoad: garbage.LoadEvent(firstForgedID, 0, 77), wire.TopicForwardPass: garbage.ForwardPass(firstForgedID, 0, 1, 0.5),
		} {
			if err := f.nats.Publish(garbage.Subject(garbage.Namespace, e, topic), event); err != nil {
				return nil, fmt.Errorf("publish: %w", err)
			}
		}
		answers = append(answers, garbage.StatsReply(controlService(), e.Name, firstForgedID+uint64(f.madeUp), "forged", 77))
	}
	f.sent[stats.LoadEvent] += fuzzMadeUp
	f.sent[stats.ForwardPass] += fuzzMadeUp
	for n := range fuzzRegistered {
		in := fleet.Instance{Endpoint: fleet.Endpoint{Component: garbage.Endpoint.Component, Name: fmt.Sprintf("new_%d_%d", f.round, n)}, ID: firstMadeUpID + uint64(n)}
		for _, e := range []garbage.Entry{garbage.Registration(garbage.Namespace, in), garbage.Card(garbage.Namespace, in)} {
			if err := f.registry.put(ctx, e, f.sent); err != nil {
				return nil, err
			}
		}
	}
	return answers, f.nats.FlushTimeout(waitTimeout)
}

// checkMadeUpNames returns an error unless messages of made-up endpoints are counted as
// rejected, or as over the limit of workers or ranks.
func (f *fuzzer) checkMadeUpNames(v summary) error {
	over := func(l stats.Limit) float64 {
		return v.series[fmt.Sprintf("dynamo_metrics_over_limit_total{kind=%q}", l)]
	}
	events := v.series[rejectedSeries(stats.LoadEvent)] + v.series[rejectedSeries(stats.ForwardPass)]
	// One message of each kind may wait for a registration, and is dropped with its worker
	// id.
	if got := events + 2*over(stats.WorkerLimit) + over(stats.RankLimit); got < float64(2*f.madeUp-2) {
		return fmt.Errorf("%.0f events are rejected, of %d for made-up endpoints", got, 2*f.madeUp)
	}
	if got := v.series[rejectedSeries(stats.StatsReply)]; got < float64(f.madeUp) {
		return fmt.Errorf("%.0f poll replies are rejected, of %d for made-up endpoints", got, f.madeUp)
	}
	if f.series = v.lines; f.series > fuzzMaxSeries {
		return fmt.Errorf("there are %d series, more than the possible %d", f.series, fuzzMaxSeries)
	}
	return nil
}

// sendEvents publishes on every subject, with hits of the control worker in between.
func (f *fuzzer) sendEvents(rng *rand.Rand) error {
	subjects := garbage.Subjects()
	kinds := slices.Sorted(maps.Keys(subjects))
	for i := range fuzzEvents {
		kind := kinds[rng.IntN(len(kinds))]
		subject := subjects[kind][rng.IntN(len(subjects[kind]))]
		if err := f.nats.Publish(subject, garbage.Mutate(rng, f.seeds[kind])); err != nil {
			return fmt.Errorf("publish on %s: %w", subject, err)
		}
		f.sent[kind]++
		if i%100 > 0 {
			continue
		}
		if err := f.control.publishHit(f.nats); err != nil {
			return err
		}
		f.sent[stats.HitRate]++
	}
	return f.nats.FlushTimeout(waitTimeout)
}

// sendReplies answers the next poll with these messages and with random ones.
func (f *fuzzer) sendReplies(ctx context.Context, rng *rand.Rand, all [][]byte) error {
	for range fuzzReplies {
		all = append(all, garbage.Mutate(rng, f.seeds[stats.StatsReply]))
	}
	f.sent[stats.StatsReply] += len(all)
	return f.control.sendExtra(ctx, f.m, all)
}

// waitForCounts waits until the program has counted every message, and shows exactly what the
// control worker, whose reports are always valid, has reported.
func (f *fuzzer) waitForCounts(ctx context.Context) error {
	err := until(ctx, 10*time.Millisecond, func() error {
		if f.m.failure() != nil {
			return nil // waiting longer is pointless
		}
		answered, read := f.control.answered.Load(), f.metrics.served.Load()
		p, err := f.m.scrape(ctx)
		if err != nil {
			return err
		}
		v := summarize(p)
		for _, kind := range stats.Kinds() {
			want := f.sent[kind]
			switch kind {
			case stats.StatsReply:
				want += int(answered)
			case stats.WorkerMetrics:
				want = int(read)
			}
			f.counted[kind] = want
			if got := v.series[receivedSeries(kind)]; got != float64(want) {
				return fmt.Errorf("%v: %.0f messages received of %d", kind, got, want)
			}
		}
		if err := f.control.check(p); err != nil {
			return err
		}
		if err := f.checkMadeUpNames(v); err != nil {
			return err
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if _, err := parser.TextToMetricFamilies(bytes.NewReader(p)); err != nil {
			return fmt.Errorf("/metrics cannot be parsed: %w", err)
		}
		return nil
	})
	return cmp.Or(f.m.failure(), err)
}

func receivedSeries(k stats.Kind) string {
	return fmt.Sprintf("dynamo_metrics_messages_total{kind=%q}", k)
}

// report adds the results to the table.
func (f *fuzzer) report(v summary, peak int64) {
	name := fmt.Sprintf("fuzzing of %.0f s, seed %d, %d rounds: ", time.Since(f.begin).Seconds(), f.seed, f.round)
	f.table.add(row{measure: name + "panics; exit code", ours: "0; 0", target: "0; 0", met: true, gate: true})
	f.table.add(row{
		measure: name + "messages dropped", ours: fmt.Sprintf("%.0f", v.series[droppedSeries]), target: "0", met: v.series[droppedSeries] == 0, gate: true,
	})
	for _, kind := range stats.Kinds() {
		if kind == stats.OtherKeys {
			continue // these are parts of Kubernetes resources, and no Kubernetes runs here
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
			target:  "sent = received, some rejected", met: len(reasons) > 0, gate: true,
		})
	}
	f.table.add(row{
		measure: name + "hits of the control worker among them; blocks sent − shown", ours: fmt.Sprintf("%s; 0", count(f.control.hits)), target: "0", met: true, gate: true,
	})
	f.table.add(row{
		measure: name + "made-up endpoints, in each of three kinds of messages; series of the last scrape",
		ours:    fmt.Sprintf("%s; %s", count(f.madeUp), count(f.series)), target: "all rejected; ≤ " + count(fuzzMaxSeries), met: true, gate: true,
	})
	f.table.add(row{measure: name + "connections to ZeroMQ publishers that send malformed data", ours: count(f.zmq.connections())})
	most := int64(200e6)
	f.table.add(row{
		measure: name + fmt.Sprintf("peak resident memory, --max-workers %d", fuzzMaxWorkers), ours: megabytes(peak), target: "≤ " + megabytes(most), met: peak <= most, gate: true,
	})
}
