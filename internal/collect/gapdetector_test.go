package collect

import (
	"math"
	"math/rand/v2"
	"testing"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestGapDetectorCountsMissingNumbers(t *testing.T) {
	var s gapDetector
	for _, c := range []struct {
		publisher uint64
		kind      stats.Kind
		number    uint64
		missing   uint64
		why       string
	}{
		{1, stats.LoadEvent, 7, 0, "nothing is missing before the first number"},
		{1, stats.LoadEvent, 8, 0, "the next"},
		{1, stats.LoadEvent, 12, 3, "9, 10 and 11"},
		{1, stats.ForwardPass, 0, 0, "each topic counts for itself"},
		{2, stats.LoadEvent, 0, 0, "and each publisher"},
		{1, stats.ForwardPass, 2, 1, "1"},
		{1, stats.LoadEvent, 13, 0, "the next"},
		{1, stats.LoadEvent, 1 << 60, 0, "too far ahead to be a gap"},
		{1, stats.LoadEvent, 15, 1, "the others count as before"},
		{1, stats.LoadEvent, 1<<60 + 1, 0, "the forged track continues"},
		{1, stats.LoadEvent, math.MaxUint64, 0, "no number can follow it"},
		{2, stats.LoadEvent, 0, 0, "a copy, or another publisher with the same id"},
		{2, stats.LoadEvent, 50, 49, "it does not hide a gap"},
	} {
		if got := s.record(stream{c.publisher, c.kind}, c.number); got.missing != c.missing {
			t.Errorf("number %d of publisher %d, %s: %d missing, want %d: %s", c.number, c.publisher, c.kind, got.missing, c.missing, c.why)
		}
	}
}

// totalMissing returns how many numbers are missing in these numbers of one stream.
func totalMissing(t *testing.T, numbers ...any) (missing uint64) {
	t.Helper()
	var s sequence
	for _, n := range numbers {
		from, to := uint64(0), uint64(0)
		switch n := n.(type) {
		case int:
			from, to = uint64(n), uint64(n)
		case [2]int:
			from, to = uint64(n[0]), uint64(n[1])
		}
		for ; from <= to; from++ {
			missing += s.record(stream{}, from).missing
		}
	}
	return missing
}

// TestGapDetectorSurvivesLowerNumber records numbers that go back: copies, forged numbers, a
// restarted publisher, and others that share the id. They must not stop the counting.
func TestGapDetectorSurvivesLowerNumber(t *testing.T) {
	run := func(from, to int) [2]int { return [2]int{from, to} }
	for name, c := range map[string]struct {
		numbers []any
		want    uint64
	}{
		"a copy":                              {[]any{run(0, 99), 98, run(100, 109), 1010}, 900},
		"a copy of the last":                  {[]any{run(0, 99), 99, 1000}, 900},
		"many copies":                         {[]any{run(0, 99), 5, 50, 7, 20, 60, 31, 90, 44, 2, 81, 1000}, 900},
		"an old number, then the next":        {[]any{run(0, 99), 3, 100, 102}, 1},
		"restarted":                           {[]any{run(0, 99), run(0, 4), run(15, 20)}, 10},
		"restarted, and past the last number": {[]any{run(0, 9), run(0, 49), 950}, 900},
		"restarted again and again":           {[]any{run(0, 99), run(0, 50), run(0, 30), run(0, 20), run(41, 45)}, 10},
		"the first is the highest":            {[]any{500, run(0, 9), 20}, 10},
		"forged, far ahead":                   {[]any{run(0, 9), 1 << 40, run(10, 19), 21}, 1},
		"the largest gap":                     {[]any{0, 4_294_967_296}, 4_294_967_295},
		"a gap that is too large":             {[]any{0, 4_294_967_297}, 0},
	} {
		if got := totalMissing(t, c.numbers...); got != c.want {
			t.Errorf("%s: %d missing, want %d", name, got, c.want)
		}
	}
}

// TestGapDetectorSeparatesSharedID records numbers of publishers that share an id. A number that
// is ahead may be the first of another publisher. It counts as a gap once no track can be its
// continuation any more.
func TestGapDetectorSeparatesSharedID(t *testing.T) {
	var numbers []any
	for n := range 50 { // two publishers, in turn
		numbers = append(numbers, 1000+n, n)
	}
	testutil.Equal(t, "no event is lost", totalMissing(t, numbers...), 0)
	testutil.Equal(t, "a third begins", totalMissing(t, append(numbers, 500, 1050, 50, 501, 1051, 51, 502)...), 0)
	testutil.Equal(t, "a third begins, ahead of all", totalMissing(t, append(numbers, 5000, 1050, 50, 5001, 1051, 51, 5002)...), 0)
	testutil.Equal(t, "the lower one loses seven", totalMissing(t, append(numbers, 57, 1050, 58, 1051, 59, 1052, 60)...), 7)
	testutil.Equal(t, "the higher one loses seven", totalMissing(t, append(numbers, 1057, 50, 1058, 51, 1059, 52, 1060)...), 7)
	testutil.Equal(t, "both lose seven", totalMissing(t, append(numbers, 1057, 57, 1058, 58, 1059, 59, 1060, 60)...), 14)
	testutil.Equal(t, "the lower one passes the other, which cannot be detected", totalMissing(t, append(numbers, 1100, 1050, 1101, 1051, 1102, 1052, 1103)...), 0)

	alone := func(events int) []any { // the lower one sends no more
		return append(numbers[:len(numbers):len(numbers)], [2]int{1050, 1049 + events}, 1060+events)
	}
	testutil.Equal(t, "ten are lost soon after two publishers were seen", totalMissing(t, alone(1000)...), 0)
	testutil.Equal(t, "ten are lost long after two publishers were seen", totalMissing(t, alone(1030)...), 10)

	numbers = nil
	for n := range 50 { // more publishers than tracks
		for range 3 * maxTracks {
			numbers = append(numbers, n)
		}
	}
	testutil.Equal(t, "no event of many publishers is lost", totalMissing(t, numbers...), 0)
}

// TestGapDetectorMatchesModel compares the detector with a model that records what was lost: from
// one publisher, from one that sometimes restarts, and from several that share an id. There are
// copies and forged numbers in between.
func TestGapDetectorMatchesModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 12))
		restarts := seed%3 == 1
		publishers := make([]uint64, 1) // the next number of each
		if seed%3 == 2 {
			publishers = make([]uint64, 2+r.IntN(4))
		}
		since := make([]int, len(publishers)) // events since the last loss
		lastCopy := make([]uint64, len(publishers))
		var s sequence
		var lost, counted uint64
		record := func(number uint64) { counted += s.record(stream{}, number).missing }
		for p := range publishers { // every publisher sends an event before one is lost, the highest first
			publishers[p] = uint64(len(publishers)-1-p)*1_000_000 + r.Uint64N(1000)
			record(publishers[p])
			publishers[p]++
		}
		for range 3000 {
			p := r.IntN(len(publishers))
			next := &publishers[p]
			switch r.IntN(200) {
			case 0, 1, 2, 3:
				if since[p] > 20 {
					n := 1 + r.Uint64N(20)
					*next += n
					lost += n
					since[p] = 0
				}
			case 4, 5, 6:
				if old := *next - 2; *next > 2 && old > lastCopy[p]+1 { // never several in a row
					lastCopy[p] = old
					record(old)
				}
			case 7, 8:
				record(1<<50 + r.Uint64N(1<<60))
			case 9:
				if restarts && r.IntN(5) == 0 {
					*next, lastCopy[p] = 0, 0
				}
			}
			record(*next)
			*next++
			since[p]++
		}
		least, most := lost, lost
		switch {
		case restarts:
			least = lost / 2
		case len(publishers) > 1: // copies and forged numbers may evict a track within a gap
			least, most = lost*3/4, lost*101/100
		}
		if counted < least || counted > most {
			t.Errorf("seed %d: of %d publishers %d events are missing, want %d to %d", seed, len(publishers), counted, least, most)
		}
	}
}

