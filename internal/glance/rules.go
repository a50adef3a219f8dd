package glance

import (
	"time"

	"dynamo-metrics/internal/fleet"
)

// The rules of what is wrong stand here, all of them: what is measured, from which
// value on and after how long a problem is raised, below which and after how long it is
// withdrawn. What a problem says is beside its measure, in the files problems_*.go.

// severity is how much a problem matters: the page opens bad ones by itself.
type severity string

const (
	bad  severity = "bad"
	warn severity = "warn"
	info severity = "info"
)

// rule says when something is wrong with a subject: a row, an endpoint, or the program.
type rule[S any] struct {
	kind     string
	severity severity // unless its words know better
	up, down float64
	raise    time.Duration
	withdraw time.Duration
	measure  func(*Glance, S) number       // absent: nothing is wrong
	say      func(*Glance, *problem) words // while it is so
	over     func(*Glance, *problem) words // while it is not so, and not withdrawn yet
}

// The rules of workers; they are raised together for those of an endpoint.
const (
	silent = iota
	malformed
	stalled
	full
	unregistered
	quiet
	unread
	workerRuleCount
)

var workerRules = [workerRuleCount]rule[*row]{
	silent:       {kind: "silent", severity: bad, up: 1, down: 1, measure: silence, say: saySilent},
	malformed:    {kind: "malformed", severity: warn, up: 1, down: 1, withdraw: 10 * time.Second, measure: unreadable, say: sayMalformed, over: wasMalformed},
	stalled:      {kind: "stalled", severity: warn, up: 20, down: 5, measure: sincePass, say: sayStalled, over: wasStalled}, // seconds
	full:         {kind: "full", severity: warn, up: nearlyFull, down: 0.85, withdraw: 30 * time.Second, measure: fullness, say: sayFull, over: wasFull},
	unregistered: {kind: "unregistered", severity: warn, up: 1, down: 1, raise: time.Minute, measure: withoutKey, say: sayUnregistered},
	quiet:        {kind: "quiet", severity: info, up: 60, down: 60, measure: quietFor, say: sayQuiet},                     // seconds
	unread:       {kind: "unread", severity: warn, up: 3, down: 1, measure: unreadTimes, say: sayUnread, over: wasUnread}, // in a row
}

// The rules of endpoints.
const (
	workersLost = iota
	queueGrowing
	saturated
	uneven
	hitsCollapsed
	endpointRuleCount
)

var endpointRules = [endpointRuleCount]rule[*place]{
	workersLost:   {kind: "lost", severity: warn, up: 1, down: 1, raise: 5 * time.Second, measure: lostWorkers, say: sayLost},
	queueGrowing:  {kind: "waiting", severity: warn, up: 2, down: 1.2, raise: 10 * time.Second, withdraw: time.Minute, measure: queueGrowth, say: sayQueue, over: hadGrown},      // times
	saturated:     {kind: "saturated", severity: warn, up: 0.8, down: 0.5, raise: time.Minute, withdraw: time.Minute, measure: waitShare, say: saySaturated, over: wasSaturated}, // of the workers
	uneven:        {kind: "imbalance", severity: warn, up: 1.5, down: 1.3, raise: 30 * time.Second, withdraw: time.Minute, measure: unevenness, say: sayUneven, over: wasUneven},
	hitsCollapsed: {kind: "hits", severity: warn, up: 0.5, down: 0.25, raise: time.Minute, withdraw: time.Minute, measure: hitsLost, say: sayHits, over: hadCollapsed}, // of what is normal
}

// The rules of the program itself, and of what it is connected to. What is over counts what there was
// in the last minutes, and many say the same while they are raised.
var programRules = [...]rule[*Glance]{
	{kind: "connection:etcd", severity: bad, up: 1, down: 1, raise: 3 * time.Second, withdraw: 2 * time.Second, measure: etcdAway, say: sayEtcd, over: until("etcd was not connected")},
	{kind: "connection:file", severity: bad, up: 1, down: 1, raise: 3 * time.Second, withdraw: 2 * time.Second, measure: filesAway, say: sayFiles, over: until("The directory of workers could not be read")},
	{kind: "connection:kubernetes", severity: bad, up: 1, down: 1, raise: 3 * time.Second, withdraw: 2 * time.Second, measure: kubernetesAway, say: sayKubernetes, over: until("The Kubernetes API could not be read")},
	{kind: "connection:nats", severity: bad, up: 1, down: 1, raise: 3 * time.Second, withdraw: 2 * time.Second, measure: natsAway, say: sayNATS, over: until("NATS was not connected")},
	{kind: "permission:nats", severity: bad, up: 1, down: 1, withdraw: 2 * time.Second, measure: subjectsRefused, say: sayRefused, over: until("NATS denied a permission")},
	{kind: "connection:zmq", severity: warn, up: 1, down: 1, withdraw: 5 * time.Second, measure: publishersAway, say: sayPublishers, over: until("ZMQ publishers could not be reached")},
	{kind: "leader", severity: bad, up: 1, down: 1, raise: 15 * time.Second, withdraw: 2 * time.Second, measure: nobodyLeads, say: sayLeader, over: until("There may have been no leader")},
	{kind: "push", severity: bad, up: 2, down: 2, measure: failedPushes, say: sayPush}, // in a row
	{kind: "web_config", severity: warn, up: 1, down: 1, measure: webConfigWrong, say: sayWebConfig},
	{kind: "limit", severity: warn, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(overLimit), say: sayLimit, over: hadNoRoom},
	{kind: "limit:publishers", severity: warn, up: 1, down: 1, withdraw: 5 * time.Second, measure: publishersWaiting, say: sayPublishersWaiting, over: until("ZMQ publishers had to wait")},
	{kind: "limit:page", severity: warn, up: 1, down: 1, withdraw: 10 * time.Second, measure: cutShort, say: sayCutShort, over: until("Not everything was shown here")},
	{kind: "outage", severity: warn, up: 1, down: 1, withdraw: 5 * time.Minute, measure: outageOver, say: sayOutage, over: sayOutage},
	{kind: "planes", severity: warn, up: 1, down: 1, withdraw: 10 * time.Second, measure: clashing, say: sayPlanes, over: until("Workers and routers were on different event planes")},
	{kind: "drops", severity: warn, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(drops), say: sayDrops, over: sayDrops},
	{kind: "malformed:messages", severity: warn, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(rejects), say: sayRejects, over: sayRejects},
	{kind: "nameless", severity: info, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(nameless), say: sayNameless, over: sayNameless},
	{kind: "gaps", severity: info, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(gaps), say: sayGaps, over: sayGaps},
}

// kindOf is what stands before the colon.
func kindOf(id string) string {
	for i := range id {
		if id[i] == ':' {
			return id[:i]
		}
	}
	return id
}

func yes(b bool) number {
	if b {
		return fleet.Some(1.0)
	}
	return number{}
}
