// Package monitor is what people and autoscalers look at: once a second one consistent
// cut through the Fleet, with every aggregate, what is wrong in words, and a quarter of
// an hour of history. The page gets it as a stream of events, programs as JSON. Nobody
// who looks has to compute anything, or to know Dynamo.
//
// The shape of a snapshot is described in openapi.json, which the program serves.
package monitor
