package glance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// The numbers here are those of SECURITY.md and of the README, and no names of constants:
// a change of one of these is a change of what was promised.

func placeOf(n int) fleet.Endpoint {
	return fleet.Endpoint{Component: fmt.Sprintf("c%05d", n), Name: "generate"}
}

// left is what a snapshot leaves out: endpoints, workers, problems.
func (s snapshot) left() []int {
	if s.LeftOut == nil {
		return nil
	}
	return []int{s.LeftOut.Endpoints, s.LeftOut.Workers, s.LeftOut.Problems}
}

// TestForgedNamesLeaveNothing sends what once took 24 s to write: 30,000 loads of 469 ids
// at made-up endpoints.
func TestForgedNamesLeaveNothing(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		l.publishing(generate, 1)
		l.f.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1}, fleet.FromActiveLoad, fleet.Load{KVActive: u(40)})
		l.second()
		before := len(l.ask("GET", "/api/v1/fleet").Body.Bytes())
		for n := range 30_000 {
			from := fleet.Origin{Endpoint: fleet.Endpoint{Component: fmt.Sprint("made", n), Name: fmt.Sprint("up", n)}, Worker: 1<<40 + uint64(n%469)}
			l.f.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(7)})
		}
		l.pass(3 * time.Second)
		s := l.f.Snapshot()
		testutil.Equal(t, "endpoints and rows", []int{len(s.Endpoints), len(s.Workers), len(s.Unregistered)}, []int{1, 1, 0})
		testutil.Equal(t, "loads of no use", l.f.Stats.Rejected(stats.LoadEvent, stats.NotRegistered), 30_000-469)
		testutil.Equal(t, "over the limits", l.f.Stats.AllRefused(), 0)
		if after := len(l.ask("GET", "/api/v1/fleet").Body.Bytes()); after > before+100 {
			t.Errorf("the snapshot grows from %d to %d bytes", before, after)
		}
		testutil.Equal(t, "load", *l.snapshot().Workers[0].KVActive, 40)
	})
}

func TestEndpointsOfASnapshotAreBounded(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		for n := range 4098 {
			l.publishing(placeOf(n), uint64(n+1))
			l.f.RecordLoad(fleet.Origin{Endpoint: placeOf(n), Worker: uint64(n + 1)}, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
		}
		l.f.RecordHit(4098, 100, 30)
		l.pass(5 * time.Second)
		s := l.snapshot()
		testutil.Equal(t, "endpoints and rows", []int{len(s.Endpoints), len(s.Workers)}, []int{4096, 4096})
		testutil.Equal(t, "left out", s.left(), []int{2, 2, 0})
		testutil.Equal(t, "sums", []string{fmt.Sprint(s.Fleet.States.Answering), shown(s.Fleet.LoadMean), shown(s.Fleet.HitRateTotal), shown(s.Fleet.HitRate)}, []string{"4098", "0.5", "0.3", "0.3"})
		testutil.Equal(t, "problem", l.problem("limit:page").Detail,
			"There is no room for 2 endpoints and 2 rows. There is for 4,096 endpoints, 131,072 rows of workers and ranks (1,000 of them of workers whose registration is gone; 32 MiB in all) and 200 problems. The sums, and the metrics, are of everything.")
		of := func(n int) string {
			return l.ask("GET", "/api/v1/signals?endpoint=generate&component="+placeOf(n).Component).Body.String()
		}
		testutil.Equal(t, "signals of one that is left out", strings.Contains(of(4097), "stale: there are more endpoints than the 4,096 that are looked at"), true)
		testutil.Equal(t, "signals of another", strings.Contains(of(7), `"workers":1`), true)
		l.f.Deregister("", fleet.Instance{Endpoint: placeOf(0), ID: 1})
		l.f.DropCard("", fleet.Instance{Endpoint: placeOf(0), ID: 1})
		l.f.Deregister("", fleet.Instance{Endpoint: placeOf(1), ID: 2})
		l.f.DropCard("", fleet.Instance{Endpoint: placeOf(1), ID: 2})
		time.Sleep(10 * time.Minute) // they are remembered for so long
		l.pass(2 * time.Second)
		s = l.snapshot()
		testutil.Equal(t, "left out when there is room", s.left(), nil)
		testutil.Equal(t, "rows", len(s.Workers), 4096)
		l.pass(15 * time.Second)
		testutil.Equal(t, "problem when there is room", l.problem("limit:page"), told{})
	})
}

