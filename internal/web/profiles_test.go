package web

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func profiledHandler(t *testing.T) http.Handler {
	return handlerWith(readyFleet(t), func(o *Options) { o.Profiles = true })
}

func TestSecurityProfilesAreOffByDefault(t *testing.T) {
	plain, profiled := handler(readyFleet(t)), profiledHandler(t)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap?debug=1", "/debug/pprof/goroutine?debug=2", "/debug/pprof/profile", "/debug/pprof/trace", "/debug/pprof/cmdline", "/debug/vars"} {
		testutil.Equal(t, path+" by default", testutil.Get(t, plain, path).Code, http.StatusNotFound)
	}
	for path, want := range map[string]string{
		"/debug/pprof/":                  "goroutine",
		"/debug/pprof/heap?debug=1":      "heap profile",
		"/debug/pprof/goroutine?debug=2": "TestSecurityProfilesAreOffByDefault",
		"/debug/pprof/trace?seconds=0.1": "go 1.",
		"/metrics":                       "llm_load_avg",
		"/-/ready":                       "ready",
	} {
		w := testutil.Get(t, profiled, path)
		testutil.Equal(t, path, w.Code, http.StatusOK)
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: want %q in\n%.500s", path, want, w.Body)
		}
	}
	// The command line may contain passwords.
	testutil.Equal(t, "command line", testutil.Get(t, profiled, "/debug/pprof/cmdline").Code, http.StatusNotFound)
	testutil.Equal(t, "unknown path", testutil.Get(t, profiled, "/debug").Code, http.StatusNotFound)
}

func TestProfilesNeedPassword(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	log, _ := testutil.NewDebugLog()
	ended := make(chan error, 1)
	config, err := ReadConfig(webConfig(t, "basic_auth_users:\n  dynamo: "+hash+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- Serve(ctx, l, profiledHandler(t), config, log) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	r := request(t, "http://"+l.Addr().String()+"/debug/pprof/heap")
	status, _ := fetch(t, client, r)
	testutil.Equal(t, "without a password", status, http.StatusUnauthorized)
	r.SetBasicAuth("dynamo", "secret")
	status, _ = fetch(t, client, r)
	testutil.Equal(t, "with a password", status, http.StatusOK)
}
