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
	"context"
	"os"
	"os/signal"
	"syscall"

	"dynamo-metrics/internal/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(program.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
