package exposition

import (
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestPushPutsAllMetricsEveryInterval(t *testing.T) {
	withPush(t, nil, func(t *testing.T, p *pushTest) {
		first := p.gateway.requests()
		testutil.Equal(t, "requests at once", len(first), 1)
		testutil.Equal(t, "content type", first[0].ContentType, "text/plain; version=0.0.4; charset=utf-8")
		testutil.Golden(t, "pages/pushed.prom", string(first[0].Body))

		testutil.Advance(31 * time.Second)
		testutil.Equal(t, "requests", p.gateway.summaries(), []gatewayRequest{
			{After: 15 * time.Second, Method: "PUT", URL: group},
			{After: 30 * time.Second, Method: "PUT", URL: group},
		})
		p.wantCounts(t, 3, 0)
		p.wantLog(t, 0, 0)
		testutil.Equal(t, "last success", p.lastSuccess(), 30*time.Second)
		testutil.Equal(t, "lines of the log", p.log.Lines(""), []string{
			`level=INFO msg="Started pushing metrics to Pushgateway at http://gateway:9091 with job name 'dynamo_push_metrics'"`,
		})
	})
}

func TestPushPutsOnceMoreAtTheEnd(t *testing.T) {
	withPush(t, nil, func(t *testing.T, p *pushTest) {
		testutil.Advance(20 * time.Second)
		p.gateway.requests()
		p.fleet.RecordHit(977, 3, 1)
		testutil.Equal(t, "time to end", p.stop(), 0)
		last := p.gateway.requests()
		if len(last) != 1 || last[0].Method != "PUT" || last[0].After != 20*time.Second {
			t.Fatalf("requests at the end: %+v, want one PUT", last)
		}
		p.wantCounts(t, 3, 0)
		testutil.Equal(t, "last success", p.lastSuccess(), 20*time.Second)
	})
}

func TestPushDeletesGroupAtTheEnd(t *testing.T) {
	withPush(t, func(g *Gateway) { g.DeleteOnExit = true }, func(t *testing.T, p *pushTest) {
		p.gateway.requests()
		p.gateway.setAnswer(status(http.StatusAccepted, ""))
		testutil.Equal(t, "time to end", p.stop(), 0)
		testutil.Equal(t, "requests", p.gateway.summaries(), []gatewayRequest{{Method: "DELETE", URL: group}})
		testutil.Equal(t, "warnings", p.log.Lines("level=WARN"), nil)
	})
}

func TestPushLogsFailedDeletion(t *testing.T) {
	withPush(t, func(g *Gateway) { g.DeleteOnExit = true }, func(t *testing.T, p *pushTest) {
		p.gateway.setAnswer(status(http.StatusForbidden, "not you"))
		p.stop()
		testutil.Equal(t, "warnings", len(p.log.Lines("level=WARN", "Failed to delete the metrics from Pushgateway", "403", "not you")), 1)
	})
}

func TestPushNamesTheGroup(t *testing.T) {
	for _, c := range []struct {
		url, job string
		grouping map[string]string
		want     string
	}{
		{"http://gateway:9091", "dynamo_push_metrics", nil, group},
		{"http://gateway:9091/", "dynamo_push_metrics", nil, group},
		{"http://gateway:9091/prefix", "j", nil, "/prefix/metrics/job/j"},
		{"http://gateway:9091/prefix/", "j", nil, "/prefix/metrics/job/j"},
		{"http://gateway:9091", "j", map[string]string{"cluster": "a"}, "/metrics/job/j/cluster/a"},
		{"http://gateway:9091", "a/b", map[string]string{"path": "/x"}, "/metrics/job@base64/YS9i/path@base64/L3g"},
		{"http://gateway:9091", "j", map[string]string{"empty": ""}, "/metrics/job/j/empty@base64/="},
	} {
		t.Run(c.url+" "+c.want, func(t *testing.T) {
			withPush(t, func(g *Gateway) {
				u, err := url.Parse(c.url)
				testutil.NoError(t, err)
				g.URL, g.Job, g.Grouping, g.DeleteOnExit = u, c.job, c.grouping, true
			}, func(t *testing.T, p *pushTest) {
				p.stop()
				testutil.Equal(t, "requests", p.gateway.summaries(), []gatewayRequest{{Method: "PUT", URL: c.want}, {Method: "DELETE", URL: c.want}})
			})
		})
	}
}

func TestPushNeverLogsThePassword(t *testing.T) {
	for _, answer := range []http.HandlerFunc{nil, status(http.StatusUnauthorized, "who are you?"), hang} {
		withPush(t, func(g *Gateway) { g.URL.User, g.DeleteOnExit = url.UserPassword("dynamo", "hunter2"), true }, func(t *testing.T, p *pushTest) {
			p.gateway.setAnswer(answer)
			testutil.Advance(30 * time.Second)
			p.gateway.Close() // from now on connections are refused
			testutil.Advance(30 * time.Second)
			p.stop()
			for _, r := range p.gateway.requests() {
				testutil.Equal(t, r.Method+": login", r.User+":"+r.Password, "dynamo:hunter2")
			}
			testutil.Equal(t, "lines with the password", p.log.Lines("hunter2"), nil)
			testutil.Equal(t, "lines with the user", p.log.Lines("dynamo:"), nil)
		})
	}
}

func TestPushWaitsForFirstPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end := startPush(t, func(f *fleet.Fleet) { f.Stats.ActsAsLeader.Store(true) })
		testutil.Advance(2 * time.Second)
		testutil.Equal(t, "requests before a poll", len(p.gateway.requests()), 0)
		p.fleet.Stats.RecordPoll(stats.PollOK, 0)
		testutil.Advance(100 * time.Millisecond)
		testutil.Equal(t, "requests after a poll", len(p.gateway.requests()), 1)
		end()
	})
}

func TestPushWaitsOneIntervalAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end := startPush(t, func(f *fleet.Fleet) { f.Stats.ActsAsLeader.Store(true) })
		testutil.Advance(15*time.Second + time.Millisecond)
		testutil.Equal(t, "requests", len(p.gateway.requests()), 1)
		end()
	})
}

func TestPushOnlyAsLeader(t *testing.T) {
	for _, deletes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p, end := startPush(t, func(f *fleet.Fleet) { f.Stats.RecordPoll(stats.PollOK, 0) }, func(g *Gateway) { g.DeleteOnExit = deletes })
			testutil.Advance(time.Minute)
			end()
			testutil.Equal(t, "requests", len(p.gateway.requests()), 0)
			p.wantCounts(t, 0, 0)
		})
	}
}

func TestPushStartsOnTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end := startPush(t, func(f *fleet.Fleet) { f.Stats.RecordPoll(stats.PollOK, 0) })
		testutil.Advance(20 * time.Second)
		testutil.Equal(t, "requests of a standby", len(p.gateway.requests()), 0)
		p.fleet.Stats.ActsAsLeader.StoreFor(8*time.Second, time.Now())
		testutil.Advance(100 * time.Millisecond)
		testutil.Equal(t, "requests of the leader", len(p.gateway.requests()), 1)
		testutil.Advance(30 * time.Second) // another program leads
		testutil.Equal(t, "requests of a standby again", len(p.gateway.requests()), 0)
		p.fleet.Stats.ActsAsLeader.Store(true)
		testutil.Advance(100 * time.Millisecond)
		testutil.Equal(t, "requests of the leader again", len(p.gateway.requests()), 1)
		testutil.Advance(15 * time.Second)
		testutil.Equal(t, "requests an interval later", len(p.gateway.requests()), 1)
		end()
	})
}
