package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// linkingDocs are the files whose links are checked.
func linkingDocs(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("docs has no files (%v)", err)
	}
	return append(paths, "../README.md", "../CONTRIBUTING.md", "../SECURITY.md", "../deploy/prometheus/runbook.md")
}

func TestDocsLinksResolve(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, path := range linkingDocs(t) {
		for _, m := range link.FindAllStringSubmatch(string(readFile(t, path)), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links %s: %v", path, m[1], err)
				continue
			}
			if anchor != "" && !anchors(string(readFile(t, target)))[anchor] {
				t.Errorf("%s links %s: %s has no such heading", path, m[1], target)
			}
		}
	}
}

func TestDocsPicturesExist(t *testing.T) {
	t.Parallel()
	source := regexp.MustCompile(`(?:src|srcset)="([^"]+)"`)
	const most = 200 << 10
	for _, m := range source.FindAllStringSubmatch(string(readFile(t, "../README.md")), -1) {
		if info, err := os.Stat(filepath.Join("..", m[1])); err != nil || info.Size() > most {
			t.Errorf("README.md shows %s: want a file of at most %d bytes (%v)", m[1], most, err)
		}
	}
}

func TestDocsDesignNamesEveryPackage(t *testing.T) {
	t.Parallel()
	_, table, _ := strings.Cut(string(readFile(t, "../docs/design.md")), "\n## Packages\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var want []string
	for _, parent := range []string{"cmd", "internal"} {
		entries, err := os.ReadDir(filepath.Join("..", parent))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			want = append(want, parent+"/"+entry.Name())
		}
	}
	got := find(table, `\b(?:cmd|internal)/[a-z_]+`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-repository +docs/design.md):\n%s", diff)
	}
}

// TestDocsDesignLevelsAreThoseOfImports requires that a package imports packages of lower levels only.
func TestDocsDesignLevelsAreThoseOfImports(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(string(readFile(t, "../docs/design.md")), "| level | packages |\n")
	levels := make(map[string]string)
	for _, row := range find(section, "(?m)^\\| [0-9] \\|.*") {
		for _, name := range find(row, "`[^`]+`") {
			levels[strings.TrimPrefix(strings.Trim(name, "`"), "cmd/")] = row[2:3]
		}
	}
	if len(levels) < 13 {
		t.Fatalf("docs/design.md has the levels %v, want more packages", levels)
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "dynamo-metrics/internal/...", "dynamo-metrics/cmd/metrics").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		names := strings.Fields(line)
		importer := levels[filepath.Base(names[0])]
		for _, name := range names[1:] {
			if level := levels[filepath.Base(name)]; strings.HasPrefix(name, "dynamo-metrics/internal/") && importer != "" && level != "" && level <= importer {
				t.Errorf("docs/design.md: %s of level %s imports %s of level %s", names[0], importer, name, level)
			}
		}
	}
}

// anchors returns the anchors that GitHub gives the headings of a Markdown file.
func anchors(text string) map[string]bool {
	found := make(map[string]bool)
	for _, heading := range find(text, `(?m)^#+ .*$`) {
		_, title, _ := strings.Cut(heading, " ")
		title = regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(title), "")
		found[strings.ReplaceAll(title, " ", "-")] = true
	}
	return found
}

func TestDocsREADMEIsShortAndLinksEveryFile(t *testing.T) {
	t.Parallel()
	readme := string(readFile(t, "../README.md"))
	const most = 150
	if lines := strings.Count(readme, "\n"); lines > most {
		t.Errorf("README.md has %d lines, want at most %d", lines, most)
	}
	_, table, found := strings.Cut(readme, "\n## Documentation\n")
	if !found {
		t.Fatal("README.md has no section Documentation")
	}
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, "../SECURITY.md", "../CONTRIBUTING.md", "../CHANGELOG.md") {
		if link := "](" + filepath.ToSlash(strings.TrimPrefix(path, "../")) + ")"; !strings.Contains(table, link) {
			t.Errorf("the table of README.md does not link %s", path)
		}
	}
}

// TestDocsAreWrittenInOneForm requires of each file a title, one sentence that says what it is
// for, and outside of tables and code one sentence per line.
func TestDocsAreWrittenInOneForm(t *testing.T) {
	t.Parallel()
	beginning := regexp.MustCompile(`^# .+\n\nThis file [^\n]+\.\n\n`)
	code := regexp.MustCompile("(?s)```.*?```")
	item := regexp.MustCompile(`^ *(?:-|[0-9]+\.) (?:\*\*[^*]*\*\*)?`)
	two := regexp.MustCompile("[a-z0-9)`*][.?!] [A-Z`]")
	for _, path := range linkingDocs(t) {
		if path == "../deploy/prometheus/runbook.md" { // it is wrapped for terminals
			continue
		}
		text := string(readFile(t, path))
		if path != "../README.md" && !beginning.MatchString(text) {
			t.Errorf("%s does not begin with a title and one sentence that says what the file is for", path)
		}
		for line := range strings.Lines(code.ReplaceAllString(text, "")) {
			line = item.ReplaceAllString(line, "")
			if !strings.HasPrefix(line, "|") && two.MatchString(line) {
				t.Errorf("%s: more than one sentence in the line: %s", path, line)
			}
		}
	}
}

// unwanted matches words that the code and the docs had for things that have a usual name. The
// brackets keep this file out of what a search for these words finds.
var unwanted = regexp.MustCompile(`(?i)\b(sea[t]s?|strange[r]s?|roste[r]|tall[y]|glanc[e]|editio[n]|scribble[r]|leaflet[s]|hopeles[s]|farewel[l])\b`)

func TestDocsUseTheUsualWords(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case filepath.Ext(path) != ".md" || path == filepath.Join("..", "CHANGELOG.md"):
			return nil
		}
		text := string(readFile(t, path))
		for _, word := range unwanted.FindAllString(text, -1) {
			t.Errorf("%s has the word %q", path, word)
		}
		for _, before := range regexp.MustCompile(`(\w+) to [01]\.[0-9]`).FindAllStringSubmatch(text, -1) {
			if !strings.EqualFold(before[1], "up") {
				t.Errorf("%s: %q: want \"up to\", or a dash", path, before[0])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
