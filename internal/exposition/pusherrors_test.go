package exposition

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire/wiretest"
)

func TestPushWarnsOncePerChangeOfState(t *testing.T) {
	withPush(t, nil, func(t *testing.T, p *pushTest) {
		p.wantCounts(t, 1, 0)
		p.gateway.setAnswer(status(http.StatusBadRequest, "pushed metrics are inconsistent"))
		testutil.Advance(time.Minute)
		p.wantCounts(t, 1, 4)
		p.wantLog(t, 1, 0)
		testutil.Equal(t, "warnings with the response", len(p.log.Lines("level=WARN", "400", "pushed metrics are inconsistent")), 1)
		testutil.Equal(t, "last success", p.lastSuccess(), 0)

		p.gateway.setAnswer(nil)
		testutil.Advance(30 * time.Second)
		p.wantCounts(t, 3, 4)
		p.wantLog(t, 1, 1)
		testutil.Equal(t, "last success", p.lastSuccess(), 90*time.Second)

		p.gateway.setAnswer(status(http.StatusBadGateway, ""))
		testutil.Advance(30 * time.Second)
		p.wantCounts(t, 3, 6)
		p.wantLog(t, 2, 1)
	})
}

func TestPushRetriesWhileGatewayIsDown(t *testing.T) {
	withPush(t, nil, func(t *testing.T, p *pushTest) {
		p.gateway.Close()
		testutil.Advance(time.Hour)
		p.wantCounts(t, 1, 240)
		p.wantLog(t, 1, 0)
		testutil.Equal(t, "warnings with the reason", len(p.log.Lines("connection refused")), 1)
		testutil.Equal(t, "time to end", p.stop(), 0)
		p.wantCounts(t, 1, 241)
		testutil.Equal(t, "calls that failed", p.fleet.Stats.Failures(stats.PeerPushgateway), 241)
	})
}

func TestPushLastSuccessIsAbsentAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := wiretest.Original(t)
		testutil.Equal(t, "last push", f.Stats.LastPush.Load(), 0)
		if strings.Contains(metricsText(t, f), "push_last_success") {
			t.Error("the metrics have the time of a push, although none has succeeded")
		}
	})
}

func TestPushLimitsResponseSize(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"long": status(http.StatusInternalServerError, strings.Repeat("no ", 1<<20)),
		"not ending": func(w http.ResponseWriter, r *http.Request) {
			status(http.StatusInternalServerError, "no no no")(w, r)
			w.(http.Flusher).Flush()
			hang(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			withPush(t, nil, func(t *testing.T, p *pushTest) {
				p.gateway.setAnswer(answer)
				testutil.Advance(30 * time.Second)
				warnings := p.log.Lines("level=WARN")
				if name == "long" && (len(warnings) != 1 || strings.Count(warnings[0], "no ") < 1365) {
					t.Errorf("%d warnings: %q, want one with 4 KiB of the response", len(warnings), warnings)
				}
				if len(warnings) != 1 || len(warnings[0]) > 4096+512 || !strings.Contains(warnings[0], "500") {
					t.Errorf("%d warnings, the first of %d bytes, want one of at most 4,608", len(warnings), len(strings.Join(warnings, "")))
				}
			})
		})
	}
}

func TestPushTimesOutBeforeNextInterval(t *testing.T) {
	for _, c := range []struct{ interval, timeout time.Duration }{
		{time.Second, 900 * time.Millisecond},
		{10 * time.Second, 9 * time.Second},
		{time.Hour, 10 * time.Second},
	} {
		t.Run(c.interval.String(), func(t *testing.T) {
			withPush(t, func(g *Gateway) { g.Interval = c.interval }, func(t *testing.T, p *pushTest) {
				p.gateway.setAnswer(hang)
				testutil.Advance(c.interval)
				p.gateway.requests()
				p.wantCounts(t, 1, 0)
				testutil.Advance(c.timeout - time.Millisecond)
				p.wantCounts(t, 1, 0)
				testutil.Advance(time.Millisecond)
				p.wantCounts(t, 1, 1)
				p.wantLog(t, 1, 0)

				p.gateway.setAnswer(nil)
				testutil.Advance(c.interval - c.timeout)
				testutil.Equal(t, "requests", p.gateway.summaries(), []gatewayRequest{{After: 2 * c.interval, Method: "PUT", URL: group}})
				p.wantCounts(t, 2, 1)
				p.wantLog(t, 1, 1)
			})
		})
	}
}

func TestPushEndsWithinTimeout(t *testing.T) {
	for _, deletes := range []bool{false, true} {
		withPush(t, func(g *Gateway) { g.Interval, g.DeleteOnExit = 2*time.Second, deletes }, func(t *testing.T, p *pushTest) {
			p.gateway.setAnswer(hang)
			testutil.Advance(2500 * time.Millisecond) // a push is in progress
			testutil.Equal(t, "time to end", p.stop(), 2*time.Second)
			// The push that the end interrupted is not counted; the last push failed.
			want := uint64(1)
			if deletes {
				want = 0
			}
			p.wantCounts(t, 1, want)
			testutil.Equal(t, "warnings", len(p.log.Lines("level=WARN")), 1)
		})
	}
}

func TestPushToLoginPageFails(t *testing.T) {
	for _, code := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther} {
		withPush(t, nil, func(t *testing.T, p *pushTest) {
			p.gateway.setAnswer(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/login" {
					http.Redirect(w, r, "/login", code)
				}
			})
			testutil.Advance(15 * time.Second)
			p.wantCounts(t, 1, 1)
			p.wantLog(t, 1, 0)
		})
	}
}

func TestPushFollowsPermanentRedirect(t *testing.T) {
	withPush(t, nil, func(t *testing.T, p *pushTest) {
		p.gateway.requests()
		p.gateway.setAnswer(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/new") {
				http.Redirect(w, r, "/new"+r.URL.Path, http.StatusPermanentRedirect)
			}
		})
		testutil.Advance(15 * time.Second)
		p.wantCounts(t, 2, 0)
		moved := p.gateway.requests()
		testutil.Equal(t, "requests", len(moved), 2)
		testutil.Equal(t, "method and path", moved[1].Method+" "+moved[1].URL, "PUT /new"+group)
		testutil.Equal(t, "body", moved[1].Body, moved[0].Body)
	})
}

func TestPushLimitsRedirects(t *testing.T) {
	withPush(t, nil, func(t *testing.T, p *pushTest) {
		p.gateway.requests()
		p.gateway.setAnswer(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		})
		testutil.Advance(15 * time.Second)
		p.wantCounts(t, 1, 1)
		testutil.Equal(t, "requests", len(p.gateway.requests()), 10)
	})
}

// Once the program's leadership has ended, another program may push.
func TestPushStopsWhenLeadershipEnds(t *testing.T) {
	withPush(t, nil, func(t *testing.T, p *pushTest) {
		var cut time.Time
		p.gateway.setAnswer(func(w http.ResponseWriter, r *http.Request) {
			hang(w, r)
			cut = time.Now()
		})
		testutil.Advance(14 * time.Second)
		begin := time.Now()
		p.fleet.Stats.ActsAsLeader.StoreFor(3*time.Second, begin) // the push begins in a second
		testutil.Advance(10 * time.Second)
		testutil.Equal(t, "requests", len(p.gateway.requests()), 2) // with the first push, which succeeded
		if after := cut.Sub(begin); after < 3*time.Second || after > 3*time.Second+100*time.Millisecond {
			t.Errorf("the push was canceled after %v, want 3 s", after)
		}
		p.wantCounts(t, 1, 0)
		p.wantLog(t, 0, 0)
	})
}
