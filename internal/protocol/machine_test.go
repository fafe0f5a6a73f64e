package protocol

import (
	"slices"
	"testing"

	"github.com/etcdlock/etcdlock/internal/message"
)

// told returns what a machine does when it is told some things, one after another.
func told(m *Machine, inputs ...message.Input) (done []message.Effect) {
	for _, in := range inputs {
		done = append(done, m.Step(in)...)
	}
	return done
}

// does reports whether one of some effects is of a kind.
func does(effects []message.Effect, do message.Do) bool {
	return slices.ContainsFunc(effects, func(e message.Effect) bool { return e.Do == do })
}

// waiter returns a machine that waits at a place created in revision 10, and holder one that holds
// the lock since revision 10.
func waiter(shared bool) *Machine {
	m := New(Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Record: "record", Tail: "tail", Linked: true, Shared: shared})
	ahead := message.Ahead{Key: "/k/0", Create: 5}
	told(&m, message.Acquire{}, message.Answer{Outcome: message.Refused, Rev: 10, Else: true, Ahead: ahead}, message.Settled{})
	return &m
}

func holder(shared bool) *Machine {
	m := New(Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Record: "record", Tail: "tail", Linked: true, Shared: shared})
	told(&m, message.Acquire{}, message.Answer{Outcome: message.Applied, Rev: 10}, message.Settled{})
	return &m
}

// TestGrantedAndLost: a lock that is lost as soon as it was granted was granted: whoever waits for
// that has a token, and hears of the loss.
func TestGrantedAndLost(t *testing.T) {
	for _, shared := range []bool{false, true} {
		m := waiter(shared)
		done := told(m, message.Event{Of: message.OnPlace, KV: message.KV{Create: 10, Mod: 20, Lease: 1, Value: "record"}}, message.LeaseLost{})
		if m.Token() != 20 || !does(done, message.TellHeld) || !does(done, message.TellLost) || does(done, message.TellEnd) {
			t.Errorf("token %d, %v", m.Token(), done)
		}
	}
}

// TestReleaseOfALostLock: it is confirmed only if what is left is removed. A lease that is not
// shared must be revoked for that.
func TestReleaseOfALostLock(t *testing.T) {
	for _, shared := range []bool{false, true} {
		m := holder(shared)
		told(m, message.GraceBegun{})
		done := told(m, message.Release{})
		i := slices.IndexFunc(done, func(e message.Effect) bool { return e.Do == message.TellReleased })
		if i < 0 || done[i].Confirmed != shared || done[i].Reason != message.Unrenewed {
			t.Errorf("shared %v: %v", shared, done)
		}
		if does(done, message.Send) != shared {
			t.Errorf("shared %v: %v", shared, done)
		}
	}
}

// TestLostTwice: the first reason is told, and the second one, by force, is known as well.
func TestLostTwice(t *testing.T) {
	m := holder(false)
	key := message.KV{Create: 5, Mod: 10}
	if done := told(m, message.Observation{Rev: 11, Keys: message.Keys{Place: message.KV{Create: 10, Mod: 10}}}); !does(done, message.TellLost) || does(done, message.TellExpired) {
		t.Errorf("without K: %v", done)
	}
	if done := told(m, message.Observation{Rev: 12, Keys: message.Keys{Lock: key, Place: message.KV{Create: 10, Mod: 12}}}); does(done, message.TellLost) || !does(done, message.TellExpired) || !m.LostPlace() {
		t.Errorf("with another's place: %v", done)
	}
}

// TestSettledTooEarly: while a request to join is under way, what is said of the ones before it
// does not count.
func TestSettledTooEarly(t *testing.T) {
	m := New(Config{Lock: "/k", Place: "/k/1", Lease: 1, Linked: true, Shared: true})
	told(&m, message.Acquire{}, message.Settled{}, message.Cancel{})
	done := told(&m, message.Answer{Outcome: message.Unknown, Repeated: true})
	if m.State() != Unconfirmed || !does(done, message.Track) {
		t.Errorf("%v: %v", m.State(), done)
	}
}

// TestKeyOfASibling: a key with our lease and id was left by an earlier try of ours only if no
// place was written with it, and it is still there. Else another lock of the session holds it, and
// is waited for.
func TestKeyOfASibling(t *testing.T) {
	own := message.KV{Create: 5, Mod: 5, Lease: 1, Value: "me"}
	ours := message.Keys{Lock: own, Place: message.KV{Create: 10, Mod: 10}}
	for _, entry := range []message.Answer{
		{Outcome: message.Refused, Rev: 10, Repeated: true, Else: true, Keys: message.Keys{Lock: own}, Ahead: message.Ahead{Key: "/k/0", Create: 5}},
		{Outcome: message.Refused, Rev: 10, Repeated: true, Ours: true, Keys: ours},
	} {
		for _, read := range []struct {
			message.Answer
			left bool
		}{
			{message.Answer{Outcome: message.Applied, Found: own}, true},
			{message.Answer{Outcome: message.Applied, Found: own, Some: true}, false},
			{message.Answer{Outcome: message.Applied, Found: message.KV{Create: 12, Mod: 12}}, false},
		} {
			m := New(Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Linked: true, Shared: true})
			done := told(&m, message.Acquire{}, entry)
			if m.State() != Joining || !does(done, message.Send) || m.request.Name != message.ReadWritten {
				t.Fatalf("%v: %v", m.State(), done)
			}
			told(&m, read.Answer)
			if left := m.State() >= Leaving; left != read.left {
				t.Errorf("%+v, %+v: %v", entry, read, m.State())
			}
		}
	}
}

// TestDeniedAfterApplied: a release that was applied, and denied when it was made again, is not a
// loss.
func TestDeniedAfterApplied(t *testing.T) {
	m := waiter(true)
	told(m, message.Event{Of: message.OnPlace, KV: message.KV{Create: 10, Mod: 20, Lease: 1, Value: "record"}}, message.Release{}, message.Answer{Outcome: message.Denied, Repeated: true})
	done := told(m, message.Answer{Outcome: message.Refused}, message.Answer{Outcome: message.Applied, Rev: 30})
	i := slices.IndexFunc(done, func(e message.Effect) bool { return e.Do == message.TellReleased })
	if i < 0 || done[i].Reason != message.NotLost || !done[i].Confirmed {
		t.Errorf("%v", done)
	}
}

// TestPassedBeforeTheAnswer: whoever was passed the lock before it heard that it had joined removes
// the tail when it releases: its request to join has written that. Whoever won at once has not.
func TestPassedBeforeTheAnswer(t *testing.T) {
	for token, tail := range map[int64]bool{20: true, 10: false} {
		m := New(Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Linked: true, Shared: true})
		keys := message.Keys{Lock: message.KV{Create: 5, Mod: token}, Place: message.KV{Create: 10, Mod: token}}
		told(&m, message.Acquire{}, message.Answer{Outcome: message.Refused, Repeated: true, Ours: true, Keys: keys}, message.Settled{})
		done := told(&m, message.Release{})
		i := slices.IndexFunc(done, func(e message.Effect) bool { return e.Do == message.Send })
		if i < 0 || done[i].Request.Tail != tail {
			t.Errorf("token %d: %v", token, done)
		}
	}
}
