//go:build race

package e2e

// buildFlags are the flags for building the programs, which are those of the test itself.
var buildFlags = []string{"-race"}
