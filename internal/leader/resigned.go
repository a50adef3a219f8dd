package leader

import "encoding/json"

// resigned is the value of a place whose holder will do nothing in its name any more.
func markResigned(value []byte) string {
	fields := make(map[string]any)
	_ = json.Unmarshal(value, &fields) // the program's own
	fields["resigned"] = true
	b, _ := json.MarshalIndent(fields, "", "  ") // what came from JSON can go there
	return string(b)
}

// isResigned reports whether a value says so.
func isResigned(value []byte) bool {
	var v struct{ Resigned bool }
	return json.Unmarshal(value, &v) == nil && v.Resigned
}
