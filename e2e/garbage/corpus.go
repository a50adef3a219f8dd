// Package garbage is what nobody should send to the program, and where it would come
// in: e2e/survival sends the corpus by every way there is, and bench fuzz what is almost
// right.
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

// Corpus is messages none of which is anything, by the files' names.
func Corpus() map[string][]byte {
	all := make(map[string][]byte)
	for _, name := range files(corpus, "corpus/*") {
		all[path.Base(name)] = read(corpus, name)
	}
	return all
}

// files are those of a built-in tree that match, sorted.
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
		panic(err) // it is built in
	}
	return b
}

// small are the messages of the corpus that are no longer than what workers send.
func smallCorpus() (all [][]byte) {
	messages := Corpus()
	for _, name := range slices.Sorted(maps.Keys(messages)) {
		if b := messages[name]; len(b) < 16<<10 {
			all = append(all, b)
		}
	}
	return all
}
