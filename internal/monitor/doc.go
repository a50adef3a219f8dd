// Package monitor samples the Fleet once a second and keeps what the web page and autoscalers
// show: aggregates per endpoint and for the fleet, problems in plain English with advice, and 15
// minutes of history. The web page reads it as a stream of events, programs read it as JSON. A
// client needs to compute nothing, and needs no knowledge of Dynamo.
//
// The file openapi.json, which the program serves, describes the shape of a snapshot.
package monitor
