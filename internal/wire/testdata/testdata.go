// Package testdata is the bytes that real workers, routers and frontends sent, by
// release, for those who are to send them too.
package testdata

import "embed"

// Captures are the files of all releases.
//
//go:embed */*.json */*.jsonl */*.prom */edge/*.json */*.txt *.json
var Captures embed.FS
