package protocol

import (
	"slices"
	"testing"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
)

// sitter returns a machine that wants one of two slots.
func sitter(try bool) *Machine {
	m := New(message.Config{Lock: "/k", Place: "/k/=2.1-1", Lease: 1, ID: "me", Record: "record", Linked: true, Kind: 2, Try: try})
	told(&m, message.Acquire{})
	return &m
}

// next returns one that is next to have a slot, since revision 10. All are held.
func next() *Machine {
	m := sitter(false)
	told(m, message.Answer{Outcome: message.Refused, Free: -1}, message.Answer{Outcome: message.Applied, Rev: 10, Free: -1}, message.Settled{})
	told(m, message.Watching{Of: message.OnSlots, Since: 11}, message.Answer{Outcome: message.Refused, Free: -1, Keys: turn(10)})
	return m
}

// turn returns K and a place that was created in revision 10, both of which were last written in
// some revision.
func turn(in int64) message.Keys {
	return message.Keys{
		Lock:  message.KV{Create: 10, Mod: in, Lease: 1, Value: "me"},
		Place: message.KV{Create: 10, Mod: in, Lease: 1, Value: "record"},
	}
}

// sends returns the requests among some effects.
func sends(effects []message.Effect) (all []message.Request) {
	for _, e := range effects {
		if e.Do == message.Send {
			all = append(all, e.Request)
		}
	}
	return all
}

// TestTriesWhereASlotIsFree: whoever only tries gives up where all slots are held, or somebody has
// K. If a slot is free, something below K/ may be in the way that is not a place: the line tells.
func TestTriesWhereASlotIsFree(t *testing.T) {
	held := message.Keys{Lock: message.KV{Create: 5, Mod: 5}}
	for name, tt := range map[string]struct {
		read  message.Answer
		joins bool
	}{
		"all are held":   {message.Answer{Free: -1}, false},
		"somebody has K": {message.Answer{Free: 0, Keys: held}, false},
		"one is free":    {message.Answer{Free: 0}, true},
	} {
		m := sitter(true)
		done := told(m, message.Answer{Outcome: message.Refused, Free: 0}, tt.read)
		joins := slices.ContainsFunc(sends(done), func(r message.Request) bool { return r.Name == message.AcquireOrJoin })
		if joins != tt.joins || does(done, message.TellBusy) == tt.joins {
			t.Errorf("%s: %v", name, done)
		}
	}
}

// TestFirstIsWoken: whoever is next asks for a slot again when one was given back, and for that
// one; also if that happened before the watch began, or while it asked.
func TestFirstIsWoken(t *testing.T) {
	given := message.Event{Of: message.OnSlots, Deleted: true, Slot: 1}
	for name, in := range map[string]message.Input{
		"a slot is given back":   given,
		"the watch is created":   message.Watching{Of: message.OnSlots, Since: 20},
		"the watch began anew":   message.Watching{Of: message.OnSlots, Since: 20, Again: true},
		"a read after a renewal": message.Observation{Rev: 20, Keys: turn(10)},
	} {
		m := next()
		asked := sends(told(m, in))
		if len(asked) != 1 || asked[0].Name != message.TakeSlot || asked[0].Rev != 10 {
			t.Errorf("%s: %v", name, asked)
		}
		if in == message.Input(given) && asked[0].Slot != 1 {
			t.Errorf("it asks for slot %d", asked[0].Slot)
		}
		told(m, given)
		asked = sends(told(m, message.Answer{Outcome: message.Refused, Free: -1, Keys: turn(10)}))
		if len(asked) != 1 || asked[0].Name != message.TakeSlot {
			t.Errorf("%s, and a slot is given back while it asks: %v", name, asked)
		}
	}
	m := next()
	if asked := sends(told(m, message.Event{Of: message.OnSlots, Slot: 1})); len(asked) != 0 {
		t.Errorf("a slot is taken: %v", asked)
	}
}

// TestTouchedIsNotNext: an operator who writes the place as it is makes it look as if K had been
// passed to it. That hands out no slot: K tells.
func TestTouchedIsNotNext(t *testing.T) {
	m := sitter(false)
	entry := message.Answer{Outcome: message.Refused, Rev: 10, Else: true, Free: -1, Ahead: message.Ahead{Key: "/k/=2.0-1", Create: 5, Kind: 2}}
	told(m, message.Answer{Outcome: message.Refused, Free: -1}, entry, message.Settled{})
	touch := message.Event{Of: message.OnPlace, KV: message.KV{Create: 10, Mod: 20, Lease: 1, Value: "record"}}
	if asked := sends(told(m, touch)); m.State != standing.First || len(asked) != 0 {
		t.Fatalf("%v: %v, and the watch has not begun", m.State, asked)
	}
	if asked := sends(told(m, message.Watching{Of: message.OnSlots, Since: 21})); len(asked) != 1 || asked[0].Name != message.TakeSlot || asked[0].Rev != 20 {
		t.Fatalf("%v: %v", m.State, asked)
	}
	keys := turn(20)
	keys.Lock = message.KV{Create: 5, Mod: 5, Lease: 9, Value: "other"}
	done := told(m, message.Answer{Outcome: message.Refused, Free: 0, Keys: keys})
	if does(done, message.TellHeld) || !does(done, message.TellEnd) {
		t.Errorf("%v: %v", m.State, done)
	}
}
