package place

import (
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// tail is what the name of a lock's tail ends in.
const tail = "~tail"

// Tail is the key that names the newest linked place in line for a lock. It is not below K/, where a Mutex would wait for it.
func Tail(lock string) string { return lock + tail }

// IsTail reports whether a key would be the tail of another lock.
func IsTail(key string) bool { return strings.HasSuffix(key, tail) }

// A Link names a linked place and who stands there.
type Link struct {
	Place string // the key
	Lease clientv3.LeaseID
	ID    string
}

// Marshal returns the link as the tail's value.
func (l Link) Marshal(lock string) string {
	return strings.TrimPrefix(l.Place, Prefix(lock)+linked) + " " + l.ID
}

// ParseLink reads the value of a lock's tail.
func ParseLink(lock, value string) (Link, bool) {
	name, id, ok := strings.Cut(value, " ")
	hex, n, numbered := strings.Cut(name, "-")
	lease, err := strconv.ParseInt(hex, 16, 64)
	if _, bad := strconv.ParseUint(n, 10, 64); !ok || !numbered || err != nil || bad != nil {
		return Link{}, false
	}
	return Link{Place: Prefix(lock) + linked + name, Lease: clientv3.LeaseID(lease), ID: id}, true
}
