package dynlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/testutil"
)

// blockingWriter is a writer whose writes can block or fail.
type blockingWriter struct {
	stuck chan struct{} // each write receives from it; nil: writes do not block
	err   error         // the error of every write
	torn  int           // bytes that are written despite the error
	lines []string
}

func (p *blockingWriter) Write(line []byte) (int, error) {
	if p.stuck != nil {
		<-p.stuck
	}
	if p.err != nil {
		p.lines = append(p.lines, string(line[:p.torn]))
		return p.torn, p.err
	}
	p.lines = append(p.lines, string(line))
	return len(line), nil
}

// text returns what was written, without the times of the notices.
func (p *blockingWriter) text() string {
	var b strings.Builder
	for _, l := range p.lines {
		if at := strings.Index(l, " WARN"); at > 0 {
			l = l[at+1:]
		}
		b.WriteString(l)
	}
	return b.String()
}

// startOutput runs an Output to w in a bubble, and returns a logger with this environment.
func startOutput(t *testing.T, w io.Writer, env ...string) (*Output, *slog.Logger) {
	t.Helper()
	o := NewOutput(w)
	l := New(o, fakeEnv(env...), false, "metrics")
	go o.Run()
	return o, l
}

func TestOutputNeverBlocksLoggers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &blockingWriter{stuck: make(chan struct{})}
		o, l := startOutput(t, p)
		for i := range 5001 {
			o.Write(fmt.Appendf(nil, "line %d\n", i)) // would block forever
			if i == 0 {
				synctest.Wait() // Run is writing it
			}
		}
		if got := Dropped(l); got != 904 {
			t.Errorf("%d lines are left out, want 904: one is being written, 4096 wait", got)
		}
		for range 2048 { // half of the queue is not free yet
			p.stuck <- struct{}{}
			synctest.Wait()
		}
		o.Write([]byte("too early\n"))
		p.stuck <- struct{}{}
		synctest.Wait()
		o.Write([]byte("there is room\n"))
		close(p.stuck)
		o.Close(time.Second)
		var want strings.Builder
		for i := range 4097 {
			fmt.Fprintf(&want, "line %d\n", i)
		}
		want.WriteString("WARN metrics: Lines of the log are missing here: they could not be written, or not fast enough lines=905\nthere is room\n")
		testutil.Equal(t, "output", p.text(), want.String())
	})
}

func TestOutputQueueIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &blockingWriter{stuck: make(chan struct{})}
		o, l := startOutput(t, p)
		for range 10 {
			o.Write([]byte(strings.Repeat("x", 128<<10-1) + "\n"))
		}
		if got := Dropped(l); got != 2 {
			t.Errorf("%d lines of 128 KiB are left out, want 2 of 10", got)
		}
		close(p.stuck)
		synctest.Wait()
		o.Write([]byte(strings.Repeat("x", 1<<20) + "\n")) // never fits into the queue
		synctest.Wait()
		o.Write([]byte("small\n"))
		o.Close(time.Second)
		testutil.Equal(t, "ReplaceAll", strings.ReplaceAll(p.text(), "x", ""), strings.Repeat("\n", 8)+
			"WARN metrics: Lines of the log are missing here: they could not be written, or not fast enough lines=2\n"+
			"WARN metrics: Lines of the log are missing here: they could not be written, or not fast enough lines=1\nsmall\n")
	})
}

func TestOutputRetriesAfterWriteErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &blockingWriter{err: errors.New("no space left on device"), torn: 3}
		o, l := startOutput(t, p, "DYN_LOGGING_JSONL", "1")
		for range 3 {
			l.Info("lost")
		}
		synctest.Wait()
		if got := Dropped(l); got != 3 {
			t.Errorf("%d lines are left out, want 3", got)
		}
		p.err, p.lines = nil, nil
		l.Info("again")
		o.Close(time.Second)
		if len(p.lines) != 2 || !strings.HasPrefix(p.lines[0], "\n{") || // the last line was incomplete
			!strings.HasSuffix(p.lines[0], `"level":"WARN","target":"metrics","message":"Lines of the log are missing here: they could not be written, or not fast enough","lines":3}`+"\n") ||
			!strings.HasSuffix(p.lines[1], `"message":"again"}`+"\n") {
			t.Errorf("got %q", p.lines)
		}
	})
}

func TestOutputCloseDoesNotWaitForStuckWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &blockingWriter{stuck: make(chan struct{})}
		o, l := startOutput(t, p)
		l.Info("a line")
		synctest.Wait()
		start := time.Now()
		o.Close(time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("the end took %v, want 1s", took)
		}
		l.Info("after the end")
		close(p.stuck) // otherwise Run would leak
	})
}

func TestOutputCopiesLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(blockingWriter)
		o, _ := startOutput(t, p)
		line := []byte("first\n")
		o.Write(line)
		copy(line, "FIRST")
		o.Close(time.Second)
		testutil.Equal(t, "output", p.text(), "first\n")
	})
}

func TestDroppedIsZeroWithoutOutput(t *testing.T) {
	l, _ := newTestLogger(t, false)
	if got := Dropped(l) + Dropped(slog.New(slog.DiscardHandler)); got != 0 {
		t.Errorf("got %d", got)
	}
}
