// Package testdata embeds the bytes that real workers, routers and frontends sent, by
// release. Tests of other packages send them again.
package testdata

import "embed"

// Captures are the files of all releases.
//
//go:embed */*.json */*.jsonl */*.prom */edge/*.json */*.txt *.json
var Captures embed.FS
