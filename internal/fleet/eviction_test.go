package fleet

import (
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestAWorkerThatRegistersPushesOutWhatIsSaidInItsName(t *testing.T) {
	f := fleetAt(everything, plenty)
	for i := range 64 {
		register(f, at(i), 1)
		publishedAt(f, at(i), 2, 5) // all of it is made up
	}
	f.Hit(2, 20, 5)
	turnedAway(t, f, nil)
	publishedAt(f, at(64), 2, 7) // and this is not
	register(f, at(64), 2)
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
	testutil.Equal(t, "registrations", f.Registrations(2), []Endpoint{at(64)})
	testutil.Equal(t, "load", f.workers.of(lease(2)).at(at(64)).ranks[0].load.V.KVActive.V, 7)
	testutil.Equal(t, "attachments", f.held.attachments, 65)
}

func TestWhatWaitsDoesNotGiveWayToAttachments(t *testing.T) {
	f := fleetAt(everything, 4)
	for i := range 32 {
		register(f, at(i), uint64(1+i%2))
	}
	publishedAt(f, at(40), 3, 7)
	register(f, at(32), 1)
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
	testutil.Equal(t, "listed anew while full", f.WantsSync(), false)
	register(f, at(40), 3)
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 2})
	deregister(f, at(0), 1)
	testutil.Equal(t, "listed anew with room", f.WantsSync(), true)
	register(f, at(40), 3)
	testutil.Equal(t, "load", f.workers.of(lease(3)).at(at(40)).ranks[0].load.V.KVActive.V, 7)
}

func TestAWorkerThatStandsInItsOwnWayIsShownWhereItRegisters(t *testing.T) {
	f := fleetAt(everything, 4)
	for i := range 31 {
		register(f, at(i), 1)
	}
	publishedAt(f, at(0), 2, 5)
	publishedAt(f, at(31), 2, 7)
	f.Hit(2, 20, 5)
	register(f, at(31), 2)
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
	w := f.workers.of(lease(2))
	testutil.Equal(t, "attachments", len(w.seats), 1)
	testutil.Equal(t, "load", w.seats[0].ranks[0].load.V.KVActive.V, 7)
	testutil.Equal(t, "where it is hit", w.home.Endpoint, at(31))
}

// What registers may have the name that the endpoint of unknown ids has.
func TestAnEndpointThatIsCalledUnknownGivesWayToNothing(t *testing.T) {
	for _, registersFirst := range []bool{true, false} {
		f := fleetAt(everything, 10_000)
		f.bounds.heard = 2
		if !registersFirst {
			f.Hit(99, 20, 5)
		}
		register(f, f.unknown, 1)
		f.Hit(99, 20, 5)
		f.Hit(1, 20, 5)
		deregister(f, f.unknown, 1)
		for i := range 4 {
			register(f, at(i), 2)
			publishedAt(f, at(i), uint64(100+i), 5)
		}
		for i := range 4 {
			deregister(f, at(i), 2)
		}
		after(f, time.Second) // pushes out two of the four, and does not try the other one for ever
		turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 2})
		testutil.Equal(t, "endpoints", len(f.endpoints), 3)
		after(f, time.Hour)
		after(f, 2*time.Hour)
		shows(t, f)
	}
}

func TestWhatAModelCardLeavesIsBounded(t *testing.T) {
	f := fleetAt(everything, 4)
	register(f, generate, 1)
	for i := range 10 {
		card(f, at(i), 2)
		f.Report(loaded(at(i), lease(2), 5))
	}
	turnedAway(t, f, nil)
	for i := range 10 {
		f.DropCard(keyOf(Instance{at(i), 2}), Instance{at(i), 2})
	}
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 10 - 4})
	testutil.Equal(t, "attachments", []int32{f.held.attachments, f.held.unregistered}, []int32{5, 4})
}

func TestAnEndpointIsForgottenWithWhatWasSaidOfIt(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, at(0), 1)
	publishedAt(f, at(0), 2, 5)
	deregister(f, at(0), 1)
	testutil.Equal(t, "endpoints", len(f.endpoints), 1)
	for m := range 22 {
		f.Publish(Origin{Worker: 2}, FromLoadEvent, Load{KVActive: Some[uint64](5)}) // it goes on, of no endpoint
		after(f, time.Duration(1+m)*time.Minute)
		audit(t, f)
	}
	testutil.Equal(t, "it is", f.endpoints[at(0)] != nil, false)
	testutil.Equal(t, "workers", f.workers.len(), 1)
}

func TestRanksOfAWorkerThatIsListedNoMoreAreTrimmed(t *testing.T) {
	f := fleetAt(everything, plenty)
	f.bounds.strayRanks = 10
	publishing(f, generate, 999)
	card(f, generate, 1)
	manyRanks(f, generate, 1, 80)
	manyRanks(f, Endpoint{}, 1, 70)
	turnedAway(t, f, nil)
	f.DropCard(keyOf(Instance{generate, 1}), Instance{generate, 1})
	testutil.Equal(t, "ranks", f.held.strays, 10)
	turnedAway(t, f, map[stats.Limit]uint64{stats.RankLimit: 140})
}
