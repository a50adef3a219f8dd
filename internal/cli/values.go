package cli

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kingpin/v2"
)

// FlagError returns the error for a flag with an invalid value.
func FlagError(flag, value, want string) error {
	return fmt.Errorf("--%s %q: want %s", flag, value, want)
}

// value is a kingpin.Value made from a function.
type value struct {
	set  func(string) error
	last string
}

func (v *value) Set(s string) error {
	v.last = s
	return v.set(s)
}

func (v *value) String() string { return v.last }

// Duration sets d from seconds ("2", "0.1") or a Go duration ("100ms") between least and most.
func Duration(flag string, d *time.Duration, least, most time.Duration) kingpin.Value {
	return &value{set: func(s string) error {
		got, err := time.ParseDuration(s)
		if seconds, numeric := strconv.ParseFloat(s, 64); numeric == nil {
			got, err = time.Duration(math.Round(seconds*1e9)), nil
			if !(seconds < math.MaxInt64/1e9) {
				got = -1
			}
		}
		if err != nil || got < least || got > most {
			return FlagError(flag, s, fmt.Sprintf("seconds (2, 0.1) or a duration (100ms), from %s to %s", least, most))
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
			return FlagError(flag, s, fmt.Sprintf("a number from %d to %d", least, most))
		}
		*n = got
		return nil
	}}
}

// Name sets name from a text that is not empty and has none of the forbidden characters.
func Name(flag string, name *string, forbidden string) kingpin.Value {
	want := "a name that is not empty"
	if forbidden != "" {
		want += fmt.Sprintf(" and has none of %q in it", forbidden)
	}
	text := Text(flag, name)
	return &value{set: func(s string) error {
		if s == "" || strings.ContainsAny(s, forbidden) {
			return FlagError(flag, s, want)
		}
		return text.Set(s)
	}}
}

// Component sets name from the name of one Dynamo component or endpoint, which must not be a
// pattern. Several is the advice for selecting more than one, or "".
func Component(flag string, name *string, several string) kingpin.Value {
	want := `a name that is not empty, without spaces, "/", "*" and ">"`
	if several != "" {
		want += "; " + several
	}
	return &value{set: func(s string) error {
		if s == "" || strings.ContainsAny(s, "/*>") || strings.ContainsFunc(s, unicode.IsSpace) {
			return FlagError(flag, s, want)
		}
		return Text(flag, name).Set(s)
	}}
}

// Host sets host from an IPv4 or IPv6 address, or a host name, without scheme and port. Port is
// the flag that sets the port, or "".
func Host(flag string, host *string, port string) kingpin.Value {
	want := "an address or the name of a host, without scheme and port"
	if port != "" {
		want += ": --" + port + " sets that"
	}
	return &value{set: func(s string) error {
		_, err := netip.ParseAddr(strings.Trim(s, "[]"))
		if err != nil && (s == "" || strings.ContainsAny(s, `/\:?#@*[]`) || strings.ContainsFunc(s, unicode.IsSpace)) {
			return FlagError(flag, Redact(s), want)
		}
		return Text(flag, host).Set(s)
	}}
}

// Path sets path from the path of a file or directory.
func Path(flag string, path *string) kingpin.Value {
	return &value{set: func(s string) error {
		if s == "" {
			return FlagError(flag, s, "a path that is not empty")
		}
		*path = s
		return nil
	}}
}

// Address sets s from a text that is not empty. It may contain a password, so errors redact it.
func Address(flag string, s *string) kingpin.Value {
	return &value{set: func(given string) error {
		switch {
		case given == "":
			return FlagError(flag, given, "an address that is not empty")
		case !utf8.ValidString(given):
			return FlagError(flag, Redact(given), "UTF-8")
		}
		*s = given
		return nil
	}}
}

// Namespace sets name from a Dynamo namespace, which becomes tokens of NATS subjects and a part
// of etcd keys.
func Namespace(flag string, name *string) kingpin.Value {
	return &value{set: func(s string) error {
		if !isNamespace(s) {
			return FlagError(flag, s, `a name without spaces, "*", ">", "/" and empty parts between dots`)
		}
		*name = s
		return nil
	}}
}

// Namespaces sets names from a Dynamo namespace, or from a prefix of several and "*".
func Namespaces(flag string, names *string) kingpin.Value {
	return &value{set: func(s string) error {
		if !isNamespace(s) && s != "*" && !isNamespace(strings.TrimSuffix(s, "*")) {
			return FlagError(flag, s, `a name without spaces, ">", "/" and empty parts between dots, and "*" only at its end`)
		}
		*names = s
		return nil
	}}
}

func isNamespace(s string) bool {
	return s != "" && !strings.ContainsAny(s, " \t\r\n*>/") && !strings.Contains("."+s+".", "..") && utf8.ValidString(s)
}

// Text sets text from any valid UTF-8, which metrics and the web page can show.
func Text(flag string, text *string) kingpin.Value {
	return &value{set: func(s string) error {
		if !utf8.ValidString(s) {
			return FlagError(flag, s, "UTF-8")
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
		return FlagError(flag, s, "one of "+strings.Join(choices, ", "))
	}}
}

// OrDefault returns s, or the default if s is empty. It is for flags whose default is an
// environment variable.
func OrDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
