// Package kube tests deploy/kubernetes and deploy/Dockerfile: Helm lints and renders the
// chart, and the output is decoded into Kubernetes' own types. It is a separate module,
// so that the program's module does not need theirs.
//
//	go -C .ci/kube test .
//	go -C .ci/kube test . -update    # writes what the chart renders: read the difference
package kube

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	root      = "../.."
	chart     = root + "/deploy/kubernetes/dynamo-metrics"
	manifests = root + "/deploy/kubernetes/manifests/dynamo-metrics.yaml"
)

var (
	update = flag.Bool("update", false, "write the rendered charts that are committed")

	helm    string // the path of Helm
	metrics string // the path of metrics, built as in the image
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kube-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := prepare(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// prepare builds both programs. Go keeps Helm, whose build takes minutes, in its cache.
func prepare(dir string) error {
	out, err := exec.Command("go", "tool", "-n", "helm").Output()
	if err != nil {
		return fmt.Errorf("build helm: %w", explain(err))
	}
	helm = strings.TrimSpace(string(out))
	for _, name := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} { // without the plugins of the user who runs this
		os.Setenv(name, filepath.Join(dir, name))
	}
	metrics = filepath.Join(dir, "image", "metrics")
	return buildAsImage(metrics)
}

// explain adds the program's output to an error.
func explain(err error) error {
	if exit, ok := err.(*exec.ExitError); ok {
		return fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return err
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
