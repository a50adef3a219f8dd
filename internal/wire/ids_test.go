package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// boundaryIDs are ids around the limits of numeric types, and ids that were rounded in
// Kubernetes with 0.8.0 and 1.3.1.
var boundaryIDs = []uint64{
	1, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32, math.MaxUint32 + 1,
	1<<53 - 1, 1 << 53, 1<<53 + 1, 1<<53 + 3, 0x550aa2238f33fb02,
	math.MaxInt64 - 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxInt64 + 2,
	13019061642146836831, math.MaxUint64 - 1024, math.MaxUint64 - 1, math.MaxUint64,
}

// idEncodings returns the forms in which decoders write an id: exactly, or as a float64 in
// the shortest form that decodes to the same number, with all digits, or with an exponent.
func idEncodings(id uint64) []string {
	f := float64(id)
	all := []string{strconv.FormatUint(id, 10), strconv.FormatFloat(f, 'f', -1, 64), strconv.FormatFloat(f, 'f', 0, 64), strconv.FormatFloat(f, 'e', -1, 64), strconv.FormatFloat(f, 'f', 1, 64)}
	if id <= 1<<53 {
		return all[:1]
	}
	return all
}

func TestValueIDMatchesRoundedKeyID(t *testing.T) {
	const endpoint, channel = `{"type":"Endpoint","namespace":"lab","component":"backend","endpoint":"generate","instance_id":%s,"transport":{"tcp":"h:1"}}`,
		`{"type":"EventChannel","namespace":"lab","component":"backend","topic":"kv_metrics","instance_id":%s,"transport":{"kind":"Zmq","config":{"endpoint":"tcp://h:1"}}}`
	for _, id := range boundaryIDs {
		for _, hex := range []string{HexID(id), strings.ToUpper(HexID(id)), fmt.Sprintf("%016x", id), fmt.Sprintf("%024X", id)} {
			for _, written := range idEncodings(id) {
				in, named := LayoutV1.ParseKey("lab", "v1/instances/lab/backend/generate/"+hex)
				if want := instance("backend", "generate", id); !named || in != want {
					t.Errorf("ParseKey of %s = %+v, %v, want %+v", hex, in, named, want)
				}
				if err := checkValue(LayoutV1, "lab", in, fmt.Appendf(nil, endpoint, written)); err != nil {
					t.Errorf("endpoint %s: a value with %s: %v", hex, written, err)
				}
				c, err := ParseChannel("lab", "v1/event_channels/lab/backend/kv_metrics/"+hex, fmt.Appendf(nil, channel, written))
				if err != nil || c.Publisher != id {
					t.Errorf("channel %s with %s: %+v, %v", hex, written, c, err)
				}
			}
		}
	}
}

func TestValueIDRejectsOtherIDs(t *testing.T) {
	for _, id := range boundaryIDs {
		for _, other := range []uint64{id - 1, id + 1, id ^ 1<<40, id + 100_000} {
			written := strconv.FormatUint(other, 10)
			if valueID(written).matches(id) && !slices.Contains(idEncodings(id), written) {
				t.Errorf("%s matches %d", written, id)
			}
		}
		for _, text := range []string{"", "-1", "0", "1.5", "1e400", "NaN", "x", strconv.FormatUint(id, 10) + "0"} {
			if valueID(text).matches(id) {
				t.Errorf("%q matches %d", text, id)
			}
		}
	}
	if valueID("9007199254740992.0").matches(1 << 53) {
		t.Error("an id that needs no rounding matches a rounded number")
	}
	for _, text := range []string{`"31"`, `true`, `[31]`, `{}`, `-31`} {
		value := fmt.Sprintf(`{"type":"Endpoint","namespace":"lab","component":"backend","endpoint":"generate","instance_id":%s}`, text)
		if err := checkValue(LayoutV1, "lab", instance("backend", "generate", 31), []byte(value)); err == nil || errors.Is(err, ErrMismatch) {
			t.Errorf("an id %s: %v, want a decoding error", text, err)
		}
	}
}