func TestGapDetectorBoundsStreams(t *testing.T) {
	const most = 262_144 // in each of two generations
	var s gapDetector
	honest := func() uint64 {
		var missing uint64
		for publisher := range uint64(100) {
			missing += s.record(stream{1<<40 + publisher, stats.LoadEvent}, 0).missing
		}
		return missing
	}
	honest()
	for publisher := range uint64(5 * most) { // forged
		s.record(stream{publisher, stats.LoadEvent}, 0)
		if n := len(s.streams.young) + len(s.streams.old); n > 2*most {
			t.Fatalf("%d streams are remembered, want at most %d", n, 2*most)
		}
		if publisher%(most/2) == 0 {
			for p := range uint64(100) {
				n := publisher / (most / 2)
				if got := s.record(stream{1<<40 + p, stats.LoadEvent}, 1+3*n); got.missing != min(n, 1)*2 {
					t.Fatalf("after %d forged publishers %d events of an honest one are missing, want %d", publisher, got.missing, min(n, 1)*2)
				}
			}
		}
	}
	if n := len(s.streams.young) + len(s.streams.old); n < most {
		t.Errorf("%d streams are remembered, want at least %d", n, most)
	}
}

// TestGapDetectorBoundsTracks checks that forged numbers of few publishers take no more memory
// than many forged publishers.
func TestGapDetectorBoundsTracks(t *testing.T) {
	var s gapDetector
	s.streams.generationSize = 100 // not used: record sets it
	for i := range uint64(1000) {
		n := 1_000_000 - 2*i
		s.record(stream{7, stats.LoadEvent}, n)
	}
	run := s.streams.young[stream{7, stats.LoadEvent}]
	if n := len(run.split.list); n != 8 {
		t.Errorf("%d tracks of one stream, want 8", n)
	}
	if s.streams.extra != 7 {
		t.Errorf("they count as %d extra, want 7", s.streams.extra)
	}
}

