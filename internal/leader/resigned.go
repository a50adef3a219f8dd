package leader

import "encoding/json"

// markResigned returns the value for a lock whose holder has stopped acting as the leader.
func markResigned(value []byte) string {
	fields := make(map[string]any)
	_ = json.Unmarshal(value, &fields) // the program's own value is valid
	fields["resigned"] = true
	b, _ := json.MarshalIndent(fields, "", "  ") // decoded JSON can be encoded
	return string(b)
}

// isResigned reports whether a value was marked as resigned.
func isResigned(value []byte) bool {
	var v struct{ Resigned bool }
	return json.Unmarshal(value, &v) == nil && v.Resigned
}
