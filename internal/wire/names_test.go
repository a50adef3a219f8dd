package wire

import (
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/testutil"
)

type serviceName struct{ Version, Era, Namespace, Component, Service string }

func capturedNames(t testing.TB) []serviceName {
	t.Helper()
	names := testutil.CapturedJSON[[]serviceName](t, "service_names.json")
	if len(names) != 45 {
		t.Fatalf("testdata has %d service names, want 45", len(names))
	}
	return names
}

func TestServiceNameEqualsDynamos(t *testing.T) {
	eras := map[string]Era{"hash-pipe": EraSeed, "hash-underscore": EraHashed, "plain": EraPlain}
	for _, c := range capturedNames(t) {
		era, ok := eras[c.Era]
		if !ok {
			t.Fatalf("no era is called %q", c.Era)
		}
		if got := ServiceName(era, c.Namespace, c.Component); got != c.Service {
			t.Errorf("%s: ServiceName(%d, %q, %q) = %q, want %q", c.Version, era, c.Namespace, c.Component, got, c.Service)
		}
	}
}

func TestServiceNamesOfAllErasCoverEveryRelease(t *testing.T) {
	for _, c := range capturedNames(t) {
		var names []string
		for _, era := range Eras {
			names = append(names, ServiceName(era, c.Namespace, c.Component))
		}
		if !slices.Contains(names, c.Service) {
			t.Errorf("%s: %q is not among the names %q, %q: %q", c.Version, c.Service, c.Namespace, c.Component, names)
		}
	}
}

// TestServiceNameTrimsLeadingUnderscores checks what is known from Dynamo's source only: it
// trims the name after it appends the hash.
func TestServiceNameTrimsLeadingUnderscores(t *testing.T) {
	testutil.Equal(t, "ServiceName", ServiceName(EraSeed, "_", "_"), hash("_|_"))
	testutil.Equal(t, "ServiceName", ServiceName(EraHashed, "дина", "мо"), hash("дина_мо"))
	testutil.Equal(t, "ServiceName", ServiceName(EraHashed, "_lead", "x"), "lead_x_"+hash("_lead_x"))
	testutil.Equal(t, "ServiceName", ServiceName(EraPlain, "_lead", "x"), "lead_x")
}

func TestServiceNameLowersLikeRust(t *testing.T) {
	testutil.Equal(t, "ServiceName", ServiceName(EraPlain, "\u0130zmir", "x"), "i_zmir_x")
	testutil.Equal(t, "ServiceName", ServiceName(EraPlain, "\u212a", "x"), "k_x") // the Kelvin sign
}

func TestNamespaceSubjectsAreAsCaptured(t *testing.T) {
	testutil.Equal(t, "StatsSubject", StatsSubject("dynamo_backend"), "$SRV.STATS.dynamo_backend")
	testutil.Equal(t, "HitRateSubject", HitRateSubject("edge"), "namespace.edge.kv-hit-rate")
	testutil.Equal(t, "L2CSubject", L2CSubject("dynamo", "backend", "load_metrics"), string(testutil.Captured(t, "original", "l2c_subject.txt")))
}

// capturedName is a component with an unusual name, with the service name, subjects and
// keys of its worker.
type capturedName struct {
	Namespace, Component, Service string
	Subjects, Etcd                []string
}

func TestSplitSubjectKeepsUnusualNames(t *testing.T) {
	for _, r := range []struct {
		release string
		era     Era
		lease   uint64 // of the first component's worker; it grows by 6 from worker to worker
	}{
		{"0.1.1", EraHashed, 0x7d7ba2096ef2460a},
		{"0.2.1", EraPlain, 0x7d7ba2096ef24128},
		{"0.5.1", EraPlain, 0x7d7ba2096ef2448a},
	} {
		for i, c := range testutil.CapturedJSON[[]capturedName](t, r.release, "edge", "names.json") {
			lease := r.lease + 6*uint64(i)
			testutil.Equal(t, "ServiceName", ServiceName(r.era, c.Namespace, c.Component), c.Service)
			for j, want := range []string{"My-End.point", "load_metrics"} {
				testutil.Equal(t, "Subject", Subject(c.Service, want, lease), c.Subjects[j])
				endpoint, id, ok := SplitSubject(c.Service, c.Subjects[j], noEndpoint)
				if endpoint != want || id != lease || !ok {
					t.Errorf("SplitSubject(%q, %q) = %q, %x, %v, want %q, %x, true", c.Service, c.Subjects[j], endpoint, id, ok, want, lease)
				}
			}
		}
	}
}

