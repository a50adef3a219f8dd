package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsQuoteTextsOfTheProgram requires that the log lines and the texts of the web page that
// the docs quote are in the sources. In a quote, numbers, names with a slash and an ellipsis stand
// for anything.
func TestDocsQuoteTextsOfTheProgram(t *testing.T) {
	t.Parallel()
	sources := readTree(t, "../internal", func(path string) bool {
		return strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/web/page/")
	})
	sources += readTree(t, "../deploy/grafana", func(string) bool { return true })
	for _, heading := range find(docs(t), `(?m)^#+ .*$`) {
		sources += heading + "\n"
	}
	anything := regexp.MustCompile(`[0-9]+(?: (?:%|s|min|workers)(?: |$))?|\S*/\S*|…`)
	for _, path := range linkingDocs(t) {
		if path == "../CONTRIBUTING.md" || path == "../docs/design.md" { // these name identifiers, and quote no output
			continue
		}
		for _, quote := range quotes(string(readFile(t, path))) {
			for _, part := range anything.Split(quote, -1) {
				if part = strings.TrimSpace(part); !strings.Contains(sources, part) {
					t.Errorf("%s quotes %q: no source has %q", path, quote, part)
				}
			}
		}
	}
}

// TestDocsQuoteRecognizesQuotes shows which parts of a text count as quotes.
func TestDocsQuoteRecognizesQuotes(t *testing.T) {
	t.Parallel()
	const text = "`Problem: …` and `13 workers joined a/b`, \"No endpoints\\nfound\", `--flag`, `DYN_LOG`\n```sh\n\"code\"\n```\n<img alt=\"no\">"
	got := strings.Join(quotes(strings.ReplaceAll(text, `\n`, "\n")), "|")
	if want := "Problem: …|13 workers joined a/b|No endpoints found"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// quotes returns what a Markdown file quotes: text in quotation marks, and code that begins with a
// capital letter or a number and continues with small letters.
func quotes(text string) []string {
	text = regexp.MustCompile("(?s)```.*?```|<[a-z][^<]*>").ReplaceAllString(text, "")
	var all []string
	code := regexp.MustCompile("`([^`]*)`")
	for _, m := range code.FindAllStringSubmatch(text, -1) {
		if regexp.MustCompile(`^(?:[A-Z][a-z]|[0-9]+ [a-z]{3})`).MatchString(m[1]) {
			all = append(all, m[1])
		}
	}
	for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.Join(strings.Fields(m[1]), " "))
	}
	return all
}

// TestDocsNamePathsAndTestsThatExist checks the paths of the repository and the names of tests, in
// the docs and in the scripts. A name may be the beginning of several tests.
func TestDocsNamePathsAndTestsThatExist(t *testing.T) {
	t.Parallel()
	tests := readTree(t, "..", func(path string) bool { return strings.HasSuffix(path, "_test.go") })
	for _, path := range append(linkingDocs(t), "../.ci/run", "../.ci/nightly", "../.ci/nightly-kubernetes") {
		text := string(readFile(t, path))
		for _, name := range find(text, "(?:internal|cmd|e2e|deploy|bench|\\.ci)/[a-zA-Z0-9_./-]*[a-zA-Z0-9]") {
			if _, err := os.Stat(filepath.Join("..", name)); err != nil {
				t.Errorf("%s names %s: %v", path, name, err)
			}
		}
		for _, name := range find(text, `\bTest[A-Z]\w+`) {
			if !strings.Contains(tests, "\nfunc "+name) {
				t.Errorf("%s names %s: there is no such test", path, name)
			}
		}
	}
}

// TestScriptsRunTestsThatExist checks the patterns of go test -run in .ci: go test succeeds if no test
// matches.
func TestScriptsRunTestsThatExist(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, path := range []string{"../.ci/run", "../.ci/nightly", "../.ci/nightly-kubernetes"} {
		for _, m := range regexp.MustCompile(`-run ([A-Z]\w+) -v \./(\S+)`).FindAllStringSubmatch(string(readFile(t, path)), -1) {
			tests := readTree(t, filepath.Join("..", m[2]), func(path string) bool { return strings.HasSuffix(path, "_test.go") })
			if !regexp.MustCompile(`(?m)^func Test\w*` + strings.TrimPrefix(m[1], "Test")).MatchString(tests) {
				t.Errorf("%s: no test in %s matches %s", path, m[2], m[1])
			}
			checked++
		}
	}
	if checked != 4 {
		t.Errorf("checked %d patterns, want 4", checked)
	}
}

// readTree returns the text of all files below a directory whose paths are wanted.
func readTree(t *testing.T, root string, wanted func(path string) bool) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case entry.Type().IsRegular() && wanted(filepath.ToSlash(path)):
			all.Write(readFile(t, path))
			all.WriteByte('\n')
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
