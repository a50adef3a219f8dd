package monitor

import (
	"time"

	"dynamo-metrics/internal/fleet"
)

// This file has the tables of all rules: what is measured, from which value on and after how long
// a problem is raised, below which value and after how long it is withdrawn. The measures and
// messages are in the files problems_*.go.

// severity is how serious a problem is. The web page opens problems of severity bad by itself.
type severity string

const (
	severityBad  severity = "bad"
	severityWarn severity = "warn"
	severityInfo severity = "info"
)

// rule says when there is a problem with a subject: a row, an endpoint, or the program.
type rule[S any] struct {
	kind                string
	severity            severity // unless the message has another
	raiseAt, clearBelow float64
	raiseAfter          time.Duration
	withdrawAfter       time.Duration
	measure             func(*Monitor, S) number         // absent if there is no problem
	message             func(*Monitor, *problem) message // while the condition holds
	endedMessage        func(*Monitor, *problem) message // after the condition ended, until the problem is withdrawn
}

// The rules of workers. One problem is raised for all workers of an endpoint.
const (
	ruleSilent = iota
	ruleMalformed
	ruleStalled
	ruleFull
	ruleUnregistered
	ruleQuiet
	ruleUnread
	workerRuleCount
)

var workerRules = [workerRuleCount]rule[*row]{
	ruleSilent:       {kind: "silent", severity: severityBad, raiseAt: 1, clearBelow: 1, measure: measureSilent, message: silentMessage},
	ruleMalformed:    {kind: "malformed", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 10 * time.Second, measure: measureMalformed, message: malformedMessage, endedMessage: malformedEndedMessage},
	ruleStalled:      {kind: "stalled", severity: severityWarn, raiseAt: 20, clearBelow: 5, measure: measureStalled, message: stalledMessage, endedMessage: stalledEndedMessage}, // seconds
	ruleFull:         {kind: "full", severity: severityWarn, raiseAt: fullUsage, clearBelow: 0.85, withdrawAfter: 30 * time.Second, measure: measureFull, message: fullMessage, endedMessage: fullEndedMessage},
	ruleUnregistered: {kind: "unregistered", severity: severityWarn, raiseAt: 1, clearBelow: 1, raiseAfter: time.Minute, measure: measureUnregistered, message: unregisteredMessage},
	ruleQuiet:        {kind: "quiet", severity: severityInfo, raiseAt: 60, clearBelow: 60, measure: measureQuiet, message: quietMessage},                                    // seconds
	ruleUnread:       {kind: "unread", severity: severityWarn, raiseAt: 3, clearBelow: 1, measure: measureUnread, message: unreadMessage, endedMessage: unreadEndedMessage}, // in a row
}

// The rules of endpoints.
const (
	ruleLost = iota
	ruleWaiting
	ruleSaturated
	ruleImbalance
	ruleHits
	endpointRuleCount
)

var endpointRules = [endpointRuleCount]rule[*endpointStats]{
	ruleLost:      {kind: "lost", severity: severityWarn, raiseAt: 1, clearBelow: 1, raiseAfter: 5 * time.Second, measure: measureLost, message: lostMessage},
	ruleWaiting:   {kind: "waiting", severity: severityWarn, raiseAt: 2, clearBelow: 1.2, raiseAfter: 10 * time.Second, withdrawAfter: time.Minute, measure: measureWaiting, message: waitingMessage, endedMessage: waitingEndedMessage},      // ratio to the earlier queue
	ruleSaturated: {kind: "saturated", severity: severityWarn, raiseAt: 0.8, clearBelow: 0.5, raiseAfter: time.Minute, withdrawAfter: time.Minute, measure: measureSaturated, message: saturatedMessage, endedMessage: saturatedEndedMessage}, // fraction of the workers
	ruleImbalance: {kind: "imbalance", severity: severityWarn, raiseAt: 1.5, clearBelow: 1.3, raiseAfter: 30 * time.Second, withdrawAfter: time.Minute, measure: measureImbalance, message: imbalanceMessage, endedMessage: imbalanceEndedMessage},
	ruleHits:      {kind: "hits", severity: severityWarn, raiseAt: 0.5, clearBelow: 0.25, raiseAfter: time.Minute, withdrawAfter: time.Minute, measure: measureHits, message: hitsMessage, endedMessage: hitsEndedMessage}, // decrease from the baseline, as a fraction
}

