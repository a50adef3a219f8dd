// Package cli is what the programs' command lines have in common: a kingpin
// application that never exits by itself, and values whose errors name the flag,
// what was given and what is allowed.
package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kingpin/v2"
)

// Version is the version of all programs.
const Version = "0.1.0"

// App is a kingpin application that returns where kingpin would exit.
type App struct {
	*kingpin.Application
	stdout io.Writer
	text   bytes.Buffer // help or version: kingpin panics where help cannot be written
	ended  bool
}

// New makes an application that prints help and version to stdout.
func New(name, help string, stdout io.Writer) *App {
	a := &App{Application: kingpin.New(name, help), stdout: stdout}
	a.UsageWriter(&a.text)
	a.ErrorWriter(&a.text)
	a.Terminate(func(int) { a.ended = true })
	a.Flag("version", "Show the version and exit.").PreAction(func(*kingpin.ParseContext) error {
		fmt.Fprintln(&a.text, name+" "+Version)
		a.ended = true
		return nil
	}).Bool()
	return a
}

// Parse reads the command line. It reports true if help or version was asked for, so
// that there is nothing left to do; then the error is that it could not be printed.
func (a *App) Parse(args []string) (ended bool, err error) {
	_, err = a.Application.Parse(joinNegative(args))
	if a.ended {
		return true, Print(a.stdout, a.text.String())
	}
	return false, hide(err, args)
}

// Print writes text to standard output, in one piece.
func Print(stdout io.Writer, text string) error {
	if _, err := io.WriteString(stdout, text); err != nil {
		return fmt.Errorf("print to standard output: %w", err)
	}
	return nil
}

// hide takes out of an error what may be a piece of a password: kingpin quotes
// arguments that it does not expect.
func hide(err error, args []string) error {
	if err == nil || !strings.Contains(err.Error(), "@") {
		return err
	}
	text := err.Error()
	for _, arg := range args {
		text = strings.ReplaceAll(text, arg, Redact(arg))
	}
	return errors.New(text)
}

// joinNegative writes "--flag -1" as "--flag=-1": kingpin takes -1 for a flag, and
// would say that the value is missing instead of what is wrong with it.
func joinNegative(args []string) []string {
	var joined []string
	for _, arg := range args {
		last := len(joined) - 1
		if len(arg) > 1 && arg[0] == '-' && arg[1] >= '0' && arg[1] <= '9' && last >= 0 && strings.HasPrefix(joined[last], "--") {
			joined[last] += "=" + arg
		} else {
			joined = append(joined, arg)
		}
	}
	return joined
}

// Error says that a flag has a value that it must not have.
func Error(flag, value, want string) error {
	return fmt.Errorf("--%s %q: want %s", flag, value, want)
}

// value is a kingpin.Value made of a function.
type value struct {
	set  func(string) error
	last string
}

func (v *value) Set(s string) error {
	v.last = s
	return v.set(s)
}

func (v *value) String() string { return v.last }

// Duration sets d from seconds ("2", "0.1") or a Go duration ("100ms"), at least least.
func Duration(flag string, d *time.Duration, least time.Duration) kingpin.Value {
	return duration(flag, d, least, math.MaxInt64, fmt.Sprintf("at least %s", least))
}

// DurationUpTo is Duration with a largest value, too.
func DurationUpTo(flag string, d *time.Duration, least, most time.Duration) kingpin.Value {
	return duration(flag, d, least, most, fmt.Sprintf("from %s to %s", least, most))
}

func duration(flag string, d *time.Duration, least, most time.Duration, bounds string) kingpin.Value {
	return &value{set: func(s string) error {
		got, err := time.ParseDuration(s)
		if seconds, numeric := strconv.ParseFloat(s, 64); numeric == nil {
			got, err = time.Duration(math.Round(seconds*1e9)), nil
			if !(seconds < math.MaxInt64/1e9) {
				got = -1
			}
		}
		if err != nil || got < least || got > most {
			return Error(flag, s, "seconds (2, 0.1) or a duration (100ms), "+bounds)
		}
		*d = got
		return nil
	}}
}

