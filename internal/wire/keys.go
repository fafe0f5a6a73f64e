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

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
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

	// sized begins the names of all that there is of a semaphore, before the number of its slots.
	// It is less than linked, so all of it comes where strangers' keys do for whoever wants the
	// lock alone, or shares it.
	sized = "="

	// Behind the number of slots come a slot's own number, or the name of a place in line. What is
	// of a semaphore of another size has a digit there, and all digits are greater.
	slotMark, placeMark = "#", "."
)

// Tail returns the key that names the newest linked place in line for a lock. It is not below K/,
// where a Mutex would wait for it.
func Tail(lock string) string { return lock + tail }

// reserved are the ends of names that are no locks to anybody: the tail's, and those that are kept
// for what else there may be to say of a lock.
var reserved = []string{tail, "~runs", since}

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

// ModeOf returns how who stands at a place wants the lock, or has it.
func ModeOf(lock string, place *mvccpb.KeyValue) mode.Mode {
	if IsShared(lock, place) {
		return mode.Shared
	}
	slots, _ := SlotsOf(lock, string(place.Key))
	return mode.Mode(slots)
}

// SlotPlace returns the key of the n-th place that a lease takes in line for one of some slots.
func SlotPlace(lock string, slots int, lease clientv3.LeaseID, n int64) string {
	return semaphore(lock, slots) + placeMark + name(lease, n)
}

// Slot returns the key of one of a number of slots, from 0 on.
func Slot(lock string, slots, i int) string {
	return semaphore(lock, slots) + slotMark + strconv.Itoa(i)
}

func semaphore(lock string, slots int) string {
	return Prefix(lock) + sized + strconv.Itoa(slots)
}

// SlotsRange returns the range of keys that has all slots of a semaphore, and nothing else.
func SlotsRange(lock string, slots int) (from, to string) {
	from = semaphore(lock, slots) + slotMark
	return from, clientv3.GetPrefixRangeEnd(from)
}

// SlotPlaces returns the same of all places in line for a semaphore.
func SlotPlaces(lock string, slots int) (from, to string) {
	from = semaphore(lock, slots) + placeMark
	return from, clientv3.GetPrefixRangeEnd(from)
}

// SemaphoresRange returns the same of all that there is of semaphores, of all sizes.
func SemaphoresRange(lock string) (from, to string) {
	from = Prefix(lock) + sized
	return from, clientv3.GetPrefixRangeEnd(from)
}

// SlotsOf returns of how many slots the semaphore is that a key below K/ belongs to, as a place or
// as a slot, with what follows that number in the name. Slots is 0 if it belongs to none.
func SlotsOf(lock, key string) (slots int, rest string) {
	name, ok := strings.CutPrefix(key, Prefix(lock)+sized)
	end := strings.IndexAny(name, slotMark+placeMark)
	if !ok || end < 0 {
		return 0, ""
	}
	n, err := strconv.ParseUint(name[:end], 10, 31)
	if err != nil || n == 0 || n > mode.MaxSlots || name[0] == '0' {
		return 0, ""
	}
	return int(n), name[end:]
}

func name(lease clientv3.LeaseID, n int64) string {
	return strconv.FormatInt(int64(lease), 16) + "-" + strconv.FormatInt(n, 10)
}

// LinkedRange returns the range of keys, from one up to another, that has all linked places and no
// stranger's: whether there are strangers can be found out without going through the linked places.
func LinkedRange(lock string) (from, to string) {
	return Prefix(lock) + linked, Prefix(lock) + string(linked[0]+1)
}

// IsOf reports whether a key is a place in line for K, or a slot.
func IsOf(lock string, kv *mvccpb.KeyValue) bool {
	slot, _ := SlotOf(lock, string(kv.Key))
	return slot >= 0 || IsPlace(lock, kv)
}

// IsPlace reports whether a key below K/ is a place in line for K: its name is the hex of its own
// lease, as etcd's Mutex writes it, or has a number behind that, as UnlinkedPlace and, with more
// before it, LinkedPlace, SharedPlace and SlotPlace return it. All other keys belong to other
// locks: a/2024-10 is a lock.
func IsPlace(lock string, kv *mvccpb.KeyValue) bool {
	name, ok := strings.CutPrefix(string(kv.Key), Prefix(lock))
	if !ok || kv.Lease == 0 {
		return false
	}
	name, ours := strings.CutPrefix(name, linked)
	if ours {
		name = strings.TrimPrefix(name, sharing[len(linked):])
	}
	if _, rest := SlotsOf(lock, string(kv.Key)); rest != "" {
		if name, ours = strings.CutPrefix(rest, placeMark); !ours {
			return false
		}
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
	entry, _ := record.Parse(kv.Value) // anybody may have put anything there
	how := ModeOf(lock, kv)
	return Place{
		Lock:   lock,
		Key:    string(kv.Key),
		Lease:  clientv3.LeaseID(kv.Lease),
		ID:     entry.ID,
		Record: string(kv.Value),
		Linked: how.Slots() > 0 || how != mode.Shared && strings.HasPrefix(name, linked),
		Mode:   how,
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

// placeName matches the name of everything for which IsPlace may be true. Only strangers' places
// have no number behind the lease.
var placeName = regexp.MustCompile(`^((~s?|=[0-9]+\.)-?[0-9a-f]+-[0-9]+|-?[0-9a-f]+(-[0-9]+)?)$`)

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
	name := strings.TrimPrefix(l.Place, Prefix(lock))
	return linkVersion + " " + strings.TrimPrefix(name, linked) + " " + l.ID
}

// ParseLink reads the value of a lock's tail. It is not ok if the value is of another version, or
// was written by hand.
func ParseLink(lock, value string) (Link, bool) {
	version, rest, _ := strings.Cut(value, " ")
	name, id, ok := strings.Cut(rest, " ")
	key, place := Prefix(lock)+linked+name, name
	if _, of := SlotsOf(lock, Prefix(lock)+name); of != "" {
		key, place = Prefix(lock)+name, strings.TrimPrefix(of, placeMark)
	}
	hex, n, numbered := strings.Cut(place, "-")
	lease, err := strconv.ParseInt(hex, 16, 64)
	_, bad := strconv.ParseUint(n, 10, 64)
	if version != linkVersion || !ok || !numbered || err != nil || bad != nil {
		return Link{}, false
	}
	return Link{Place: key, Lease: clientv3.LeaseID(lease), ID: id}, true
}
