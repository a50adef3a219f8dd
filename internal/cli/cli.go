// Package cli is what the programs' command lines have in common: a kingpin
// application that never exits by itself, and values whose errors name the flag,
// what was given and what is allowed.
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

// Version is the version of all programs.
const Version = "0.1.0"

// App is a kingpin application that returns where kingpin would exit.
type App struct {
	*kingpin.Application
	Subcommands []string // what the first argument may be, where it is no flag, beside help and version
	stdout      io.Writer
	output      bytes.Buffer // help or version: kingpin panics where help cannot be written
	ended       bool
	isSet       map[string]bool
}

// New makes an application that prints help and version to stdout.
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

// NATSTLSFlags adds the flags that name the files for TLS with NATS. The values before are the
// defaults.
func (a *App) NATSTLSFlags(ca, cert, key *string) {
	a.Flag("nats-tls-ca", "File of the authorities that sign the NATS servers' certificates; the system's without it (NATS_TLS_CA_CERT_PATH).").
		Default(*ca).PlaceHolder("FILE").StringVar(ca)
	a.Flag("nats-tls-cert", "File of the certificate that NATS knows us by; needs --nats-tls-key, too (NATS_TLS_CLIENT_CERT_PATH).").
		Default(*cert).PlaceHolder("FILE").StringVar(cert)
	a.Flag("nats-tls-key", "File of that certificate's key (NATS_TLS_CLIENT_KEY_PATH).").
		Default(*key).PlaceHolder("FILE").StringVar(key)
}

// Parse reads the command line. It reports true if help or version was asked for, so
// that there is nothing left to do; then the error is that it could not be printed.
func (a *App) Parse(args []string) (ended bool, err error) {
	args = joinNegative(helpToFlag(args))
	a.isSet = make(map[string]bool)
	if context, _ := a.ParseContext(args); context != nil { // Parse says what is wrong
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

// Given reports whether a flag is on the command line that was parsed. One that is switched
// off there (--no-push) is not.
func (a *App) IsSet(flag string) bool { return a.isSet[flag] }

// flagOf has the first word help, or version, say what the flag of that name does. Help about
// either is that of the program.
func helpToFlag(args []string) []string {
	if len(args) == 2 && args[0] == "help" && (args[1] == "help" || args[1] == "version") {
		args = args[:1]
	}
	if len(args) > 0 && (args[0] == "help" || args[0] == "version") {
		return append(slices.Clone(args[1:]), "--"+args[0])
	}
	return args
}

// suggest adds to an error about a name that is not known which one may be meant.
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

// Print writes text to standard output, in one piece.
func Print(stdout io.Writer, text string) error {
	if _, err := io.WriteString(stdout, text); err != nil {
		return fmt.Errorf("print to standard output: %w", err)
	}
	return nil
}

// hide takes out of an error what may be a piece of a password: kingpin quotes
// arguments that it does not expect.
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