func TestRecentMapKeepsTwoGenerations(t *testing.T) {
	r := recentMap[int, int]{generationSize: 10}
	keep := func(key int) {
		v, _ := r.get(key)
		r.put(key, v+1, 0)
	}
	for i := range 1000 {
		keep(i)
		keep(-1)
		if len(r.young)+len(r.old) > 20 {
			t.Fatalf("%d and %d are kept", len(r.young), len(r.old))
		}
	}
	if v, _ := r.get(-1); v != 1000 {
		t.Errorf("the entry in constant use has %d, want 1000", v)
	}
	if v, mustPut := r.get(1); v != 0 || !mustPut {
		t.Errorf("an entry that was used long ago has %d, want none", v)
	}
	r.reset()
	if v, _ := r.get(-1); v != 0 {
		t.Errorf("an entry that was removed has %d, want none", v)
	}
	r = recentMap[int, int]{generationSize: 10}
	for i := range 5 { // each counts as three
		r.put(i, 1, 2)
	}
	if len(r.young) != 1 || len(r.old) != 4 {
		t.Errorf("%d and %d are kept, want 1 and 4", len(r.young), len(r.old))
	}
}

// BenchmarkGapDetector measures the cost per event in an envelope: from 10,000 publishers over
// NATS or a broker, and from one publisher at its own address.
func BenchmarkGapDetector(b *testing.B) {
	b.Run("of many", func(b *testing.B) {
		var s gapDetector
		for n := 0; b.Loop(); n++ {
			s.record(stream{uint64(n % 10_000), stats.LoadEvent}, uint64(n/10_000))
		}
	})
	b.Run("of one", func(b *testing.B) {
		var s sequence
		for n := uint64(0); b.Loop(); n++ {
			s.record(stream{}, n)
		}
	})
}
