package cli

import (
	"errors"
	"strings"
)

// Requirement is what some flags need to have an effect.
type Requirement struct {
	Flags string // their names, separated by spaces
	Met   bool
	Needs string // the requirement as text
	// Original is set for flags of the original. If the requirement is not met they are ignored
	// with a warning, because existing scripts that set them must still start.
	Original bool
}

// CheckRequirements finds flags on the command line that have no effect. It returns warnings for
// flags of the original, and an error for the first other flag. Values from the environment are
// never an error, because other programs read the same variables.
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