// TestRowsOfASnapshotAreBounded, and those with a history.
func TestRowsOfASnapshotAreBounded(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		l.f = fleet.New(fleet.Target{}, 600_000, true)
		l.f.Advance(time.Now())
		l.f.Sync(fleet.Listing{})
		l.g = New(options(l.f))
		for id := range uint64(513) { // with 256 ranks: 131,328 rows
			l.publishing(generate, 1+id)
			for rank := range uint32(256) {
				l.f.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1 + id, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
			}
		}
		l.pass(5 * time.Second)
		testutil.Equal(t, "rows", len(l.g.rows), 131_072)
		testutil.Equal(t, "rows left out", l.g.leftOut.rows, 256)
		testutil.Equal(t, "rows with a history", l.g.ringing, 65_536)
		testutil.Equal(t, "workers", l.g.all.answering, 513)
	})
}

func TestRowsOfThoseWhoseRegistrationIsGoneAreBounded(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		l.register(generate, 1)
		answers := []fleet.PollReply{load(generate, 1, 500, 0)}
		for id := range uint64(1003) {
			answers = append(answers, load(generate, 2+id, 500, 0))
		}
		l.answer(answers...)
		l.second()
		s := l.snapshot()
		testutil.Equal(t, "rows", len(s.Workers), 1001)
		testutil.Equal(t, "left out", s.left(), []int{0, 3, 0})
		testutil.Equal(t, "unregistered", s.Fleet.States.Unregistered, 1003)
	})
}

func TestProblemsOfASnapshotAreBounded(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		answers := []fleet.PollReply(nil)
		for n := range 300 {
			l.register(placeOf(n), uint64(n+1))
			answers = append(answers, load(placeOf(n), uint64(n+1), 950, 0)) // full
		}
		l.answer(answers...)
		l.second()
		testutil.Equal(t, "problems", len(l.snapshot().Problems), 200)
		testutil.Equal(t, "left out", l.snapshot().left(), []int{0, 0, 100})
		l.answer(answers[:299]...)
		l.pass(2 * time.Second)
		s := l.snapshot()
		testutil.Equal(t, "the worst, and that there are more", []string{s.Problems[0].ID, s.Problems[1].ID}, []string{"silent:c00299/generate", "limit:page"})
		testutil.Equal(t, "problems", len(s.Problems), 200)
	})
}

// TestTheBytesOfASnapshotAreBounded however long names are. The whole is not decoded: that
// takes long.
func TestTheBytesOfASnapshotAreBounded(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		const workers = 7000
		long := fleet.Endpoint{Component: strings.Repeat("\x01", 256), Name: strings.Repeat("\x02", 256)}
		answers := []fleet.PollReply(nil)
		for id := range uint64(workers) { // elsewhere, too, so that keys name the endpoint
			l.register(generate, 1+id)
			answers = append(answers, load(generate, 1+id, 1, 0))
		}
		l.answer(answers...)
		l.second()
		for id := range uint64(workers) {
			l.register(long, 1+id)
			answers = append(answers, load(long, 1+id, 950, 0)) // full
		}
		l.answer(answers...)
		l.second()
		e, _ := l.g.newest(noHistory)
		text := string(e.json())
		if len(text) < 32<<20 || len(text) > 37<<20 {
			t.Errorf("the snapshot has %d bytes, want 32 MiB of rows, and 4 of problems", len(text))
		}
		rows, out := strings.Count(text, `"key":`), l.g.missed()
		if rows+out.rows != 2*workers || out.rows == 0 {
			t.Errorf("%d rows, and left out are %+v", rows, out)
		}
		_, problem, _ := strings.Cut(text, `"kind":"full"`)
		problem, _, _ = strings.Cut(problem, "]")
		if named := strings.Count(problem, "@"); named < 1000 || named > workers/2 {
			t.Errorf("%d workers of a problem are named, want as many as there is room for", named)
		}
		l.second()
		e, _ = l.g.newest(noHistory)
		testutil.Equal(t, "it says so", strings.Contains(string(e.json()), `"id":"limit:page"`), true)
	})
}

