// Package monitor samples the Fleet once a second and keeps what the web page shows and autoscalers
// read: aggregates per endpoint and for the fleet, problems in plain English with advice, and 15
// minutes of history. The web page reads it as a stream of events, and programs read it as JSON. A
// client computes nothing, and needs no knowledge of Dynamo.
//
// The file openapi.json, which the program serves, describes the shape of a snapshot.
package monitor
