package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestRequirementsReportFlagsWithoutEffect(t *testing.T) {
	for args, want := range map[string]struct {
		warnings, err string
	}{
		"":                         {"", ""},
		"--new 1":                  {"", "--new: needs --switch"},
		"--newer":                  {"", "--newer: needs --switch"},
		"--no-newer":               {"", ""}, // a switched off flag needs nothing
		"--old 1":                  {"--old is ignored without --switch", ""},
		"--old 1 --older 2":        {"--old is ignored without --switch, --older is ignored without --switch", ""},
		"--old 1 --new 2":          {"--old is ignored without --switch", "--new: needs --switch"},
		"--switch --new 1 --old 2": {"", ""},
		"--no-switch --new 1":      {"", "--new: needs --switch"},
	} {
		a := New("prog", "A program.", new(bytes.Buffer))
		var on bool
		a.Flag("switch", "").BoolVar(&on)
		a.Flag("new", "").Default("of the environment").String()
		a.Flag("newer", "").Bool()
		a.Flag("old", "").Default("x").String()
		a.Flag("older", "").String()
		if _, err := a.Parse(strings.Fields(args)); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		warnings, err := a.CheckRequirements([]Requirement{
			{Flags: "old older", Met: on, Needs: "--switch", Original: true},
			{Flags: "new newer", Met: on, Needs: "--switch"},
		})
		slices.Sort(warnings)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if strings.Join(warnings, ", ") != want.warnings || got != want.err {
			t.Errorf("%s: got %q and %q, want %q and %q", args, warnings, got, want.warnings, want.err)
		}
	}
}
