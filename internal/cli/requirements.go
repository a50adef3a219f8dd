package cli

import (
	"errors"
	"strings"
)

// Need is what some flags need, so that they do anything.
type Requirement struct {
	Flags string // their names, between spaces
	Met   bool
	Needs string // what it is, in words
	// Originals are flags of the original's: they are ignored then, and a warning says so, since
	// the scripts that have them must start.
	Original bool
}

// Unmet looks for flags on the command line that do nothing without another. The first of ours
// is an error. What the environment says is none: other programs read it, too.
func (a *App) CheckRequirements(needs []Requirement) (warnings []string, err error) {
	for _, n := range needs {
		for flag := range strings.FieldsSeq(n.Flags) {
			switch {
			case n.Met || !a.IsSet(flag):
			case n.Original:
				warnings = append(warnings, "--"+flag+" is ignored without "+n.Needs)
			case err == nil:
				err = errors.New("--" + flag + ": needs " + n.Needs)
			}
		}
	}
	return warnings, err
}
