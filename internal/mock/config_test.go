package mock

import (
	"strings"
	"testing"
)

func TestConfigCheckNamesTheSetting(t *testing.T) {
	good := Config{Namespace: "dynamo", Component: "backend", Endpoint: "generate"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{`namespace ""`, func(c *Config) { c.Namespace = "" }},
		{`namespace "a b"`, func(c *Config) { c.Namespace = "a b" }},
		{`namespace "a.*"`, func(c *Config) { c.Namespace = "a.*" }},
		{`namespace "a..b"`, func(c *Config) { c.Namespace = "a..b" }},
		{`namespace "a/b"`, func(c *Config) { c.Namespace = "a/b" }},
		{`component ""`, func(c *Config) { c.Component = "" }},
		{`component "a/b"`, func(c *Config) { c.Component = "a/b" }},
		{`component "_"`, func(c *Config) { c.Namespace, c.Component = "_", "_" }},
		{`endpoint "a.b"`, func(c *Config) { c.Endpoint = "a.b" }},
		{`endpoint ""`, func(c *Config) { c.Endpoint = "" }},
		{`workers "-1"`, func(c *Config) { c.Workers = -1 }},
		{`release "0.9.2": want one of 0.1.0, 0.1.1, 0.2.1, 0.3.0, 0.5.1, 0.6.1, 0.9.1, 1.6.1`, func(c *Config) { c.Release = "0.9.2" }},
		{`event-interval "-1ns"`, func(c *Config) { c.EventInterval = -1 }},
	} {
		bad := good
		c.change(&bad)
		if err := bad.Check(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v, want %s…", err, c.want)
		}
	}
	unusual := Config{Namespace: "My.Namespace", Component: "Back End", Endpoint: "Generate_2-x"}
	if err := unusual.Check(); err != nil {
		t.Error(err)
	}
}
