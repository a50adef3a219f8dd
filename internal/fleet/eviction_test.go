package fleet

import (
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestEvictionOfOwnUnregisteredAttachments(t *testing.T) {
	f := newFleet(everything, largeLimit)
	for i := range 64 {
		register(f, numberedEndpoint(i), 1)
		publishAt(f, numberedEndpoint(i), 2, 5) // the registry never has these
	}
	f.RecordHit(2, 20, 5)
	wantRefused(t, f, nil)
	publishAt(f, numberedEndpoint(64), 2, 7) // the registry has this one later
	register(f, numberedEndpoint(64), 2)
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
	testutil.Equal(t, "registrations", f.EndpointsOf(2), []Endpoint{numberedEndpoint(64)})
	testutil.Equal(t, "load", f.workers.get(lease(2)).attachmentAt(numberedEndpoint(64)).ranks[0].load.V.KVActive.V, 7)
	testutil.Equal(t, "attachments", f.footprint.attachments, 65)
}

func TestEvictionKeepsPendingEvents(t *testing.T) {
	f := newFleet(everything, 4)
	for i := range 32 {
		register(f, numberedEndpoint(i), uint64(1+i%2))
	}
	publishAt(f, numberedEndpoint(40), 3, 7)
	register(f, numberedEndpoint(32), 1)
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
	testutil.Equal(t, "needs sync while full", f.NeedsSync(), false)
	register(f, numberedEndpoint(40), 3)
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 2})
	deregister(f, numberedEndpoint(0), 1)
	testutil.Equal(t, "needs sync with room", f.NeedsSync(), true)
	register(f, numberedEndpoint(40), 3)
	testutil.Equal(t, "load", f.workers.get(lease(3)).attachmentAt(numberedEndpoint(40)).ranks[0].load.V.KVActive.V, 7)
}

func TestEvictionOfRegisteringWorkerItself(t *testing.T) {
	f := newFleet(everything, 4)
	for i := range 31 {
		register(f, numberedEndpoint(i), 1)
	}
	publishAt(f, numberedEndpoint(0), 2, 5)
	publishAt(f, numberedEndpoint(31), 2, 7)
	f.RecordHit(2, 20, 5)
	register(f, numberedEndpoint(31), 2)
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
	w := f.workers.get(lease(2))
	testutil.Equal(t, "attachments", len(w.attachments), 1)
	testutil.Equal(t, "load", w.attachments[0].ranks[0].load.V.KVActive.V, 7)
	testutil.Equal(t, "hits endpoint", w.hitsEndpoint.Endpoint, numberedEndpoint(31))
}

// TestEvictionKeepsEndpointNamedUnknown registers an endpoint with the name of the endpoint of
// unknown ids.
func TestEvictionKeepsEndpointNamedUnknown(t *testing.T) {
	for _, registersFirst := range []bool{true, false} {
		f := newFleet(everything, 10_000)
		f.bounds.unregisteredEndpoints = 2
		if !registersFirst {
			f.RecordHit(99, 20, 5)
		}
		register(f, f.unknown, 1)
		f.RecordHit(99, 20, 5)
		f.RecordHit(1, 20, 5)
		deregister(f, f.unknown, 1)
		for i := range 4 {
			register(f, numberedEndpoint(i), 2)
			publishAt(f, numberedEndpoint(i), uint64(100+i), 5)
		}
		for i := range 4 {
			deregister(f, numberedEndpoint(i), 2)
		}
		after(f, time.Second) // evicts two of the four, and must not loop for ever over the endpoint "unknown"
		wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 2})
		testutil.Equal(t, "endpoints", len(f.endpoints), 3)
		after(f, time.Hour)
		after(f, 2*time.Hour)
		wantShown(t, f)
	}
}

func TestEvictionAfterModelCardIsGone(t *testing.T) {
	f := newFleet(everything, 4)
	register(f, generate, 1)
	for i := range 10 {
		setCard(f, numberedEndpoint(i), 2)
		f.RecordPollReply(loaded(numberedEndpoint(i), lease(2), 5))
	}
	wantRefused(t, f, nil)
	for i := range 10 {
		f.DropCard(keyOf(Instance{numberedEndpoint(i), 2}), Instance{numberedEndpoint(i), 2})
	}
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 10 - 4})
	testutil.Equal(t, "attachments", []int32{f.footprint.attachments, f.footprint.unregisteredAttachments}, []int32{5, 4})
}

func TestEvictionOfEndpointWithExpiredEvents(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, numberedEndpoint(0), 1)
	publishAt(f, numberedEndpoint(0), 2, 5)
	deregister(f, numberedEndpoint(0), 1)
	testutil.Equal(t, "endpoints", len(f.endpoints), 1)
	for m := range 22 {
		f.RecordLoad(Origin{Worker: 2}, FromLoadEvent, Load{KVActive: Some[uint64](5)}) // later events name no endpoint
		after(f, time.Duration(1+m)*time.Minute)
		checkInvariants(t, f)
	}
	testutil.Equal(t, "the endpoint is known", f.endpoints[numberedEndpoint(0)] != nil, false)
	testutil.Equal(t, "workers", f.workers.len(), 1)
}

func TestEvictionTrimsRanksOfUnlistedWorker(t *testing.T) {
	f := newFleet(everything, largeLimit)
	f.bounds.unregisteredRanks = 10
	registerPublishing(f, generate, 999)
	setCard(f, generate, 1)
	publishRanks(f, generate, 1, 80)
	publishRanks(f, Endpoint{}, 1, 70)
	wantRefused(t, f, nil)
	f.DropCard(keyOf(Instance{generate, 1}), Instance{generate, 1})
	testutil.Equal(t, "ranks", f.footprint.unregisteredRanks, 10)
	wantRefused(t, f, map[stats.Limit]uint64{stats.RankLimit: 140})
}
