package discovery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// workerLogTest is a fleet with a WorkerLog, on the test's clock.
type workerLogTest struct {
	t         *testing.T
	fleet     *fleet.Fleet
	out       *testutil.Log
	linesRead int
	dead      map[uint64]bool // the workers that do not answer polls
	polled    bool            // workers are polled every second
}

// runWorkerLog runs a test in a synctest bubble, with a registry that is not known yet.
func runWorkerLog(t *testing.T, target fleet.Target, namespaces wire.Namespaces, registry bool, act func(*workerLogTest)) {
	synctest.Test(t, func(t *testing.T) {
		log, out := testutil.NewLog()
		s := &workerLogTest{t: t, fleet: fleet.New(target, 100_000, registry), out: out, dead: make(map[uint64]bool)}
		c := &WorkerLog{Fleet: s.fleet, Namespaces: namespaces, Poll: time.Second, Log: log}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); c.Run(ctx) }()
		time.Sleep(time.Millisecond) // so that all changes are between two samples
		act(s)
		cancel()
		<-done
	})
}

// wait lets seconds pass, with a poll in each if workers are polled.
func (s *workerLogTest) wait(seconds int) {
	for range seconds {
		if s.polled {
			s.poll(true)
		}
		time.Sleep(time.Second)
	}
}

// poll polls all registered workers. counts is false if the connection was lost meanwhile.
func (s *workerLogTest) poll(counts bool) {
	s.fleet.BeginPoll()
	for _, w := range s.fleet.AppendPresent(nil) {
		if !s.dead[w.ID.Lease] {
			s.fleet.RecordPollReply(fleet.PollReply{Endpoint: w.Endpoint, Worker: w.ID, Load: fleet.Load{KVActive: fleet.Some(uint64(1))}})
		}
	}
	s.fleet.EndPoll(counts)
}

