// Package dynlog writes log/slog records as the original's lines, those of
// Rust's tracing-subscriber in Dynamo's configuration:
//
//	2025-02-26T18:45:05.467026Z  INFO metrics: message key=value group.key="two words"
//
// The environment decides as it does for every Dynamo program, where a switch
// is on for 1, true, on or yes in any case:
//
//   - DYN_LOG says what is logged: a level, or a list like
//     info,metrics=debug,nats=error. Empty means info.
//   - DYN_LOGGING_CONFIG_PATH names a file of such settings.
//   - DYN_LOGGING_JSONL writes one JSON object a line, with the keys time,
//     level, target and message in this order, then the fields. Groups are
//     dotted ("group.key"), durations and times are strings, and so are the
//     numbers JSON cannot write ("NaN", "+Inf"). A field that has the name of
//     one of the four keys becomes "fields.<name>".
//   - DYN_LOG_USE_LOCAL_TZ writes local time with its offset instead of UTC.
//   - DYN_SDK_DISABLE_ANSI_LOGGING turns colours off.
//
// A record is always exactly one line and one Write, whatever its message and
// fields contain: what comes from the network can forge neither a second line
// nor a terminal command.
package dynlog

import (
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// LevelTrace is the level of TRACE lines, which slog has no name for.
const LevelTrace = slog.LevelDebug - 4

// New returns a logger that writes to w as the environment says. Color asks
// for colours; the environment can refuse them. DefaultTarget is the target of
// every record whose logger was not made by [Target]. What cannot be understood of
// DYN_LOG is the first that is logged. Who logs waits for w, unless it is an [Output].
func New(w io.Writer, getenv func(string) string, color bool, defaultTarget string) *slog.Logger {
	on := func(name string) bool {
		return slices.Contains([]string{"1", "true", "on", "yes"}, strings.ToLower(getenv(name)))
	}
	own := ownTargets
	if !slices.Contains(own, defaultTarget) {
		own = append(slices.Clone(own), defaultTarget)
	}
	filter, wrong := readFilter(getenv, systemSettingsFile, own)
	h := &handler{out: &lockedWriter{w: w}, filter: filter, zone: time.UTC}
	h.jsonl = on("DYN_LOGGING_JSONL")
	h.color = color && !on("DYN_SDK_DISABLE_ANSI_LOGGING")
	if on("DYN_LOG_USE_LOCAL_TZ") {
		h.zone = time.Local
	}
	h = h.withTarget(defaultTarget)
	if o, ok := w.(*Output); ok {
		h.out = o
		o.setNotice(h.notice)
	}
	l := slog.New(h)
	for _, w := range wrong {
		l.Warn(w)
	}
	return l
}

// LeftOut is the number of lines that the [Output] of a logger has left out so far; 0
// if it has none.
func Dropped(l *slog.Logger) uint64 {
	if h, ours := l.Handler().(*handler); ours {
		if o, ok := h.out.(*Output); ok {
			return o.Dropped()
		}
	}
	return 0
}

// Target returns a logger like l whose records have the given target: the name
// before the message, and what DYN_LOG's directives select by. Fields and
// groups of l stay. If l was not made by [New], target becomes a field.
func Target(l *slog.Logger, target string) *slog.Logger {
	h, ours := l.Handler().(*handler)
	if !ours {
		return l.With("target", target)
	}
	return slog.New(h.withTarget(target))
}

// Terminal reports whether f is a terminal, so that colours make sense.
func Terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