func TestOfThoseThatAreGoneTheLastAreNamed(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		answers := []fleet.PollReply(nil)
		for id := range uint64(200) {
			l.register(generate, 1+id)
			answers = append(answers, load(generate, 1+id, 1, 0))
		}
		l.answer(answers...)
		l.pass(10 * time.Second)
		for id := range uint64(200) {
			l.f.Deregister("", fleet.Instance{Endpoint: generate, ID: 1 + id})
		}
		l.answer()
		l.pass(10 * time.Second)
		testutil.Equal(t, "detail", l.problem("lost:backend/generate").Detail,
			"backend/generate: of 200 workers in the last 10 min none is left. Deregistered, and heard until then: c8, c7, c6 and 197 more.")
	})
}

func TestWhatIsSeenBesideIsBounded(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		l.f = fleet.New(fleet.Target(generate), 1000, true)
		l.f.Advance(time.Now())
		l.f.Sync(fleet.Listing{})
		l.g = New(options(l.f))
		for n := range 60 {
			l.register(placeOf(n), uint64(n+1))
		}
		l.second()
		testutil.Equal(t, "endpoints that are registered", len(l.snapshot().Looking.Sees), 50)
	})
}

// TestRowsOfAWorkerAreCountedByItsId, so that nothing looks through all endpoints for them.
func TestRowsOfAWorkerAreCountedByItsId(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		for n := range 10 {
			l.publishing(placeOf(n), 7)
			for rank := range uint32(1 + n%3) {
				l.f.RecordLoad(fleet.Origin{Endpoint: placeOf(n), Worker: 7, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
			}
		}
		l.second()
		testutil.Equal(t, "places", l.g.presence[fleet.WorkerID{Lease: 7}], 10)
		for n := range 10 {
			in := fleet.Instance{Endpoint: placeOf(n), ID: 7}
			l.f.Deregister("", in)
			l.f.DropCard("", in)
		}
		time.Sleep(11 * time.Minute)
		l.pass(2 * time.Second)
		testutil.Equal(t, "what is left", []int{len(l.g.presence), l.g.tracks, len(l.g.places)}, []int{0, 0, 0})
	})
}

func TestLimitsTimesAreDocumented(t *testing.T) {
	t.Run("workers count as lost for ten minutes", func(t *testing.T) {
		inLab(t, func(l *lab) {
			l.register(generate, 1, 2)
			l.answer(load(generate, 1, 1, 0), load(generate, 2, 1, 0))
			l.pass(30 * time.Second)
			l.f.Deregister("", fleet.Instance{Endpoint: generate, ID: 2})
			l.answer(load(generate, 1, 1, 0))
			l.within(6, "lost:backend/generate", true)
			l.keeps(10*time.Minute-10*time.Second, "lost:backend/generate", true)
			l.within(5, "lost:backend/generate", false)
		})
	})
	t.Run("a hit rate is of five minutes", func(t *testing.T) {
		inLab(t, func(l *lab) {
			l.register(generate, 1)
			l.answer(load(generate, 1, 1, 0))
			l.second()
			l.f.RecordHit(1, 100, 50)
			l.second()
			l.pass(4*time.Minute + 20*time.Second)
			testutil.Equal(t, "hit rate", shown(l.snapshot().Fleet.HitRate), "0.5")
			l.pass(40 * time.Second)
			testutil.Equal(t, "hit rate", shown(l.snapshot().Fleet.HitRate), "–")
		})
	})
	t.Run("a look is followed by a rest of fifty times as long", func(t *testing.T) {
		inLab(t, func(l *lab) {
			l.g.took = 80 * time.Millisecond
			testutil.Equal(t, "rests", l.g.rests(l.g.at.Add(3990*time.Millisecond)), true)
			testutil.Equal(t, "rests", l.g.rests(l.g.at.Add(4*time.Second)), false)
			l.g.took = time.Second // but each step of the history has one
			testutil.Equal(t, "rests", l.g.rests(l.g.at.Add(4490*time.Millisecond)), true)
			testutil.Equal(t, "rests", l.g.rests(l.g.at.Add(4500*time.Millisecond)), false)
		})
	})
}
