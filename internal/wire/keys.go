// Package wire has everything that locks write to etcd, byte for byte: keys, records, the tail, and
// each transaction as a function. docs/protocol.md says what they mean.
package wire

import (
	"cmp"
	"errors"
	"fmt"
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

	// sharing begins the names of the places of those who share the lock, as linked does those of
	// all that the tail links, or that stand behind one of these. It is greater than any hex digit.
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

// SharedPlace returns the key of the n-th place that a lease takes to share a lock. Its run is that
// of all who share the lock behind one place, their gate: the revision that created the gate. It is
// 0 for those who met no tail.
func SharedPlace(lock string, run int64, lease clientv3.LeaseID, n int64) string {
	return runPrefix(lock, run) + runEnd + name(lease, n)
}

// runEnd ends the run in the name of a place.
const runEnd = "."

func runPrefix(lock string, run int64) string {
	return fmt.Sprintf("%s%s%016x", Prefix(lock), sharing, run)
}

// runRange returns the range of keys, from one up to another, of the places of some runs: their
// names are in the order of the revisions.
func runRange(lock string, first, last int64) (from, to string) {
	return runPrefix(lock, first) + runEnd, runPrefix(lock, last) + string(runEnd[0]+1)
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
	if shared, is := strings.CutPrefix(name, sharing[len(linked):]); ours && is {
		run, rest, _ := strings.Cut(shared, runEnd)
		if _, err := strconv.ParseUint(run, 16, 64); err != nil {
			return false
		}
		name = rest
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
var placeName = regexp.MustCompile(`^(~?|~s[0-9a-f]+\.)-?[0-9a-f]+(-[0-9]+)?$`)

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

	// Created is the revision that created the place. 0 means that the tail was written in it.
	Created int64
}

// linkVersion is the version of the tail's value. A reader that finds another one knows only that
// somebody has joined.
const linkVersion = "1"

// createdBy is between the name of a place and the revision that created it.
const createdBy = "!"

// Marshal returns the link as the tail's value: the version, the name of the place, and the id. If
// the tail is put back, when it was created follows the name.
func (l Link) Marshal(lock string) string {
	created := ""
	if l.Created > 0 {
		created = createdBy + strconv.FormatInt(l.Created, 10)
	}
	return l.begin(lock) + created + " " + l.ID
}

// begin returns the tail's value up to the name of the place.
func (l Link) begin(lock string) string {
	return linkVersion + " " + strings.TrimPrefix(l.Place, Prefix(lock)+linked)
}

// ParseLink reads the value of a lock's tail. It is not ok if the value is of another version, or
// was written by hand.
func ParseLink(lock, value string) (Link, bool) {
	version, rest, _ := strings.Cut(value, " ")
	name, id, ok := strings.Cut(rest, " ")
	name, revision, again := strings.Cut(name, createdBy)
	hex, n, numbered := strings.Cut(name, "-")
	lease, err := strconv.ParseInt(hex, 16, 64)
	_, bad := strconv.ParseUint(n, 10, 64)
	created, wrong := int64(0), error(nil)
	if again {
		created, wrong = strconv.ParseInt(revision, 10, 64)
	}
	if version != linkVersion || !ok || !numbered || errors.Join(err, bad, wrong) != nil {
		return Link{}, false
	}
	return Link{Place: Prefix(lock) + linked + name, Lease: clientv3.LeaseID(lease), ID: id, Created: created}, true
}