// wantLines compares the lines that were logged since the last call.
func (s *workerLogTest) wantLines(want ...string) {
	s.t.Helper()
	synctest.Wait()
	lines := strings.Split(strings.TrimSuffix(s.out.String(), "\n"), "\n")
	if s.out.String() == "" {
		lines = nil
	}
	var got []string
	for _, line := range lines[s.linesRead:] {
		_, message, _ := strings.Cut(line, "level=INFO msg=")
		got = append(got, strings.Trim(message, `"`))
	}
	s.linesRead = len(lines)
	if !slices.Equal(got, want) {
		s.t.Errorf("logged\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

var (
	backend = fleet.Endpoint{Component: "backend", Name: "generate"}
	prefill = fleet.Endpoint{Component: "prefill", Name: "generate"}
)

func (s *workerLogTest) join(e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		s.fleet.Register(fmt.Sprint(e, id), fleet.Instance{Endpoint: e, ID: id}, fleet.Registration{NATS: s.polled, Publishes: !s.polled})
	}
}

func (s *workerLogTest) leave(e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		s.fleet.Deregister(fmt.Sprint(e, id), fleet.Instance{Endpoint: e, ID: id})
	}
}

// sync lists a registry with these workers.
func (s *workerLogTest) sync(e fleet.Endpoint, ids ...uint64) {
	all := make(map[string]fleet.InstanceEntry)
	for _, id := range ids {
		all[fmt.Sprint(e, id)] = fleet.InstanceEntry{Instance: fleet.Instance{Endpoint: e, ID: id}, Registration: fleet.Registration{NATS: s.polled, Publishes: !s.polled}}
	}
	s.fleet.Sync(fleet.Listing{Instances: all})
}

func idRange(from, to uint64) (all []uint64) {
	for id := from; id <= to; id++ {
		all = append(all, id)
	}
	return all
}

func TestWorkerLogStartsWithOneLine(t *testing.T) {
	for n, want := range map[uint64]string{
		1: "1 worker is at dynamo/backend/generate: 1", 3: "3 workers are at dynamo/backend/generate: 1, 2, 3",
		8:      "8 workers are at dynamo/backend/generate: 1, 2, 3, 4, 5, 6, 7, 8",
		10_000: "10000 workers are at dynamo/backend/generate: 1, 2, 3, 4, 5, 6, 7, 8 and 9992 more",
	} {
		runWorkerLog(t, fleet.Target{}, "dynamo", true, func(s *workerLogTest) {
			s.wait(30)
			s.wantLines() // the registry is not known
			s.sync(backend, idRange(1, n)...)
			s.wantLines(want)
			s.wait(60)
			s.wantLines()
		})
	}
}

func TestWorkerLogSumsManyChanges(t *testing.T) {
	runWorkerLog(t, fleet.Target(backend), "dynamo", true, func(s *workerLogTest) {
		s.sync(backend)
		s.wait(10)
		s.wantLines()
		s.join(backend, 0xabc)
		s.join(prefill, 5) // not watched
		s.wait(1)
		s.wantLines("1 worker joined dynamo/backend/generate: abc; 1 now")
		for id := range uint64(40) { // one by one
			s.join(backend, 1+id)
			time.Sleep(100 * time.Millisecond)
		}
		s.wait(1)
		s.wantLines("40 workers joined dynamo/backend/generate: 1, 2, 3, 4, 5, 6, 7, 8 and 32 more; 41 now")
		s.join(backend, 100)
		s.leave(backend, 1, 2)
		s.wait(5)
		s.wantLines("1 worker joined dynamo/backend/generate: 64; 2 workers of dynamo/backend/generate are gone: 1, 2; 40 now")
		for i := range uint64(600) { // for ten minutes, one each second
			s.join(backend, 1000+i)
			s.wait(1)
		}
		if n := s.out.Count("\n"); n < 115 || n > 3+121 {
			t.Errorf("%d lines, want one every five seconds", n)
		}
	})
}

// The polls before a key was deleted tell how its worker left.
func TestWorkerLogSaysHowWorkersLeft(t *testing.T) {
	const at = " dynamo/backend/generate"
	for what, c := range map[string]struct {
		before func(*workerLogTest)
		want   string
	}{
		"it answered up to the end": {func(s *workerLogTest) {}, "1 worker left" + at + ": 1; 2 now"},
		"it missed a poll":          {func(s *workerLogTest) { s.dead[1] = true; s.wait(1) }, "1 worker left" + at + ": 1; 2 now"},
		"it had died":               {func(s *workerLogTest) { s.dead[1] = true; s.wait(10) }, "1 worker of" + at + " was lost: 1; 2 now"},
		"NATS was disconnected": {func(s *workerLogTest) {
			s.fleet.Stats.NATS.MarkUsed()
			s.fleet.Stats.NATS.SetConnected(false)
			time.Sleep(10 * time.Second)
		}, "1 worker of" + at + " is gone: 1; 2 now"},
		"NATS was reconnected just before": {func(s *workerLogTest) {
			s.dead[1] = true
			for range 4 { // while workers may reconnect
				s.poll(false)
				time.Sleep(time.Second)
			}
		}, "1 worker of" + at + " is gone: 1; 2 now"},
	} {
		t.Run(what, func(t *testing.T) {
			runWorkerLog(t, fleet.Target{}, "dynamo", true, func(s *workerLogTest) {
				s.polled = true
				s.sync(backend, 1, 2, 3)
				s.wait(10)
				s.wantLines("3 workers are at dynamo/backend/generate: 1, 2, 3")
				c.before(s)
				s.leave(backend, 1)
				s.dead[1] = true
				s.wait(6)
				s.wantLines(c.want)
			})
		})
	}
}

func TestWorkerLogOmitsBriefChanges(t *testing.T) {
	runWorkerLog(t, fleet.Target{}, "dynamo", true, func(s *workerLogTest) {
		s.sync(backend, 1)
		s.wantLines("1 worker is at dynamo/backend/generate: 1")
		for range 50 {
			s.leave(backend, 1)
			s.join(backend, 2)
			time.Sleep(1100 * time.Millisecond)
			s.leave(backend, 2)
			s.join(backend, 1)
			time.Sleep(1100 * time.Millisecond)
		}
		joined, gone := s.out.Count("1 worker joined"), s.out.Count("1 worker of dynamo/backend/generate is gone")
		if lines := s.out.Count("\n"); lines > 1+22 || joined != gone {
			t.Errorf("%d lines in 110 s, %d of a worker that joined and %d of one that is gone:\n%s", lines, joined, gone, s.out)
		}
		s.wait(10)
		s.leave(backend, 1)
		s.wait(1)
		synctest.Wait() // the line may be logged at this very moment
		s.linesRead = s.out.Count("\n") - 1
		s.wantLines("1 worker of dynamo/backend/generate is gone: 1; 0 now")
		s.join(backend, 3)
		s.wait(2)
		s.leave(backend, 3)
		s.wait(10)
		s.wantLines()
	})
}

func TestWorkerLogIgnoresRelisting(t *testing.T) {
	runWorkerLog(t, fleet.Target{}, "dynamo", true, func(s *workerLogTest) {
		s.sync(backend, 1, 2, 3)
		s.wantLines("3 workers are at dynamo/backend/generate: 1, 2, 3")
		for range 20 { // the connection is lost and restored
			s.wait(1)
			s.sync(backend, 1, 2, 3)
		}
		s.wantLines()
		s.wait(30)
		s.sync(backend, 2, 3, 4)
		s.wait(5)
		s.wantLines("1 worker joined dynamo/backend/generate: 4; 1 worker of dynamo/backend/generate is gone: 1; 3 now")
	})
}

func TestWorkerLogNamesFourEndpoints(t *testing.T) {
	backendOf := func(n int) fleet.Endpoint {
		return fleet.Endpoint{Namespace: fmt.Sprintf("team-%d", n), Component: "backend", Name: "generate"}
	}
	runWorkerLog(t, fleet.Target{Namespace: "team-"}, "team-*", true, func(s *workerLogTest) {
		s.sync(backendOf(0))
		s.wantLines()
		for n := range 3 {
			s.join(backendOf(n), uint64(10*n+1), uint64(10*n+2))
		}
		s.wait(5)
		s.wantLines("2 workers joined team-0/backend/generate: 1, 2; 2 now. 2 workers joined team-1/backend/generate: b, c; 2 now. 2 workers joined team-2/backend/generate: 15, 16; 2 now")
		s.leave(backendOf(0), 1)
		for n := range 6 {
			s.join(backendOf(n), uint64(100+n))
		}
		s.leave(backendOf(2), 21)
		s.wait(5)
		s.wantLines("1 worker joined team-0/backend/generate: 64; 1 worker of team-0/backend/generate is gone: 1; 2 now. " +
			"1 worker joined team-1/backend/generate: 65; 3 now. " +
			"1 worker joined team-2/backend/generate: 66; 1 worker of team-2/backend/generate is gone: 15; 2 now. " +
			"1 worker joined team-3/backend/generate: 67; 1 now. " +
			"2 workers joined 2 more endpoints: 68, 69; 2 now")
	})
}

// A worker is one line, whichever endpoints and ranks it has.
func TestWorkerLogCountsWorkersOnce(t *testing.T) {
	clear := fleet.Endpoint{Component: "backend", Name: "clear_kv_blocks"}
	runWorkerLog(t, fleet.Target{}, "dynamo", true, func(s *workerLogTest) {
		s.sync(backend)
		s.wantLines()
		s.join(clear, 7)
		s.join(backend, 7)
		for rank := range uint32(8) {
			s.fleet.RecordLoad(fleet.Origin{Endpoint: backend, Worker: 7, Rank: rank}, fleet.FromLoadEvent, fleet.Load{KVActive: fleet.Some(uint64(1))})
		}
		s.wait(5)
		s.wantLines("1 worker joined dynamo/backend/generate: 7; 1 now")
		s.leave(clear, 7)
		s.wait(10)
		s.wantLines()
		s.join(clear, 7)
		s.wait(10)
		s.wantLines()
		s.leave(clear, 7)
		s.leave(backend, 7)
		s.wait(6)
		s.wantLines("1 worker of dynamo/backend/generate is gone: 7; 0 now")
	})
}

func TestWorkerLogStaticWorkers(t *testing.T) {
	runWorkerLog(t, fleet.Target{Component: "backend"}, "dynamo", false, func(s *workerLogTest) {
		s.wait(10)
		s.wantLines()
		static := fleet.WorkerID{Static: "backend-1"}
		for range 6 {
			s.fleet.BeginPoll()
			s.fleet.RecordPollReply(fleet.PollReply{Endpoint: backend, Worker: static, Load: fleet.Load{KVActive: fleet.Some(uint64(1))}})
			s.fleet.EndPoll(true)
			s.wait(1)
		}
		s.wantLines("1 worker joined dynamo/backend/generate: backend-1; 1 now")
		for range 6 {
			s.fleet.BeginPoll()
			s.fleet.EndPoll(true)
			s.wait(1)
		}
		s.wantLines("1 worker of dynamo/backend/generate is gone: backend-1; 0 now")
	})
}
