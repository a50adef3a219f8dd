package testutil

import (
	"flag"
	"runtime"
	"strconv"
)

// AtOnce, called by TestMain, has so many parallel tests run at once, unless -parallel says
// otherwise: most of what tests with servers do is waiting, for leases, rounds and grace.
func SetParallel(tests int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(max(tests, runtime.GOMAXPROCS(0))))
	}
}
