//go:build !unix

package app

// maxOpenFiles returns 0, because this system has no such limit.
func maxOpenFiles() int { return 0 }
