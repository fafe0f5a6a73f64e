// Package wire has everything that locks write to etcd, byte for byte: keys, records, the tail, and
// each transaction as a function. docs/protocol.md says what they mean.
package wire

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// tail is the end of the name of a lock's tail.
	tail = "~tail"

	// linked is the begin of the names of the places that the tail links. It is greater than any
	// hex digit, so strangers' places come before it.
	linked = "~"

	// sharing begins the names of the places of those who share the lock. It is greater than any
	// hex digit, so they come after all others.
	sharing = linked + "s"
)

// Tail returns the key that names the newest linked place in line for a lock. It is not below K/,
// where a Mutex would wait for it.
func Tail(lock string) string { return lock + tail }

// IsTail reports whether a key would be the tail of another lock.
func IsTail(key string) bool { return strings.HasSuffix(key, tail) }

// reserved are the ends of names that are no locks to anybody: the tail's, and those that are kept
// for what else there may be to say of a lock.
var reserved = []string{tail, "~runs", "~since"}

// ReservedEnd returns the end of a key that makes it none of a lock, or "".
func ReservedEnd(key string) string {
	i := slices.IndexFunc(reserved, func(end string) bool { return strings.HasSuffix(key, end) })
	if i < 0 {
		return ""
	}
	return reserved[i]
}

// Prefix returns what the keys of all places in line for a lock begin with.
func Prefix(lock string) string { return lock + "/" }

// LinkedPlace returns the key of the n-th place that a lease takes in line for a lock. Whoever
// creates it behind another one swaps the tail.
func LinkedPlace(lock string, lease clientv3.LeaseID, n int64) string {
	return Prefix(lock) + linked + name(lease, n)
}

// UnlinkedPlace returns the same for a user who may not write the tail. To those who may it looks
// like a stranger's place.
func UnlinkedPlace(lock string, lease clientv3.LeaseID, n int64) string {
	return Prefix(lock) + name(lease, n)
}

// SharedPlace returns the key of the n-th place that a lease takes to share a lock.
func SharedPlace(lock string, lease clientv3.LeaseID, n int64) string {
	return Prefix(lock) + sharing + name(lease, n)
}

// IsShared reports whether a place is that of one who shares the lock.
func IsShared(lock string, place *mvccpb.KeyValue) bool {
	return strings.HasPrefix(string(place.Key), Prefix(lock)+sharing)
}

func name(lease clientv3.LeaseID, n int64) string {
	return strconv.FormatInt(int64(lease), 16) + "-" + strconv.FormatInt(n, 10)
}

// LinkedRange returns the range of keys, from one up to another, that has all linked places and no
// stranger's: whether there are strangers can be found out without going through the linked places.
func LinkedRange(lock string) (from, to string) {
	return Prefix(lock) + linked, Prefix(lock) + string(linked[0]+1)
}

// IsPlace reports whether a key below K/ is a place in line for K: its name is the hex of its own
// lease, as etcd's Mutex writes it, or has a number behind that, as UnlinkedPlace and, with more
// before it, LinkedPlace and SharedPlace return it. All other keys belong to other locks: a/2024-10
// is a lock.
func IsPlace(lock string, kv *mvccpb.KeyValue) bool {
	name, ok := strings.CutPrefix(string(kv.Key), Prefix(lock))
	if !ok || kv.Lease == 0 {
		return false
	}
	name, ours := strings.CutPrefix(name, linked)
	if ours {
		name = strings.TrimPrefix(name, sharing[len(linked):])
	}
	rest, ok := strings.CutPrefix(name, strconv.FormatInt(kv.Lease, 16))
	if !ok || rest == "" {
		return ok && !ours
	}
	n, ok := strings.CutPrefix(rest, "-")
	if !ok {
		return false
	}
	_, err := strconv.ParseUint(n, 10, 64)
	return err == nil
}

// PlaceOf returns a place in line for K as whoever stands there knows it. It is not ok for all keys
// that are not places, and for the place of a Mutex, which has no number.
func PlaceOf(lock string, kv *mvccpb.KeyValue) (p Place, ok bool) {
	name, _ := strings.CutPrefix(string(kv.Key), Prefix(lock))
	if !IsPlace(lock, kv) || name == strconv.FormatInt(kv.Lease, 16) {
		return p, false
	}
	record, _ := ParseRecord(kv.Value) // anybody may have put anything there
	shares := IsShared(lock, kv)
	return Place{
		Lock:   lock,
		Key:    string(kv.Key),
		Lease:  clientv3.LeaseID(kv.Lease),
		ID:     record.ID,
		Record: string(kv.Value),
		Linked: strings.HasPrefix(name, linked) && !shares,
		Shared: shares,
	}, true
}

// Places returns the places in line for a lock among keys below K/, oldest first.
func Places(lock string, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	var places []*mvccpb.KeyValue
	for _, kv := range kvs {
		if IsPlace(lock, kv) {
			places = append(places, kv)
		}
	}
	slices.SortFunc(places, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	return places
}

// placeName matches the name of everything for which IsPlace may be true.
var placeName = regexp.MustCompile(`^(~s?)?-?[0-9a-f]+(-[0-9]+)?$`)

// NamedAsPlaces returns the keys below K/ that have the name of a place, newest first. Only their
// lease shows whether they are places, and etcd 3.7 does not tell leases with names alone.
func NamedAsPlaces(lock string, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	var places []*mvccpb.KeyValue
	for _, kv := range kvs {
		if name, ok := strings.CutPrefix(string(kv.Key), Prefix(lock)); ok && placeName.MatchString(name) {
			places = append(places, kv)
		}
	}
	slices.SortFunc(places, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(b.CreateRevision, a.CreateRevision) })
	return places
}

// A Link is the value of a tail: a linked place, and who stands there.
type Link struct {
	Place string // the key
	Lease clientv3.LeaseID
	ID    string
}

// linkVersion is the version of the tail's value. A reader that finds another one knows only that
// somebody has joined.
const linkVersion = "1"

// Marshal returns the link as the tail's value: the version, the name of the place, and the id.
func (l Link) Marshal(lock string) string {
	return linkVersion + " " + strings.TrimPrefix(l.Place, Prefix(lock)+linked) + " " + l.ID
}

// ParseLink reads the value of a lock's tail. It is not ok if the value is of another version, or
// was written by hand.
func ParseLink(lock, value string) (Link, bool) {
	version, rest, _ := strings.Cut(value, " ")
	name, id, ok := strings.Cut(rest, " ")
	hex, n, numbered := strings.Cut(name, "-")
	lease, err := strconv.ParseInt(hex, 16, 64)
	_, bad := strconv.ParseUint(n, 10, 64)
	if version != linkVersion || !ok || !numbered || err != nil || bad != nil {
		return Link{}, false
	}
	return Link{Place: Prefix(lock) + linked + name, Lease: clientv3.LeaseID(lease), ID: id}, true
}
