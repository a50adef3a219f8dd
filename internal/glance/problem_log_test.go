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

// logged has the lab's Glance log.
func (l *lab) logged() *testutil.Log {
	log, out := testutil.NewLog()
	l.g.o.Log, l.g.teller.log = log, log
	return out
}

func TestAProblemIsSaidInTheLogWhenItIsRaisedAndWhenItIsOver(t *testing.T) {
	inLab(t, func(l *lab) {
		out := l.logged()
		l.register(generate, 1, 2)
		both := []fleet.PollReply{load(generate, 1, 1, 0), load(generate, 2, 1, 0)}
		l.answer(both...)
		l.pass(10 * time.Second)
		l.answer(both[1:]...)
		l.pass(30 * time.Second) // in which its words change with each second
		l.answer(both...)
		l.pass(time.Minute)
		var lines []string
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "problem=silent:backend/generate") {
				_, line, _ = strings.Cut(line, "level=")
				lines = append(lines, line)
			}
		}
		if len(lines) != 2 || !strings.HasPrefix(lines[0], `WARN msg="Problem: `) || !strings.Contains(lines[0], ` detail="backend/generate: 1. No load for `) ||
			!strings.HasPrefix(lines[1], `INFO msg="Problem withdrawn: `) || !strings.HasSuffix(lines[1], " lasted=\"29 s\"\n") {
			t.Errorf("said:\n%s", out)
		}
	})
}

// TestWhatHasLinesOfItsOwnIsNotSaidTwice: the connections are said by those who make them.
func TestWhatHasLinesOfItsOwnIsNotSaidTwice(t *testing.T) {
	inLab(t, func(l *lab) {
		out := l.logged()
		l.register(generate, 1)
		for _, link := range []*stats.ConnState{&l.f.Stats.NATS, &l.f.Stats.Etcd} {
			link.SetConnected(false)
		}
		l.pass(time.Minute)
		l.within(1, "connection:etcd", true)
		if n := out.Count("problem=connection"); n > 0 {
			t.Errorf("%d lines of connections:\n%s", n, out)
		}
	})
	for id := range ownLines {
		found := false
		for _, r := range programRules {
			found = found || r.kind == id
		}
		if !found {
			t.Errorf("no rule is %q", id)
		}
	}
}

// telling is a teller with problems that the test makes.
type telling struct {
	teller
	g   Glance
	out *testutil.Log
}

func newTelling() *telling {
	log, out := testutil.NewLog()
	return &telling{teller: teller{log: log}, g: Glance{now: 1}, out: out}
}

// second is a look a second after the last, at which these are raised.
func (l *telling) second(ids ...string) {
	l.g.now += span(time.Second)
	l.g.problems = nil
	for i, id := range ids {
		severity := info
		if i == len(ids)-1 {
			severity = bad
		}
		l.g.problems = append(l.g.problems, problem{id: id, kind: kindOf(id), severity: severity, since: l.g.now,
			say: func(g *Glance, p *problem) words { return words{title: "17\u00a0% of " + p.id, detail: "x"} }})
	}
	l.tell(&l.g)
}

func TestAProblemThatComesAndGoesDoesNotFloodTheLog(t *testing.T) {
	l := newTelling()
	for range 300 { // ten minutes
		l.second("full:a/b")
		l.second()
	}
	if raised, over := l.out.Count(`"Problem: 17 % of full:a/b"`), l.out.Count(`"Problem withdrawn: 17 % of full:a/b"`); raised != 10 || over != 10 {
		t.Errorf("raised %d times and over %d, want once a minute:\n%s", raised, over, l.out)
	}
	if n := l.out.Count("times=30"); n != 9 {
		t.Errorf("%d lines say how often it came in a minute, want nine:\n%s", n, l.out)
	}
	l.second("full:a/b") // the last line was a minute ago
	before := l.out.Count("\n")
	for range 90 {
		l.second("full:a/b")
	}
	if n := l.out.Count("\n") - before; n > 1 {
		t.Errorf("%d lines of one that stays", n)
	}
}

func TestWhatCameWithoutALineIsCounted(t *testing.T) {
	l := newTelling()
	l.second("full:a/b")
	l.second()
	l.second("full:a/b")
	for range 60 {
		l.second()
	}
	if l.out.Count("Problem came and went: 17 % of full:a/b\" problem=full:a/b times=1\n") != 1 || l.out.Count("\n") != 3 {
		t.Errorf("said:\n%s", l.out)
	}
	if len(l.known) > 0 {
		t.Errorf("kept: %v", l.known)
	}
}

// TestManyProblemsAtOnceAreSaidLittleByLittle, the most serious first.
func TestManyProblemsAtOnceAreSaidLittleByLittle(t *testing.T) {
	l := newTelling()
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprintf("silent:c%02d/e", i))
	}
	for minute, want := range []int{20, 40, 50, 50} {
		for range 60 {
			l.second(ids...)
		}
		if n := l.out.Count(`"Problem: `); n != want {
			t.Errorf("%d are said after minute %d, want %d", n, minute+1, want)
		}
	}
	first, _, _ := strings.Cut(l.out.String(), "\n")
	if !strings.Contains(first, "level=WARN") || !strings.Contains(first, "c49/e") {
		t.Errorf("the first line is not of the most serious: %s", first)
	}
	if n := l.out.Count("More problems are raised than are said in a minute"); n != 2 {
		t.Errorf("that some are left out is said %d times, want twice", n)
	}
	for range 61 {
		l.second()
	}
	if n := l.out.Count("Problem withdrawn: "); n != 50 || len(l.known) > 0 {
		t.Errorf("%d are over, want 50; %d are kept", n, len(l.known))
	}
}

func TestALongDetailIsLeftOutOfTheLog(t *testing.T) {
	l := newTelling()
	l.second()
	for _, length := range []int{400, 401} {
		p := problem{id: fmt.Sprintf("full:%d", length)}
		l.say(&l.g, said{&p, words{title: "x", detail: strings.Repeat("y", length)}})
	}
	if n := l.out.Count("detail="); n != 1 || l.out.Count("problem=full:400 detail=yyyy") != 1 {
		t.Errorf("%d lines have a detail, want that of 400 bytes:\n%s", n, l.out)
	}
}
