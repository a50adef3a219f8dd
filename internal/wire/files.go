package wire

import "strings"

// FileBuckets are the directories below the root of file discovery
// (DYN_DISCOVERY_BACKEND=file, 0.8 to 1.6) that this program reads. A file there
// corresponds to a key in etcd and has the same value.
var FileBuckets = [...]string{"v1/instances", "v1/mdc", "v1/event_channels"}

// FileName returns the directory and the name of a key's file in file discovery. The
// directory is the first two parts of the key. The name is the rest. In it every byte except
// letters and digits is percent-encoded, even if the key was percent-encoded already.
func FileName(key string) (bucket, name string) {
	first, rest, _ := strings.Cut(key, "/")
	second, rest, _ := strings.Cut(rest, "/")
	return first + "/" + second, escape(rest, "")
}

// FileKey is the inverse of FileName. It reports false for a file that belongs to no key,
// such as the temporary files (.tmp_…) in which Dynamo writes values.
func FileKey(bucket, name string) (key string, ok bool) {
	rest, ok := unescape(name)
	if !ok || name == "" || escape(rest, "") != name {
		return "", false
	}
	return bucket + "/" + rest, true
}
