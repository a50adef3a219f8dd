//go:build unix

package app

import (
	"math"
	"syscall"
)

// maxOpenFiles returns how many files and connections the program may have open, or 0 for no
// limit. Go has already raised the soft limit to the hard limit.
func maxOpenFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return 0
	}
	return int(limit.Cur)
}
