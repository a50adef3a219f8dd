package exposition

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// As for the original, each 2xx status is a success. VictoriaMetrics answers 204.
func TestPushAccepts2xx(t *testing.T) {
	for _, code := range []int{200, 201, 202, 203, 204, 205, 206, 207, 226, 299, 300, 304, 305, 306, 399, 400, 404, 418, 429, 499, 500, 502, 503, 599} {
		for _, user := range []*url.Userinfo{nil, url.UserPassword("push", "s3cret")} {
			for _, deletes := range []bool{false, true} {
				change := func(g *Gateway) { g.URL.User, g.DeleteOnExit = user, deletes }
				t.Run(fmt.Sprintf("%d, user %v, delete %v", code, user != nil, deletes), func(t *testing.T) {
					withPush(t, change, func(t *testing.T, p *pushTest) {
						p.gateway.requests()
						p.gateway.setAnswer(status(code, ""))
						testutil.Advance(15 * time.Second)
						p.stop()
						method, warnings := "PUT", p.log.Lines("level=WARN")
						if deletes {
							method = "DELETE"
						}
						want := []gatewayRequest{{After: 15 * time.Second, Method: "PUT", URL: group}, {After: 15 * time.Second, Method: method, URL: group}}
						if user != nil {
							for i := range want {
								want[i].User, want[i].Password = "push", "s3cret"
							}
						}
						testutil.Equal(t, "requests", p.gateway.summaries(), want)
						puts, failed := uint64(2), uint64(2)
						if deletes {
							puts = 1
						}
						if code < 300 {
							p.wantCounts(t, 1+puts, 0)
							testutil.Equal(t, "warnings", warnings, nil)
							failed = 0
						} else {
							p.wantCounts(t, 1, puts)
							testutil.Equal(t, "warnings with the status", len(p.log.Lines("level=WARN", fmt.Sprint(" ", code, " "))), 2)
						}
						testutil.Equal(t, "calls that failed", p.fleet.Stats.Failures(stats.PeerPushgateway), failed)
					})
				})
			}
		}
	}
}

// A push has the same text as a scrape, including the classic buckets of native histograms, whatever
// the names are.
func TestPushBodyIsTheWholeText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := fleet.Endpoint{Component: "a \"b\"\\\n{c=\"d\"} 1", Name: "über\t生成"}
		p, end := startPush(t, func(f *fleet.Fleet) {
			allowPush(f)
			f.Stats.RecordPoll(stats.PollOK, 40*time.Millisecond)
			f.Register("", fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 1}, fleet.Registration{Publishes: true})
			for i, seconds := range []float64{0.001, 0.02, 7} {
				f.RecordForwardPass(fleet.Origin{Endpoint: fleettest.LoadMetrics, Worker: 1}, fleet.Pass{Counter: uint64(i + 1), Seconds: seconds, Running: 3})
			}
			f.RecordRequest(fleet.Request{Prefill: fleet.Some[uint64](1), Decode: fleet.Some[uint64](1), FirstToken: fleet.Some(0.3), Duration: fleet.Some(2.0)})
			f.Register("", fleet.Instance{Endpoint: odd, ID: 2}, fleet.Registration{NATS: true})
			f.RecordPollReply(fleet.PollReply{Endpoint: odd, Worker: fleet.WorkerID{Lease: 2}, Service: "s", Load: fleet.Load{Waiting: fleet.Some[uint64](2)}})
		}, func(g *Gateway) { g.Interval = time.Hour })
		defer end()
		body := string(p.gateway.requests()[0].Body)
		p.fleet.Stats.PushOK.Store(0) // as when the body was written
		p.fleet.Stats.LastPush.Store(0)
		testutil.Equal(t, "pushed text", strings.Split(body, "\n"), strings.Split(metricsText(t, p.fleet), "\n"))
		read := make(map[string]*dto.MetricFamily)
		for _, family := range testutil.Families(t, strings.NewReader(body), expfmt.NewFormat(expfmt.TypeTextPlain)) {
			read[family.GetName()] = family
		}
		scraped, err := metricsOf(p.fleet).Gather()
		testutil.NoError(t, err)
		testutil.Equal(t, "families", len(read), len(scraped))
		native := 0
		for _, family := range scraped {
			for i, m := range family.Metric {
				h := m.GetHistogram()
				if len(h.GetPositiveSpan()) == 0 {
					continue
				}
				native++
				got := read[family.GetName()].GetMetric()[i].GetHistogram()
				testutil.Equal(t, family.GetName()+": samples", got.GetSampleCount(), h.GetSampleCount())
				testutil.Equal(t, family.GetName()+": buckets", len(got.GetBucket()), len(h.GetBucket())+1) // with +Inf
			}
		}
		if native == 0 {
			t.Error("the fleet has no native histogram")
		}
	})
}