// Number sets n from a decimal number between least and most.
func Number(flag string, n *int, least, most int) kingpin.Value {
	return &value{set: func(s string) error {
		got, err := strconv.Atoi(s)
		if err != nil || got < least || got > most {
			return Error(flag, s, fmt.Sprintf("a number from %d to %d", least, most))
		}
		*n = got
		return nil
	}}
}

// Name sets name from a text that is not empty and holds none of the forbidden characters.
func Name(flag string, name *string, forbidden string) kingpin.Value {
	want := "a name that is not empty"
	if forbidden != "" {
		want += fmt.Sprintf(" and has none of %q in it", forbidden)
	}
	text := Text(flag, name)
	return &value{set: func(s string) error {
		if s == "" || strings.ContainsAny(s, forbidden) {
			return Error(flag, s, want)
		}
		return text.Set(s)
	}}
}

// Path sets path from one of a file or directory.
func Path(flag string, path *string) kingpin.Value {
	return &value{set: func(s string) error {
		if s == "" {
			return Error(flag, s, "a path that is not empty")
		}
		*path = s
		return nil
	}}
}

// Address sets s from a text that is not empty. It may hold a password, which errors
// do not show.
func Address(flag string, s *string) kingpin.Value {
	return &value{set: func(given string) error {
		switch {
		case given == "":
			return Error(flag, given, "an address that is not empty")
		case !utf8.ValidString(given):
			return Error(flag, Redact(given), "UTF-8")
		}
		*s = given
		return nil
	}}
}

// Redact hides who is to get in, and how, in what may be the URL of a server, a comma
// list of such, or none at all: whatever stands before an @, but for a scheme.
func Redact(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	scheme, _, found := strings.Cut(s[:at], "://")
	if !found || strings.ContainsFunc(scheme, func(r rune) bool { return r < 'a' || r > 'z' }) {
		return "***" + s[at:]
	}
	return scheme + "://***" + s[at:]
}

// Namespace sets name from a Dynamo namespace: it becomes tokens of NATS subjects
// and a part of etcd keys.
func Namespace(flag string, name *string) kingpin.Value {
	return &value{set: func(s string) error {
		if !isNamespace(s) {
			return Error(flag, s, `a name without spaces, "*", ">", "/" and empty parts between dots`)
		}
		*name = s
		return nil
	}}
}

// Namespaces sets names from a Dynamo namespace, or from what several begin with and "*".
func Namespaces(flag string, names *string) kingpin.Value {
	return &value{set: func(s string) error {
		if !isNamespace(s) && s != "*" && !isNamespace(strings.TrimSuffix(s, "*")) {
			return Error(flag, s, `a name without spaces, ">", "/" and empty parts between dots, and "*" only at its end`)
		}
		*names = s
		return nil
	}}
}

func isNamespace(s string) bool {
	return s != "" && !strings.ContainsAny(s, " \t\r\n*>/") && !strings.Contains("."+s+".", "..") && utf8.ValidString(s)
}

// Text sets text from anything that a page can show.
func Text(flag string, text *string) kingpin.Value {
	return &value{set: func(s string) error {
		if !utf8.ValidString(s) {
			return Error(flag, s, "UTF-8")
		}
		*text = s
		return nil
	}}
}

// OneOf sets choice from one of the choices.
func OneOf(flag string, choice *string, choices ...string) kingpin.Value {
	return &value{set: func(s string) error {
		for _, c := range choices {
			if s == c {
				*choice = s
				return nil
			}
		}
		return Error(flag, s, "one of "+strings.Join(choices, ", "))
	}}
}

// Or is s, or otherwise where s is empty: the default of a flag that has an
// environment variable.
func Or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
