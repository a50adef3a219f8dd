package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestBinaryDoesNotLinkServers(t *testing.T) {
	deps, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"internal/devstack", "internal/mock", "nats-server", "etcd/server", "testing"} {
		for dep := range strings.Lines(string(deps)) {
			if dep = strings.TrimSpace(dep); dep == part || strings.Contains(dep, "/"+part) {
				t.Errorf("linked: %s", dep)
			}
		}
	}
}

func TestImportsAreLayered(t *testing.T) {
	below := map[string]string{
		"near":      "",
		"stats":     "",
		"fleet":     "near stats",
		"wire":      "fleet stats",
		"dynlog":    "near",
		"backoff":   "",
		"connect":   "backoff",
		"cli":       "near dynlog",
		"kube":      "backoff connect",
		"group":     "",
		"discovery": "backoff group stats fleet wire kube connect",
		"leader":    "backoff group stats wire kube connect",
		"zmtp":      "backoff",
		"collect":   "backoff stats fleet wire connect zmtp",
		"expose":    "stats fleet wire",
		"monitor":   "stats fleet wire expose",
		"app":       "near stats fleet wire kube dynlog connect cli discovery leader collect expose monitor",
	}
	const module = "dynamo-metrics/internal/"
	for room, allowed := range below {
		out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, module+room).Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			name, ours := strings.CutPrefix(strings.TrimSpace(dep), module)
			if ours && !strings.Contains(" "+allowed+" ", " "+name+" ") {
				t.Errorf("%s imports %s", room, name)
			}
			if room == "fleet" && strings.Contains(strings.Split(dep, "/")[0], ".") {
				t.Errorf("fleet imports %s, which is not of the standard library", dep)
			}
		}
	}
}
