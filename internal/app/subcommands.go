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

// printer is a first argument with which the program prints something that it carries,
// instead of serving. It is no command of kingpin's: those would change what the command
// line without one means.
type subcommand struct {
	name, help string
	// parse reads what follows the name, and says how to print.
	parse func(a *cli.App, args []string, stdout io.Writer) (run func() error, ended bool, err error)
}

var subcommands = []subcommand{
	{"dashboards", "Prints a dashboard for Grafana, or writes them to a directory; without either, lists them.", parseDashboards},
	{"rules", "Prints recording rules and alerts for Prometheus. Their thresholds are listed at the head.", parseRules},
	{"runbook", "Prints what to do about an alert, or about all of them.", parseRunbook},
}

// printerFor is the one that the command line begins with, and what follows its name; nil if it
// begins otherwise. "help rules" is "rules --help".
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

// printerNames are those that the command line may begin with.
func subcommandNames() (names []string) {
	for _, p := range subcommands {
		names = append(names, p.name)
	}
	return names
}

// printersHelp is what the help of the program says of them.
func subcommandsHelp() string {
	var b strings.Builder
	b.WriteString("\n\nOr, as the first argument (each has its own --help, or metrics help NAME):")
	for _, p := range subcommands {
		fmt.Fprintf(&b, "\n\nmetrics %s: %s", p.name, p.help)
	}
	return b.String()
}

// main is the life of the program as a printer.
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
	a.Flag("output", "Write to files in this directory, which is made if need be.").Short('o').PlaceHolder("DIR").StringVar(&dir)
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
	a.Flag("set", "Put another value in place of a threshold's default; may be repeated.").PlaceHolder("NAME=VALUE").StringsVar(&settings)
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

// say prints text.
func printText(stdout io.Writer, text string) func() error {
	return func() error { return cli.Print(stdout, text) }
}
