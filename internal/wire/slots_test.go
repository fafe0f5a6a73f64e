package wire

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
)

// covers reports whether a range has a key.
func covers(r *pb.RangeRequest, key string) bool {
	return string(r.Key) <= key && key < string(r.RangeEnd)
}

// TestSlotRanges: the ranges of a semaphore have its own slots and places, and nothing of those of
// other sizes, of other locks, or of whoever wants the lock alone, or shares it.
func TestSlotRanges(t *testing.T) {
	const lock = "a"
	sizes := []int{1, 2, 9, 10, 12, 120, mode.MaxSlots}
	others := []string{
		UnlinkedPlace(lock, 0x1f, 1), LinkedPlace(lock, 0x1f, 1), SharedPlace(lock, 0x1f, 1), "a/1f", "a/=", "a/=x",
		"a/=1", "a/=12", "a/=1/1f", "a/=12/=1.1f-1", "a/=01.1f-1", "a/=1" + tail, "a/ff", "a/z", Tail(lock), lock,
	}
	for _, n := range sizes {
		slots, places := between(SlotsRange(lock, n)), between(SlotPlaces(lock, n))
		own, rest := ownSlots(lock, n)
		mine := map[string]bool{Slot(lock, n, 0): true, Slot(lock, n, n-1): true, SlotPlace(lock, n, 0x1f, 1): false, SlotPlace(lock, n, -1, 12): false}
		for key, isSlot := range mine {
			if covers(slots, key) != isSlot || covers(places, key) == isSlot || !covers(own, key) || covers(rest[0], key) || covers(rest[1], key) {
				t.Errorf("of %d slots, %q", n, key)
			}
			if got, _ := SlotsOf(lock, key); got != n {
				t.Errorf("%q is of %d slots", key, got)
			}
		}
		all := others
		for _, m := range sizes {
			if m != n {
				all = append(all, Slot(lock, m, 0), SlotPlace(lock, m, 0x1f, 1))
			}
		}
		for _, key := range all {
			isBelow := covers(below(lock), key)
			if covers(slots, key) || covers(places, key) || covers(own, key) || (covers(rest[0], key) || covers(rest[1], key)) != isBelow {
				t.Errorf("of %d slots, the other key %q", n, key)
			}
			if got, _ := SlotsOf(lock, key); got == n {
				t.Errorf("%q is of %d slots", key, got)
			}
		}
	}
}

// TestSlotPlaces: a place of a semaphore is one whatever its size, also where the name of the lock
// looks like a part of it, and the tail names it. A slot is not a place.
func TestSlotPlaces(t *testing.T) {
	for _, lock := range []string{"a", "a/=3.b", "a/=3#0", "/=3.1f-1"} {
		for _, slots := range []int{1, 12, 120} {
			p := Place{Lock: lock, Key: SlotPlace(lock, slots, 0x1f, 2), Lease: 0x1f, ID: "me", Mode: mode.Mode(slots)}
			kv := &mvccpb.KeyValue{Key: []byte(p.Key), Lease: 0x1f}
			if !IsPlace(lock, kv) || len(NamedAsPlaces(lock, []*mvccpb.KeyValue{kv})) != 1 {
				t.Errorf("%q is not a place", p.Key)
			}
			if got, ok := ParseLink(lock, p.Tail()); !ok || got != (Link{Place: p.Key, Lease: 0x1f, ID: "me"}) {
				t.Errorf("the tail %q names %+v", p.Tail(), got)
			}
			slot := Slot(lock, slots, slots-1)
			i, of := SlotOf(lock, slot)
			if IsPlace(lock, &mvccpb.KeyValue{Key: []byte(slot), Lease: 0x1f}) || i != slots-1 || of != slots {
				t.Errorf("%q is slot %d of %d", slot, i, of)
			}
			for _, key := range []string{Slot(lock, slots, slots), Slot(lock, slots, -1), p.Key, lock} {
				if i, of := SlotOf(lock, key); i != -1 || of != 0 {
					t.Errorf("%q is slot %d of %d", key, i, of)
				}
			}
		}
	}
	// What is below a lock whose name is like that of a place, or of a slot, is not in line for the
	// lock above it.
	for _, key := range []string{"a/=3.b/=3.1f-1", "a/=3.b/~1f-1", "a/=3.1f/1f-1", "a/=3#0/1f-1", "a/=03.1f-1", "a/=0.1f-1"} {
		if IsPlace("a", &mvccpb.KeyValue{Key: []byte(key), Lease: 0x1f}) {
			t.Errorf("%q is a place of a", key)
		}
	}
}

// TestSeats: a record says which slot its place has, and a comparison of values that it has one.
func TestSeats(t *testing.T) {
	r := record.Self("me")
	r.Mode, r.Slots = mode.OfSlots(120).Name(), 120
	for _, entry := range []string{r.Marshal(), r.Stamp()(), `{"v":2,"id":"x"}`} {
		if record.SeatOf([]byte(entry)) != 0 || entry <= record.LastSeat {
			t.Errorf("%s has a slot", entry)
		}
		for _, slot := range []int{0, 9, 10, 119} {
			sits := record.Seated(entry, slot)
			got, err := record.Parse([]byte(sits))
			if record.SeatOf([]byte(sits)) != slot+1 || sits >= record.LastSeat || err != nil || got.Slot == nil || *got.Slot != slot {
				t.Errorf("%s: slot %d, %v", sits, record.SeatOf([]byte(sits))-1, err)
			}
		}
	}
	for _, value := range []string{"", "{", record.SeatMark, record.SeatMark + "1", record.SeatMark + "x,", record.SeatMark + "-1,", `{"v":1,"slot":1}`} {
		if seat := record.SeatOf([]byte(value)); seat != 0 {
			t.Errorf("%q has slot %d", value, seat-1)
		}
	}
}
