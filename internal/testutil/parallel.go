package testutil

import (
	"flag"
	"runtime"
	"strconv"
)

// SetParallel sets the number of parallel tests, unless the flag -parallel does. TestMain
// calls it. Tests with servers spend most of their time waiting for leases, poll intervals
// and grace periods.
func SetParallel(tests int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(max(tests, runtime.GOMAXPROCS(0))))
	}
}
