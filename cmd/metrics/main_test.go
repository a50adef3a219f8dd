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
	for _, forbidden := range []string{"internal/devstack", "internal/mock", "nats-server", "etcd/server", "testing"} {
		for dep := range strings.Lines(string(deps)) {
			if dep = strings.TrimSpace(dep); dep == forbidden || strings.Contains(dep, "/"+forbidden) {
				t.Errorf("linked: %s", dep)
			}
		}
	}
}

func TestImportsAreLayered(t *testing.T) {
	allowedImports := map[string]string{
		"near":       "",
		"stats":      "",
		"fleet":      "near stats",
		"wire":       "fleet stats",
		"dynlog":     "near",
		"backoff":    "",
		"connect":    "backoff",
		"cli":        "near dynlog",
		"kube":       "backoff connect",
		"group":      "",
		"discovery":  "backoff group stats fleet wire kube connect",
		"leader":     "backoff group stats wire kube connect",
		"zmtp":       "backoff",
		"collect":    "backoff stats fleet wire connect zmtp",
		"exposition": "stats fleet wire",
		"monitor":    "stats fleet wire",
		"web":        "stats fleet wire exposition monitor",
		"app":        "near stats fleet wire kube dynlog connect cli discovery leader collect exposition monitor web",
	}
	const module = "dynamo-metrics/internal/"
	for pkg, allowed := range allowedImports {
		out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, module+pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			name, ours := strings.CutPrefix(strings.TrimSpace(dep), module)
			if ours && !strings.Contains(" "+allowed+" ", " "+name+" ") {
				t.Errorf("%s imports %s", pkg, name)
			}
			if pkg == "fleet" && strings.Contains(strings.Split(dep, "/")[0], ".") {
				t.Errorf("fleet imports %s, which is not in the standard library", dep)
			}
		}
	}
}
