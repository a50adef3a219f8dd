package devstacktest

import (
	"flag"
	"runtime"
	"strconv"
)

// AtOnce, called by TestMain, has twelve parallel tests run at once, unless -parallel says
// otherwise: most of what tests with servers do is waiting, for leases, rounds and grace.
func AtOnce() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(max(12, runtime.GOMAXPROCS(0))))
	}
}
