package dynlog

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A handler is never changed once it is in use: With, WithGroup and Target
// make copies, which share only the output.
type handler struct {
	out    io.Writer // safe for concurrent use
	filter filter
	zone   *time.Location
	jsonl  bool
	color  bool

	target string
	min    slog.Level // the filter's level for target, so that Enabled is one comparison
	prefix string     // open groups, each with its dot
	fields []byte     // the fields given to With, already formatted
}

// lockedWriter makes a writer safe for concurrent use.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(line)
}

func (h *handler) withTarget(target string) *handler {
	c := *h
	c.target = target
	c.min = h.filter.min(target)
	return &c
}

// Enabled reports whether DYN_LOG enables the level for the handler's target.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.min
}

// Handle writes the record as one line. It formats the line before the writer takes its lock,
// because the method that formats a value may log, too.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	// An error could only be logged, so it is ignored. slog.Logger ignores the result of Handle
	// for the same reason.
	_, _ = h.out.Write(h.line(r))
	return nil
}

// line formats the record.
func (h *handler) line(r slog.Record) []byte {
	b := make([]byte, 0, 256)
	if h.jsonl {
		b = h.appendObject(b, r)
	} else {
		b = h.appendLine(b, r)
	}
	return append(b, '\n')
}

// notice returns the line that reports missing lines, whatever the filter is.
func (h *handler) notice(lines uint64) []byte {
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "Lines of the log are missing here: they could not be written, or not fast enough", 0)
	r.AddAttrs(slog.Uint64("lines", lines))
	return h.line(r)
}

// WithAttrs returns a handler whose records carry the attributes as well.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	// Without Clip two children of one parent would append their fields to the same spare
	// capacity.
	c.fields = slices.Clip(h.fields)
	for _, a := range attrs {
		c.fields = h.appendAttr(c.fields, h.prefix, a)
	}
	return &c
}

// WithGroup returns a handler that puts name and a dot before later keys.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

// appendFields appends the fields of With, then those of the record.
func (h *handler) appendFields(b []byte, r slog.Record) []byte {
	b = append(b, h.fields...)
	r.Attrs(func(a slog.Attr) bool {
		b = h.appendAttr(b, h.prefix, a)
		return true
	})
	return b
}

// appendAttr follows the rules of slog.Handler: an empty attribute and an empty group are
// omitted, and a group without a name is inlined.
func (h *handler) appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	a.Value = a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
		return b
	case a.Value.Kind() != slog.KindGroup && h.jsonl:
		return h.appendMember(b, prefix+a.Key, a.Value)
	case a.Value.Kind() != slog.KindGroup:
		return h.appendField(b, prefix+a.Key, a.Value)
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, member := range a.Value.Group() {
		b = h.appendAttr(b, prefix, member)
	}
	return b
}

// appendTime always appends six digits of a second. In UTC the zone is Z. A local zone is written
// with its offset even if that is zero, as chrono's %:z does.
func (h *handler) appendTime(b []byte, t time.Time) []byte {
	if h.zone == time.UTC {
		return t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	}
	return t.In(h.zone).AppendFormat(b, "2006-01-02T15:04:05.000000-07:00")
}
