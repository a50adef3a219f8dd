// Package testutil has what the tests of several packages need: comparisons, golden files,
// captured bytes, conditions to wait for, logs, and certificates. It starts no server, so that
// tests that need none do not link one. Package devstacktest starts NATS and etcd.
package testutil

import (
	"encoding/json"
	"flag"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"dynamo-metrics/internal/wire/testdata"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Update reports whether the test was run with -update, which rewrites golden files.
func Update() bool { return *update }

// Equal fails the test unless got is want. What names the value that is compared.
func Equal[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// NoError reports an error of the test if err is not nil.
func NoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("error: %v, want none", err)
	}
}

// Golden fails the test unless got is what the file testdata/name has, line by line. With
// -update it writes the file.
func Golden(t testing.TB, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", filepath.FromSlash(name))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := string(ReadFile(t, name))
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// ReadFile returns the bytes of a file of the package's testdata.
func ReadFile(t testing.TB, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", filepath.Join(name...)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Captured returns bytes that a Dynamo process sent. They are in a file of a release in
// internal/wire/testdata, and are returned without the newline at its end.
func Captured(t testing.TB, name ...string) []byte {
	t.Helper()
	b, err := testdata.Captures.ReadFile(path.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.TrimSuffix(string(b), "\n"))
}

// CapturedJSON decodes the JSON in such a file.
func CapturedJSON[T any](t testing.TB, name ...string) (v T) {
	t.Helper()
	if err := json.Unmarshal(Captured(t, name...), &v); err != nil {
		t.Fatalf("%s: %v", path.Join(name...), err)
	}
	return v
}
