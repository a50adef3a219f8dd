// Command metrics shows how full the workers of an NVIDIA Dynamo fleet are and how
// well their KV caches are hit, for Prometheus: on /metrics, or pushed to a
// Pushgateway. It takes the place of Dynamo's own metrics component.
//
//	metrics --namespace dynamo --component backend --endpoint generate
//
// It exits with 0 after SIGINT or SIGTERM, with 1 if what it needs is refused, and with 2
// if something is wrong with its flags, the files that they name, or its environment.
package main

import (
	"os"
	"runtime/debug"

	"dynamo-metrics/internal/app"
	"dynamo-metrics/internal/cli"
)

// collectAt is how much garbage there may be beside what is in use, in per cent, unless
// GOGC says otherwise. Go's own 100 takes 200 MB for ten thousand workers under all the
// events that there can be.
const gcPercent = 75

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(app.Main(cli.Signals(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
