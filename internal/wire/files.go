package wire

import "strings"

// FileBuckets are the directories, below the root of file discovery
// (DYN_DISCOVERY_BACKEND=file, 0.8 to 1.6), that hold what this program reads. A file
// is what a key is in etcd, with the same value.
var FileBuckets = [...]string{"v1/instances", "v1/mdc", "v1/event_channels"}

// FileName is the directory and the name of the file that a key has in file
// discovery: its first two words, and the rest of it with every byte that is no
// letter or digit percent-encoded, even where it was so already.
func FileName(key string) (bucket, name string) {
	first, rest, _ := strings.Cut(key, "/")
	second, rest, _ := strings.Cut(rest, "/")
	return first + "/" + second, escape(rest, "")
}

// FileKey is the inverse of FileName. It reports false for a file that is no key's,
// such as the temporary ones (.tmp_…) in which values are written.
func FileKey(bucket, name string) (key string, ok bool) {
	rest, ok := unescape(name)
	if !ok || name == "" || escape(rest, "") != name {
		return "", false
	}
	return bucket + "/" + rest, true
}
