// Command bench measures how fast metrics is. In the same run it measures, for comparison, the
// fastest implementation that is possible, or the straightforward one. It prints one table.
//
//	go run ./bench                    # everything; it takes some minutes
//	go run ./bench --quick            # fewer events and workers, for CI
//	go run ./bench --only hits,page   # some of the measures
//	go run ./bench soak               # a minute of forged ids, and of workers that register and leave
//	go run ./bench fuzz               # two minutes of messages that are almost valid
//	go run ./bench load hits          # hit-rate events for any running instance
//	go run ./bench load workers       # workers for any running instance
//
// It builds metrics and a nats-server, and starts both and an etcd. The exit code is 1 if
// a ratio or a count misses its target. Absolute figures depend on the machine and are
// only reported.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/cli"

	"github.com/alecthomas/kingpin/v2"
)

func main() {
	os.Exit(run(cli.Signals(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// command runs what the command line selects.
type command func(ctx context.Context, log *slog.Logger) error

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var do command
	return cli.Run("bench", getenv, stderr,
		func() (ended bool, err error) {
			do, ended, err = parse(args, getenv, stdout, stderr)
			return ended, err
		},
		func(log *slog.Logger) error { return do(ctx, log) })
}

// parse reads the command line. It reports true if help or the version was requested and
// has been written to stdout.
func parse(args []string, getenv func(string) string, stdout, stderr io.Writer) (do command, ended bool, err error) {
	a := cli.New("bench", "Measures metrics, and puts load on running instances of it.", stdout)
	choose := func(c *kingpin.CmdClause, f command) {
		c.Action(func(*kingpin.ParseContext) error { do = f; return nil })
	}

	var o options
	var only string
	measure := a.Command("measure", "Measure the program, and print one table.").Default()
	measure.Flag("events", "Number of hit-rate events in one burst.").Default("5000000").
		SetValue(cli.Number("events", &o.events, 1000, 1_000_000_000))
	measure.Flag("quick", "Measure with 300,000 events and 1,000 workers only.").BoolVar(&o.quick)
	measure.Flag("only", "A comma list of measures: "+strings.Join(measureNames(), ", ")+".").StringVar(&only)
	choose(measure, func(ctx context.Context, _ *slog.Logger) error {
		return runAndPrint(ctx, o, stdout, func(ctx context.Context, s *environment) error { return measureAll(ctx, s, stderr) })
	})

	var soaking time.Duration
	soak := a.Command("soak", "Send forged ids, and register workers that leave again: check what is counted, and that memory does not grow.")
	soak.Flag("duration", "Minimum duration, in seconds or as a duration.").Default("1m").
		SetValue(cli.Duration("duration", &soaking, minSoak, maxDuration))
	choose(soak, func(ctx context.Context, _ *slog.Logger) error {
		return runAndPrint(ctx, options{}, stdout, func(ctx context.Context, s *environment) error { return s.soak(ctx, soaking) })
	})

	var fuzzing time.Duration
	var seed int
	fuzz := a.Command("fuzz", "Send messages that are almost valid, to every input of the program: check that all are counted, and that the program keeps running.")
	fuzz.Flag("duration", "How long to send, in seconds or as a duration.").Default("2m").
		SetValue(cli.Duration("duration", &fuzzing, time.Second, maxDuration))
	fuzz.Flag("seed", "Seed of all messages; 0: a random one.").Default("0").
		SetValue(cli.Number("seed", &seed, 0, math.MaxInt))
	choose(fuzz, func(ctx context.Context, _ *slog.Logger) error {
		return runAndPrint(ctx, options{}, stdout, func(ctx context.Context, s *environment) error { return s.fuzz(ctx, fuzzing, uint64(seed), stderr) })
	})

	var l loader
	load := a.Command("load", "Put load on a running instance.")
	hits := load.Command("hits", "Publish hit-rate events of the workers that load workers registers.")
	l.flags(hits, getenv)
	hits.Flag("rate", "Events a second, or full.").Default("full").SetValue(&l.rate)
	hits.Flag("duration", "How long to publish, in seconds or as a duration.").Default("10s").
		SetValue(cli.Duration("duration", &l.duration, time.Millisecond, maxDuration))
	choose(hits, func(ctx context.Context, log *slog.Logger) error { return l.hits(ctx, log) })
	workers := load.Command("workers", "Register workers that answer stats polls, cheaply enough for a hundred thousand.")
	l.flags(workers, getenv)
	workers.Flag("etcd-endpoints", "etcd endpoints, a comma list (ETCD_ENDPOINTS).").
		Default(cli.OrDefault(getenv("ETCD_ENDPOINTS"), "http://localhost:2379")).
		SetValue(cli.Name("etcd-endpoints", &l.etcd, ""))
	choose(workers, func(ctx context.Context, log *slog.Logger) error { return l.workers(ctx, log) })

	var s subprocess
	child := a.Command("child", "Run one side of a comparison.").Hidden()
	child.Arg("mode", "Mode of the subprocess.").Required().SetValue(cli.OneOf("mode", &s.mode, modes()...))
	child.Flag("url", "The NATS server.").StringVar(&s.url)
	child.Flag("namespace", "Namespace of the workers.").StringVar(&s.namespace)
	child.Flag("workers", "Number of workers.").IntVar(&s.workers)
	child.Flag("polls", "Number of polls.").IntVar(&s.polls)
	child.Flag("address", "Address on which to serve the counts.").StringVar(&s.address)
	child.Flag("etcd", "The etcd server.").StringVar(&s.etcd)
	child.Flag("release", "Release of the workers.").StringVar(&s.release)
	child.Flag("event-plane", "Event plane of the workers.").StringVar(&s.plane)
	choose(child, func(ctx context.Context, _ *slog.Logger) error { return s.run(ctx, stdout) })

	if ended, err = a.Parse(args); ended || err != nil {
		return nil, ended, err
	}
	if o.only, err = measuresOf(only); err != nil {
		return nil, false, err
	}
	if o.quick && o.events == 5_000_000 {
		o.events = 300_000
	}
	return do, false, nil
}

// options are the settings of a run.
type options struct {
	events int
	quick  bool
	only   []string
}

// sizes returns the numbers of workers to measure with.
func (o options) sizes() []int {
	if o.quick {
		return []int{1000}
	}
	return []int{1000, 10_000}
}

// measure is one entry of the list that makes up the table.
type measure struct {
	name string
	run  func(s *environment, ctx context.Context) error
}

func measures() []measure {
	return []measure{
		{"hits", (*environment).measureHits},
		{"handling", (*environment).measureHandling},
		{"poll", (*environment).measurePolls},
		{"fresh", (*environment).measureFreshness},
		{"page", (*environment).measureScrapes},
		{"memory", (*environment).measureMemory},
		{"start", (*environment).measureStart},
		{"kubernetes", (*environment).measureKubernetes},
		{"many", (*environment).measureManyWorkers},
	}
}

func measureNames() (names []string) {
	for _, m := range measures() {
		names = append(names, m.name)
	}
	return names
}

// measuresOf returns the measures in a comma list, or all if it is empty.
func measuresOf(list string) ([]string, error) {
	all := measureNames()
	if list == "" {
		return all, nil
	}
	names := strings.Split(list, ",")
	for _, name := range names {
		if !slices.Contains(all, name) {
			return nil, cli.FlagError("only", list, "a comma list of "+strings.Join(all, ", "))
		}
	}
	return names, nil
}

// measureAll runs all selected measures.
func measureAll(ctx context.Context, s *environment, stderr io.Writer) error {
	for _, m := range measures() {
		if !slices.Contains(s.only, m.name) {
			continue
		}
		fmt.Fprintf(stderr, "measuring %s\n", m.name)
		if err := m.run(s, ctx); err != nil {
			return fmt.Errorf("measure %s: %w", m.name, cmp.Or(ctx.Err(), err))
		}
	}
	return nil
}

// runAndPrint does work in an environment and prints its table. If the work fails, it
// prints the rows that were complete before.
func runAndPrint(ctx context.Context, o options, stdout io.Writer, work func(context.Context, *environment) error) error {
	s, err := newEnvironment(ctx, o)
	if err != nil {
		return err
	}
	defer s.close()
	failed := work(ctx, s)
	if failed != nil && len(s.table.rows) == 0 {
		return failed
	}
	if err := s.table.print(stdout); err != nil {
		return err
	}
	return cmp.Or(failed, s.table.verdict())
}
