//go:build unix

package app

import (
	"math"
	"syscall"
)

// descriptors is how many files and connections the program may have open; 0: as many as
// it likes. Go has raised the limit as far as it may.
func maxOpenFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return 0
	}
	return int(limit.Cur)
}
