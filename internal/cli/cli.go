// Package cli has what the command lines of the programs share: a kingpin application that never
// exits the process, and flag values whose errors name the flag, the given value and the allowed
// values.
package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"dynamo-metrics/internal/near"

	"github.com/alecthomas/kingpin/v2"
)

// Version is the version of all programs of this module.
const Version = "0.1.0"

// App is a kingpin application that returns where kingpin would exit.
type App struct {
	*kingpin.Application
	Subcommands []string // subcommands besides help and version
	stdout      io.Writer
	output      bytes.Buffer // help or version text; kingpin panics if it cannot write it
	ended       bool
	isSet       map[string]bool
}

// New returns an application that prints help and version to stdout.
func New(name, help string, stdout io.Writer) *App {
	a := &App{Application: kingpin.New(name, help), stdout: stdout}
	a.UsageWriter(&a.output)
	a.ErrorWriter(&a.output)
	a.Terminate(func(int) { a.ended = true })
	a.HelpFlag.Short('h')
	a.Flag("version", "Show the version and exit.").PreAction(func(*kingpin.ParseContext) error {
		fmt.Fprintln(&a.output, name+" "+Version)
		a.ended = true
		return nil
	}).Bool()
	return a
}

// ServersFlag adds a flag for addresses of servers. The help shows the default without passwords.
func (a *App) ServersFlag(name, help, standard string, to *string) {
	a.Flag(name, help).Default(standard).PlaceHolder(Redact(standard)).SetValue(Address(name, to))
}

// NATSTLSFlags adds the flags for the TLS files of NATS. The current values are the defaults.
func (a *App) NATSTLSFlags(ca, cert, key *string) {
	a.Flag("nats-tls-ca", "CA file for the NATS servers' certificates; by default the system's CAs (NATS_TLS_CA_CERT_PATH).").
		Default(*ca).PlaceHolder("FILE").StringVar(ca)
	a.Flag("nats-tls-cert", "Client certificate file for NATS; needs --nats-tls-key (NATS_TLS_CLIENT_CERT_PATH).").
		Default(*cert).PlaceHolder("FILE").StringVar(cert)
	a.Flag("nats-tls-key", "Key file of that certificate (NATS_TLS_CLIENT_KEY_PATH).").
		Default(*key).PlaceHolder("FILE").StringVar(key)
}

// Parse reads the command line. It reports true if help or version was requested and is printed,
// so that there is nothing left to do. In this case an error means that the text could not be
// printed.
func (a *App) Parse(args []string) (ended bool, err error) {
	args = joinNegative(helpToFlag(args))
	a.isSet = make(map[string]bool)
	if context, _ := a.ParseContext(args); context != nil { // Parse returns the error
		for _, e := range context.Elements {
			if flag, is := e.Clause.(*kingpin.FlagClause); is && !(flag.Model().IsBoolFlag() && *e.Value == "false") {
				a.isSet[flag.Model().Name] = true
			}
		}
	}
	_, err = a.Application.Parse(args)
	if a.ended {
		return true, Print(a.stdout, a.output.String())
	}
	return false, redactError(a.suggest(err, args), args)
}

// IsSet reports whether a flag is on the parsed command line. A flag that is switched off there
// (--no-push) is not.
func (a *App) IsSet(flag string) bool { return a.isSet[flag] }

// helpToFlag rewrites a first argument help or version to the flag of that name. "help help" and
// "help version" mean the help of the program.
func helpToFlag(args []string) []string {
	if len(args) == 2 && args[0] == "help" && (args[1] == "help" || args[1] == "version") {
		args = args[:1]
	}
	if len(args) > 0 && (args[0] == "help" || args[0] == "version") {
		return append(slices.Clone(args[1:]), "--"+args[0])
	}
	return args
}

// suggest adds the most similar name to an error about an unknown flag or argument.
func (a *App) suggest(err error, args []string) error {
	if err == nil {
		return nil
	}
	if flag, unknown := strings.CutPrefix(err.Error(), "unknown long flag '--"); unknown {
		var names []string
		for _, f := range a.Model().Flags {
			names = append(names, f.Name)
		}
		if best := near.Nearest(strings.TrimSuffix(flag, "'"), names); best != "" {
			return fmt.Errorf("%w: did you mean --%s?", err, best)
		}
	}
	word, unexpected := strings.CutPrefix(err.Error(), "unexpected ")
	if unexpected && word == "" {
		return errors.New(`unexpected ""`)
	}
	best := near.Nearest(word, append(a.Subcommands, "help", "version"))
	switch {
	case !unexpected || best == "":
		return err
	case word == args[0]:
		return fmt.Errorf("%w: did you mean %s?", err, best)
	case word == best:
		return fmt.Errorf("%w: want it as the first argument", err)
	}
	return err
}

// Print writes text to standard output in one Write.
func Print(stdout io.Writer, text string) error {
	if _, err := io.WriteString(stdout, text); err != nil {
		return fmt.Errorf("print to standard output: %w", err)
	}
	return nil
}

// redactError removes possible passwords from an error, because kingpin quotes unexpected
// arguments.
func redactError(err error, args []string) error {
	if err == nil || !strings.Contains(err.Error(), "@") {
		return err
	}
	text := err.Error()
	for _, arg := range args {
		text = strings.ReplaceAll(text, arg, Redact(arg))
	}
	return errors.New(text)
}

// joinNegative rewrites "--flag -1" to "--flag=-1". Otherwise kingpin would read -1 as a flag, and
// report a missing value instead of an invalid one.
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

// Redact replaces the userinfo in a URL, or in a comma-separated list of URLs, by ***. It
// replaces everything before the last @ except a scheme, so that it also works for invalid URLs.
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
