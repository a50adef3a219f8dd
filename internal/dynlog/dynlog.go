// Package dynlog writes log/slog records in the format of the original, which is that of Rust's
// tracing-subscriber as Dynamo configures it:
//
//	2025-02-26T18:45:05.467026Z  INFO metrics: message key=value group.key="two words"
//
// The same environment variables apply as for every Dynamo program. A switch is on for 1, true, on
// or yes in any case:
//
//   - DYN_LOG sets what is logged: a level, or a list like info,metrics=debug,nats=error. The
//     default is info.
//   - DYN_LOGGING_CONFIG_PATH names a file of such settings.
//   - DYN_LOGGING_JSONL switches to one JSON object per line, with the keys time, level, target
//     and message in this order, then the fields. Groups are dotted ("group.key"). Durations and
//     times are strings, and so are numbers that JSON cannot represent ("NaN", "+Inf"). A field
//     with the name of one of the four keys becomes "fields.<name>".
//   - DYN_LOG_USE_LOCAL_TZ writes local time with its offset instead of UTC.
//   - DYN_SDK_DISABLE_ANSI_LOGGING turns colours off.
//
// A record is always exactly one line and one Write, whatever its message and fields contain:
// values from the network can forge neither a second line nor a terminal control sequence.
package dynlog

import (
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// LevelTrace is the level of TRACE lines, for which slog has no name.
const LevelTrace = slog.LevelDebug - 4

// New returns a logger that writes to w as the environment says. Color requests colours, which
// the environment can disable. DefaultTarget is the target of every record whose logger was not
// made by [Target]. The first lines logged are warnings about invalid parts of DYN_LOG. Logging
// blocks while w blocks, unless w is an [Output].
func New(w io.Writer, getenv func(string) string, color bool, defaultTarget string) *slog.Logger {
	on := func(name string) bool {
		return slices.Contains([]string{"1", "true", "on", "yes"}, strings.ToLower(getenv(name)))
	}
	own := ownTargets
	if !slices.Contains(own, defaultTarget) {
		own = append(slices.Clone(own), defaultTarget)
	}
	filter, warnings := readFilter(getenv, systemSettingsFile, own)
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
	for _, w := range warnings {
		l.Warn(w)
	}
	return l
}

// Dropped returns the number of lines that the [Output] of a logger has dropped so far, or 0 if
// it has none.
func Dropped(l *slog.Logger) uint64 {
	if h, ours := l.Handler().(*handler); ours {
		if o, ok := h.out.(*Output); ok {
			return o.Dropped()
		}
	}
	return 0
}

// Target returns a logger like l whose records have the given target. The target is the name
// before the message, and DYN_LOG's directives select records by it. The logger keeps the fields
// and groups of l. If l was not made by [New], target becomes a field.
func Target(l *slog.Logger, target string) *slog.Logger {
	h, ours := l.Handler().(*handler)
	if !ours {
		return l.With("target", target)
	}
	return slog.New(h.withTarget(target))
}

// Terminal reports whether f is a terminal, which can show colours.
func Terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
