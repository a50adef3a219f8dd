package cli

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestDurationAcceptsSecondsAndDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"2": 2 * time.Second, "0.1": 100 * time.Millisecond, "100ms": 100 * time.Millisecond,
		"1e-2": 10 * time.Millisecond, "1m30s": 90 * time.Second, "10ms": 10 * time.Millisecond,
	} {
		var got time.Duration
		if err := Duration("every", &got, 10*time.Millisecond, time.Hour).Set(in); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "9ms", "0", "-1", "-1s", "NaN", "Inf", "-Inf", "1e300", "99999999999999999999", "2 s"} {
		var got time.Duration
		err := Duration("every", &got, 10*time.Millisecond, time.Hour).Set(in)
		if err == nil || !strings.HasPrefix(err.Error(), `--every "`+in+`": want seconds`) || got != 0 {
			t.Errorf("%q: got %v, %v; want an error that names flag and value", in, got, err)
		}
	}
}

func TestDurationHasMaximum(t *testing.T) {
	var got time.Duration
	for in, want := range map[string]time.Duration{"0.1": 100 * time.Millisecond, "60": time.Minute, "1m": time.Minute} {
		if err := Duration("in", &got, 100*time.Millisecond, time.Minute).Set(in); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"99ms", "60.001", "1h", "Inf", ""} {
		want := `--in "` + in + `": want seconds (2, 0.1) or a duration (100ms), from 100ms to 1m0s`
		if err := Duration("in", &got, 100*time.Millisecond, time.Minute).Set(in); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func TestHostRejectsSchemeAndPort(t *testing.T) {
	var got string
	for _, in := range []string{"0.0.0.0", "::", "[::1]", "fe80::1%eth0", "localhost", "a-b.c_d.example", "größe.example"} {
		if err := Host("host", &got, "port").Set(in); err != nil || got != in {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", " ", "localhost:9091", "127.0.0.1:9091", "[::1]:9091", "[localhost]", "http://x", "x/y", "x\\y", "a b", "u@x", "*", "a?b", "a#b", "\xff"} {
		err := Host("host", &got, "port").Set(in)
		if err == nil || in != "\xff" && !strings.HasSuffix(err.Error(), "want an address or the name of a host, without scheme and port: --port sets that") {
			t.Errorf("%q: got %v", in, err)
		}
	}
	if err := Host("host", &got, "").Set("http://user:secret@h"); err == nil || err.Error() != `--host "http://***@h": want an address or the name of a host, without scheme and port` {
		t.Errorf("got %v", err)
	}
}

func TestComponentIsOneName(t *testing.T) {
	var got string
	for _, in := range []string{"backend", "VllmDecode-Worker_2", "load.metrics", "größe"} {
		if err := Component("component", &got, "").Set(in); err != nil || got != in {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "a/b", "dyn://a.b.c", "back*", "*", ">", "a b", "a\tb", "a\u00a0b"} {
		want := "--component " + strconv.Quote(in) + `: want a name that is not empty, without spaces, "/", "*" and ">"; leave it out`
		if err := Component("component", &got, "leave it out").Set(in); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func TestNumberIsBounded(t *testing.T) {
	var n int
	for _, in := range []string{"0", "65535"} {
		if err := Number("port", &n, 0, 65535).Set(in); err != nil {
			t.Error(err)
		}
	}
	for _, in := range []string{"-1", "65536", "1.5", "", "x"} {
		if err := Number("port", &n, 0, 65535).Set(in); err == nil {
			t.Errorf("%q: no error", in)
		}
	}
}

func TestNumberAcceptsNegativeValue(t *testing.T) {
	got := joinNegative([]string{"--a", "-1", "--b", "--c", "x", "-2", "-v", "-"})
	want := []string{"--a=-1", "--b", "--c", "x", "-2", "-v", "-"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseReturnsWhereKingpinWouldExit(t *testing.T) {
	for args, want := range map[string]struct {
		ended bool
		out   string
		err   string
	}{
		"--version":      {true, "prog " + Version + "\n", ""},
		"--help":         {true, "usage: prog", ""},
		"--count 3":      {false, "", ""},
		"--count 4":      {false, "", `--count "4": want a number from 0 to 3`},
		"--choice c":     {false, "", `--choice "c": want one of a, b`},
		"--name=":        {false, "", `--name "": want a name that is not empty and has none of "/" in it`},
		"--name a/b":     {false, "", `--name "a/b": want a name that is not empty and has none of "/" in it`},
		"--nothing":      {false, "", "unknown long flag '--nothing'"},
		"--cuont 3":      {false, "", "unknown long flag '--cuont': did you mean --count?"},
		"--cuont=3":      {false, "", "unknown long flag '--cuont': did you mean --count?"},
		"--hlep":         {false, "", "unknown long flag '--hlep': did you mean --help?"},
		"-x":             {false, "", "unknown short flag '-x'"},
		"-h":             {true, "usage: prog", ""},
		"help":           {true, "usage: prog", ""},
		"help --count 3": {true, "usage: prog", ""},
		"help help":      {true, "usage: prog", ""},
		"help version":   {true, "usage: prog", ""},
		"help x":         {false, "", "unexpected x"},
		"version":        {true, "prog " + Version + "\n", ""},
		"hepl":           {false, "", "unexpected hepl: did you mean help?"},
		"lsit":           {false, "", "unexpected lsit: did you mean list?"},
		"--count 1 list": {false, "", "unexpected list: want it as the first argument"},
		"--count 1 lsit": {false, "", "unexpected lsit"},
		"nothing":        {false, "", "unexpected nothing"},
		"--count":        {false, "", "expected argument for flag '--count'"},
		"--version x":    {true, "prog " + Version + "\n", ""},
		"--count 1 who":  {false, "", "unexpected who"},
	} {
		var out bytes.Buffer
		var n int
		var choice, name string
		a := New("prog", "A program.", &out)
		a.Subcommands = []string{"list"}
		a.Flag("count", "").SetValue(Number("count", &n, 0, 3))
		a.Flag("choice", "").SetValue(OneOf("choice", &choice, "a", "b"))
		a.Flag("name", "").SetValue(Name("name", &name, "/"))
		ended, err := a.Parse(strings.Fields(args))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if ended != want.ended || got != want.err || !strings.HasPrefix(out.String(), want.out) {
			t.Errorf("%s: ended %v, error %q, output %q; want %v, %q, %q", args, ended, got, out.String(), want.ended, want.err, want.out)
		}
	}
}

func TestParseNamesEmptyArgument(t *testing.T) {
	if _, err := New("prog", "A program.", new(bytes.Buffer)).Parse([]string{""}); err == nil || err.Error() != `unexpected ""` {
		t.Errorf("got %v", err)
	}
}

func TestAddressErrorsHidePassword(t *testing.T) {
	var got string
	if err := Address("server", &got).Set("nats://user:secret@h:1"); err != nil || got != "nats://user:secret@h:1" {
		t.Errorf("got %q, %v", got, err)
	}
	for in, want := range map[string]string{
		"":                           `--server "": want an address that is not empty`,
		"\xff":                       `--server "\xff": want UTF-8`,
		"nats://u:secret\xff@h:1":    `--server "nats://***@h:1": want UTF-8`,
		"nats://a,b://u:secret@\xff": `--server "nats://***@\xff": want UTF-8`,
	} {
		if err := Address("server", &got).Set(in); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func TestRedactHidesUserinfo(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"nats://h:1":                   "nats://h:1",
		"nats://secret@h:1":            "nats://***@h:1",
		"http://u:se@cret@h/p":         "http://***@h/p",
		"u:secret@h":                   "***@h",
		"u:sec://ret@h":                "***@h",
		"--push-url=http://u:secret@h": "***@h",
		"nats://a,nats://u:secret@b":   "nats://***@b",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestParseErrorsHidePassword(t *testing.T) {
	a := New("prog", "A program.", new(bytes.Buffer))
	var server string
	a.Flag("server", "").SetValue(Address("server", &server))
	_, err := a.Parse(strings.Fields("--server nats://user:my secret@h"))
	if want := "unexpected ***@h"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"2", "0.1", "100ms", "-1", "1e300", "NaN"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d := time.Duration(math.MinInt64)
		if err := Duration("x", &d, time.Second, time.Hour).Set(s); err == nil && (d < time.Second || d > time.Hour) {
			t.Errorf("%q became %v, which is not allowed", s, d)
		}
	})
}
