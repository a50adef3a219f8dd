package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"dynamo-metrics/deploy"
	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/near"
)

// subcommand is a first argument that makes the program print something that it embeds, instead
// of serving. It is not a kingpin command, because a kingpin command would change the meaning of
// a command line without one.
type subcommand struct {
	name, help string
	// parse reads the arguments after the name, and returns the function that prints.
	parse func(a *cli.App, args []string, stdout io.Writer) (run func() error, ended bool, err error)
}

var subcommands = []subcommand{
	{"dashboards", "Prints a Grafana dashboard, or writes all to a directory; without arguments, lists them.", parseDashboards},
	{"rules", "Prints recording rules and alerts for Prometheus. The thresholds are listed at the top.", parseRules},
	{"runbook", "Prints what to do about an alert, or about all of them.", parseRunbook},
}

// findSubcommand returns the subcommand that the command line begins with, and the arguments
// after it, or nil if there is none. "help rules" means "rules --help".
func findSubcommand(args []string) (p *subcommand, rest []string) {
	var help []string
	if len(args) > 1 && args[0] == "help" {
		args, help = args[1:], []string{"--help"}
	}
	for i := range subcommands {
		if len(args) > 0 && args[0] == subcommands[i].name {
			return &subcommands[i], append(help, args[1:]...)
		}
	}
	return nil, nil
}

// subcommandNames returns the names of all subcommands.
func subcommandNames() (names []string) {
	for _, p := range subcommands {
		names = append(names, p.name)
	}
	return names
}

// subcommandsHelp returns the part of the program's help about subcommands.
func subcommandsHelp() string {
	var b strings.Builder
	b.WriteString("\n\nOr, as the first argument (each has its own --help, or metrics help NAME):")
	for _, p := range subcommands {
		fmt.Fprintf(&b, "\n\nmetrics %s: %s", p.name, p.help)
	}
	return b.String()
}

// run runs the subcommand and returns the exit code.
func (p *subcommand) run(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var run func() error
	return cli.Run("metrics", getenv, stderr,
		func() (ended bool, err error) {
			run, ended, err = p.parse(cli.New("metrics "+p.name, p.help, stdout), args, stdout)
			return ended, err
		},
		func(*slog.Logger) error { return run() })
}

func parseDashboards(a *cli.App, args []string, stdout io.Writer) (run func() error, ended bool, err error) {
	all := deploy.Dashboards()
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	var name, dir string
	a.Arg("name", "The dashboard: "+strings.Join(names, " or ")+".").StringVar(&name)
	a.Flag("output", "Write files to this directory, which is created if needed.").Short('o').PlaceHolder("DIR").StringVar(&dir)
	if ended, err = a.Parse(args); ended || err != nil {
		return nil, ended, err
	}
	chosen := all
	if name != "" {
		chosen = nil
		for _, d := range all {
			if d.Name == name {
				chosen = append(chosen, d)
			}
		}
		if chosen == nil {
			return nil, false, fmt.Errorf("%q: no such dashboard: %s", name, near.Suggestion(name, names))
		}
	}
	switch {
	case dir != "":
		return func() error { return writeDashboards(chosen, dir, stdout) }, false, nil
	case name != "":
		return printText(stdout, chosen[0].Text), false, nil
	}
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "%-10s %s\n", d.Name, d.For)
	}
	b.WriteString("\nmetrics dashboards fleet >fleet.json   # one of them\nmetrics dashboards --output DIR        # all of them\n")
	return printText(stdout, b.String()), false, nil
}

func writeDashboards(all []deploy.Dashboard, dir string, stdout io.Writer) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("write dashboards (--output): %w", err)
	}
	for _, d := range all {
		path := filepath.Join(dir, d.File)
		if err := os.WriteFile(path, []byte(d.Text), 0o666); err != nil {
			return fmt.Errorf("write dashboards (--output): %w", err)
		}
		if err := cli.Print(stdout, path+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func parseRules(a *cli.App, args []string, stdout io.Writer) (run func() error, ended bool, err error) {
	var settings []string
	a.Flag("set", "Replace the default of a threshold; may be repeated.").PlaceHolder("NAME=VALUE").StringsVar(&settings)
	if ended, err = a.Parse(args); ended || err != nil {
		return nil, ended, err
	}
	rules, err := deploy.RulesWith(settings)
	return printText(stdout, rules), false, err
}

func parseRunbook(a *cli.App, args []string, stdout io.Writer) (run func() error, ended bool, err error) {
	var alert string
	a.Arg("alert", "The alert, by its name.").StringVar(&alert)
	if ended, err = a.Parse(args); ended || err != nil {
		return nil, ended, err
	}
	text := deploy.Runbook()
	if alert != "" {
		text, err = deploy.Section(alert)
	}
	return printText(stdout, text), false, err
}

// printText returns a function that prints text.
func printText(stdout io.Writer, text string) func() error {
	return func() error { return cli.Print(stdout, text) }
}
