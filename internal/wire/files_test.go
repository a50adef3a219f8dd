package wire

import (
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// fileReleases lists the releases with captured files of file discovery.
var fileReleases = [...]string{"0.8.1", "1.0.2", "1.1.1", "1.2.1", "1.3.1", "1.4.2", "1.5.1", "1.6.1"}

func TestFileKeyReadsCaptures(t *testing.T) {
	for _, release := range fileReleases {
		for path := range testutil.CapturedJSON[map[string]string](t, release, "file_kv.json") {
			slash := strings.LastIndexByte(path, '/')
			key, ok := FileKey(path[:slash], path[slash+1:])
			if !ok {
				t.Fatalf("%s: FileKey(%q) is not ok", release, path)
			}
			bucket, name := FileName(key)
			testutil.Equal(t, "path", bucket+"/"+name, path)
		}
	}
}

func TestFileKeyFindsCapturedRegistrations(t *testing.T) {
	for _, release := range fileReleases {
		n := 0
		for _, kv := range fileEntries(t, release) {
			if !strings.HasPrefix(kv.Key, LayoutV1.Prefix("lab")) || IsIgnoredKey("lab", kv.Key) {
				continue
			}
			n++
			in, ok := LayoutV1.ParseKey("lab", kv.Key)
			if err := checkValue(LayoutV1, "lab", in, []byte(kv.Value)); !ok || err != nil {
				t.Errorf("%s: %s: %v, %v", release, kv.Key, ok, err)
			}
			testutil.Equal(t, "endpoint", in.Endpoint, fleet.Endpoint{Component: "backend", Name: "generate"})
		}
		if n < 1 || n > 2 {
			t.Errorf("%s: %d registrations, want one or two", release, n)
		}
	}
}

func TestFileNameEscapesAnyKey(t *testing.T) {
	// 1.3.1 and 1.6.1 wrote these files.
	for key, file := range map[string][2]string{
		"v1/instances/a b/c*d/e>f/1fd1844d3affa307":      {"v1/instances", "a%20b%2Fc%2Ad%2Fe%3Ef%2F1fd1844d3affa307"},
		"v1/event_channels/a b//kv_metrics/29a26a74d261": {"v1/event_channels", "a%20b%2F%2Fkv%5Fmetrics%2F29a26a74d261"},
		"v1/event_channels/namespace/a%20b/component/c%2Ad/endpoint/e%3Ef/topic/kv_metrics/707c677fde94b": {
			"v1/event_channels", "namespace%2Fa%2520b%2Fcomponent%2Fc%252Ad%2Fendpoint%2Fe%253Ef%2Ftopic%2Fkv%5Fmetrics%2F707c677fde94b"},
		"v1/mdc/ü": {"v1/mdc", "%C3%BC"},
	} {
		bucket, name := FileName(key)
		testutil.Equal(t, "bucket and name", [2]string{bucket, name}, file)
		got, ok := FileKey(bucket, name)
		testutil.Equal(t, "result", got, key)
		testutil.Equal(t, "ok", ok, true)
	}
}

func TestFileKeyRejectsOtherFiles(t *testing.T) {
	for _, name := range []string{
		"", ".", ".tmp_0123456789abcdef", "lab/backend", "lab%2fbackend", "lab%2", "lab%", "lab%2G", "%61", "a b", "kv_metrics", "a-b", "\xff", "%+1",
	} {
		if key, ok := FileKey("v1/instances", name); key != "" || ok {
			t.Errorf("FileKey(%q) = %q, %v, want it rejected", name, key, ok)
		}
	}
}
