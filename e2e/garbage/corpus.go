// Package garbage has input that no correct client sends to the program, and the subjects
// and keys where the program would receive it. e2e/survival sends the corpus over every
// channel, and bench fuzz sends messages that are almost valid.
package garbage

import (
	"embed"
	"io/fs"
	"maps"
	"path"
	"slices"
)

//go:embed corpus
var corpus embed.FS

// Corpus returns messages none of which is valid, by file name.
func Corpus() map[string][]byte {
	all := make(map[string][]byte)
	for _, name := range files(corpus, "corpus/*") {
		all[path.Base(name)] = read(corpus, name)
	}
	return all
}

// files returns the names of the embedded files that match, sorted.
func files(tree fs.FS, pattern string) []string {
	names, err := fs.Glob(tree, pattern)
	if err != nil || len(names) == 0 {
		panic("no file is " + pattern)
	}
	return names
}

func read(tree fs.FS, name string) []byte {
	b, err := fs.ReadFile(tree, name)
	if err != nil {
		panic(err) // the file is embedded
	}
	return b
}

// smallCorpus returns the messages of the corpus that are no longer than real ones.
func smallCorpus() (all [][]byte) {
	messages := Corpus()
	for _, name := range slices.Sorted(maps.Keys(messages)) {
		if b := messages[name]; len(b) < 16<<10 {
			all = append(all, b)
		}
	}
	return all
}
