package devstacktest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Promises fails the test unless SECURITY.md says, of something in its table of bounds, all
// of these.
func Promises(t testing.TB, of string, bounds ...string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "SECURITY.md")) // of a package in internal
	if err != nil {
		t.Fatal(err)
	}
	_, row, found := strings.Cut(string(text), "\n| "+of+" | ")
	row, _, _ = strings.Cut(row, "\n")
	for _, b := range bounds {
		if !found || !strings.Contains(row, b) {
			t.Errorf("SECURITY.md promises of %s: %q, want %q in it", of, row, b)
		}
	}
}
