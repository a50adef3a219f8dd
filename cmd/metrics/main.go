// Command metrics shows how full the workers of an NVIDIA Dynamo fleet are and how
// well their KV caches are hit, for Prometheus: on /metrics, or pushed to a
// Pushgateway. It takes the place of Dynamo's own metrics component.
//
//	metrics --namespace dynamo --component backend --endpoint generate
//
// It exits with 0 after SIGINT or SIGTERM, with 1 if it cannot go on, and with 2
// if a flag or an environment variable has a value that it must not have.
package main

import (
	"os"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/program"
)

func main() {
	os.Exit(program.Main(cli.Signals(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