// The rules of the program itself, and of its connections. The ended message of a rule about
// recent counts covers the last 15 minutes, so for many of these rules it is the same message.
var programRules = [...]rule[*Monitor]{
	{kind: "connection:etcd", severity: severityBad, raiseAt: 1, clearBelow: 1, raiseAfter: 3 * time.Second, withdrawAfter: 2 * time.Second, measure: measureEtcd, message: etcdMessage, endedMessage: endedWithTitle("etcd was not connected")},
	{kind: "connection:file", severity: severityBad, raiseAt: 1, clearBelow: 1, raiseAfter: 3 * time.Second, withdrawAfter: 2 * time.Second, measure: measureFiles, message: filesMessage, endedMessage: endedWithTitle("The directory of workers could not be read")},
	{kind: "connection:kubernetes", severity: severityBad, raiseAt: 1, clearBelow: 1, raiseAfter: 3 * time.Second, withdrawAfter: 2 * time.Second, measure: measureKubernetes, message: kubernetesMessage, endedMessage: endedWithTitle("The Kubernetes API could not be read")},
	{kind: "connection:nats", severity: severityBad, raiseAt: 1, clearBelow: 1, raiseAfter: 3 * time.Second, withdrawAfter: 2 * time.Second, measure: measureNATS, message: natsMessage, endedMessage: endedWithTitle("NATS was not connected")},
	{kind: "permission:nats", severity: severityBad, raiseAt: 1, clearBelow: 1, withdrawAfter: 2 * time.Second, measure: measurePermission, message: permissionMessage, endedMessage: endedWithTitle("NATS denied a permission")},
	{kind: "connection:zmq", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 5 * time.Second, measure: measurePublishers, message: publishersMessage, endedMessage: endedWithTitle("ZMQ publishers could not be reached")},
	{kind: "leader", severity: severityBad, raiseAt: 1, clearBelow: 1, raiseAfter: 15 * time.Second, withdrawAfter: 2 * time.Second, measure: measureLeader, message: leaderMessage, endedMessage: endedWithTitle("There may have been no leader")},
	{kind: "push", severity: severityBad, raiseAt: 2, clearBelow: 2, measure: measurePush, message: pushMessage}, // in a row
	{kind: "web_config", severity: severityWarn, raiseAt: 1, clearBelow: 1, measure: measureWebConfig, message: webConfigMessage},
	{kind: "limit", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 5 * time.Minute, measure: measureIncrease(counterOverLimit), message: limitMessage, endedMessage: limitEndedMessage},
	{kind: "limit:publishers", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 5 * time.Second, measure: measurePublishersWaiting, message: publishersWaitingMessage, endedMessage: endedWithTitle("ZMQ publishers waited for a connection")},
	{kind: "limit:page", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 10 * time.Second, measure: measureLeftOut, message: leftOutMessage, endedMessage: endedWithTitle("Not everything was shown here")},
	{kind: "outage", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 5 * time.Minute, measure: measureOutage, message: outageMessage, endedMessage: outageMessage},
	{kind: "planes", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 10 * time.Second, measure: measurePlanes, message: planesMessage, endedMessage: endedWithTitle("Workers and routers were on different event planes")},
	{kind: "drops", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 5 * time.Minute, measure: measureIncrease(counterDrops), message: dropsMessage, endedMessage: dropsMessage},
	{kind: "malformed:messages", severity: severityWarn, raiseAt: 1, clearBelow: 1, withdrawAfter: 5 * time.Minute, measure: measureIncrease(counterRejects), message: rejectsMessage, endedMessage: rejectsMessage},
	{kind: "nameless", severity: severityInfo, raiseAt: 1, clearBelow: 1, withdrawAfter: 5 * time.Minute, measure: measureIncrease(counterNoWorker), message: noWorkerMessage, endedMessage: noWorkerMessage},
	{kind: "gaps", severity: severityInfo, raiseAt: 1, clearBelow: 1, withdrawAfter: 5 * time.Minute, measure: measureIncrease(counterGaps), message: gapsMessage, endedMessage: gapsMessage},
}

// problemKind returns the part of an id before the colon.
func problemKind(id string) string {
	for i := range id {
		if id[i] == ':' {
			return id[:i]
		}
	}
	return id
}

func boolMeasure(b bool) number {
	if b {
		return fleet.Some(1.0)
	}
	return number{}
}

// ProblemKinds returns the kinds of all problems, as documented and in openapi.json.
func ProblemKinds() (kinds []string) {
	for _, r := range workerRules {
		kinds = append(kinds, r.kind)
	}
	for _, r := range endpointRules {
		kinds = append(kinds, r.kind)
	}
	for _, r := range programRules {
		kinds = append(kinds, problemKind(r.kind))
	}
	return kinds
}
