// Command metrics exports the load and the KV hit rate of the workers of an NVIDIA Dynamo fleet
// to Prometheus, on /metrics or through a Pushgateway. It replaces Dynamo's own metrics
// component.
//
//	metrics --namespace dynamo --component backend --endpoint generate
//
// It exits with 0 after SIGINT or SIGTERM, with 1 if something that it needs is refused, and with
// 2 if there is an error in its flags, the files that they name, or its environment.
package main

import (
	"os"
	"runtime/debug"

	"dynamo-metrics/internal/app"
	"dynamo-metrics/internal/cli"
)

// gcPercent is the default of GOGC. Go's own default of 100 takes 200 MB for ten thousand workers
// at the highest possible event rate.
const gcPercent = 75

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(app.Main(cli.Signals(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