func TestSplitSubjectFindsEndpointAndLease(t *testing.T) {
	for name, c := range map[string]struct {
		subject  string
		static   string // the known endpoint
		endpoint string
		lease    uint64
	}{
		"a plain one":                                       {"svc.generate-1f", "", "generate", 0x1f},
		"generate2 is not a worker of generate":             {"svc.generate2-1f", "generate", "generate2", 0x1f},
		"a name with dashes":                                {"svc.a-b-c-1f", "", "a-b-c", 0x1f},
		"a name with dots":                                  {"svc.a.b.c-1f", "", "a.b.c", 0x1f},
		"a name with both":                                  {"svc.My-End.point-1f", "", "My-End.point", 0x1f},
		"a name that begins with a dash":                    {"svc.-a-1f", "", "-a", 0x1f},
		"a name that ends like an id":                       {"svc.generate-beef-1f", "", "generate-beef", 0x1f},
		"a name that ends like an id, the worker is static": {"svc.generate-beef", "generate-beef", "generate-beef", 0},
		"a name that is not known ends with an id":          {"svc.generate-beef", "generate", "generate", 0xbeef},
		"a static worker":                                   {"svc.generate", "", "generate", 0},
		"a static worker whose name has a dash":             {"svc.my-endpoint", "", "my-endpoint", 0},
		"a name of only a dash and an id":                   {"svc.-1f", "", "-1f", 0},
		"the first id":                                      {"svc.e-1", "", "e", 1},
		"an id above 2^53":                                  {"svc.e-7d7ba2096ef23e32", "", "e", 9041998838276177458},
		"an id above 2^63":                                  {"svc.e-8000000000000001", "", "e", 1<<63 + 1},
		"the last id":                                       {"svc.e-ffffffffffffffff", "", "e", 1<<64 - 1},
		"an id of seventeen digits is part of the name":     {"svc.e-10000000000000000", "", "e-10000000000000000", 0},
		"so is one in upper case":                           {"svc.e-1F", "", "e-1F", 0},
		"so is a padded one":                                {"svc.e-01f", "", "e-01f", 0},
		"so is zero":                                        {"svc.e-0", "", "e-0", 0},
		"so is nothing":                                     {"svc.e-", "", "e-", 0},
		"a name that ends with a dash":                      {"svc.e--1f", "", "e-", 0x1f},
		"so is a sign":                                      {"svc.e-+1f", "", "e-+1f", 0},
		"so is a prefix":                                    {"svc.e-0x1f", "", "e-0x1f", 0},
		"so is an underscore":                               {"svc.e-1_f", "", "e-1_f", 0},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint, lease, ok := SplitSubject("svc", c.subject, func(s string) bool { return s == c.static })
			if endpoint != c.endpoint || lease != c.lease || !ok {
				t.Errorf("SplitSubject(%q) = %q, %x, %v, want %q, %x, true", c.subject, endpoint, lease, ok, c.endpoint, c.lease)
			}
			if got := Subject("svc", endpoint, lease); got != c.subject {
				t.Errorf("Subject(%q, %x) = %q, want %q", endpoint, lease, got, c.subject)
			}
		})
	}
}

func TestSplitSubjectRejectsOtherServices(t *testing.T) {
	for _, subject := range []string{
		"",
		"dynamo_backend",
		"dynamo_backend.",
		"dynamo_backend2.generate-1f",
		"dynamo_backend_9ce3f3b7.generate-1f",
		"xdynamo_backend.generate-1f",
		"dynamo_backen.generate-1f",
		"Dynamo_backend.generate-1f",
		"dynamo_backend.\xff-1f",
	} {
		if endpoint, lease, ok := SplitSubject("dynamo_backend", subject, noEndpoint); endpoint != "" || lease != 0 || ok {
			t.Errorf("SplitSubject(%q) = %q, %x, %v, want it rejected", subject, endpoint, lease, ok)
		}
	}
}

func TestValidNameLimitsLength(t *testing.T) {
	longest := strings.Repeat("e", 256)
	const id = 1<<64 - 1
	for _, c := range []struct {
		endpoint string
		want     bool
	}{{longest, true}, {longest + "e", false}} {
		for _, lease := range []uint64{0, id} {
			_, _, ok := SplitSubject("svc", Subject("svc", c.endpoint, lease), noEndpoint)
			if ok != c.want {
				t.Errorf("SplitSubject, %d bytes, lease %x: %v, want %v", len(c.endpoint), lease, ok, c.want)
			}
		}
		for _, l := range Layouts {
			for _, key := range []string{
				l.Key("dynamo", instance("backend", c.endpoint, id)),
				l.Key("dynamo", instance(c.endpoint, "generate", id)),
			} {
				if _, ok := l.ParseKey("dynamo", key); ok != c.want {
					t.Errorf("ParseKey, %d bytes: %v, want %v", len(c.endpoint), ok, c.want)
				}
			}
		}
		if got := ValidStaticID(c.endpoint); got != c.want {
			t.Errorf("ValidStaticID, %d bytes: %v, want %v", len(c.endpoint), got, c.want)
		}
	}
}

func TestValidStaticIDRejectsLeaseIDs(t *testing.T) {
	for id, want := range map[string]bool{
		"p6nqGIpvsufbGe0wLMOj0A": true, // captured
		"7d7ba2096ef23e32":       true, // the label is decimal
		"18446744073709551616":   true, // 2^64
		"-1":                     true,
		"18446744073709551615":   false,
		"9041998838276177458":    false,
		"0":                      false,
		"007":                    false,
		"":                       false,
		"a\xffb":                 false,
	} {
		if got := ValidStaticID(id); got != want {
			t.Errorf("ValidStaticID(%q) = %v, want %v", id, got, want)
		}
	}
}
