package protocol

import (
	"slices"
	"testing"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
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
	m := New(message.Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Record: "record", Linked: true, Shared: shared})
	ahead := message.Ahead{Key: "/k/0", Create: 5}
	told(&m, message.Acquire{}, message.Answer{Outcome: message.Refused, Rev: 10, Else: true, Ahead: ahead}, message.Settled{})
	return &m
}

func holder(shared bool) *Machine {
	m := New(message.Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Record: "record", Linked: true, Shared: shared})
	told(&m, message.Acquire{}, message.Answer{Outcome: message.Applied, Rev: 10}, message.Settled{})
	return &m
}

// TestGrantedAndLost: a lock that is lost as soon as it was granted was granted: whoever waits for
// that has a token, and hears of the loss.
func TestGrantedAndLost(t *testing.T) {
	for _, shared := range []bool{false, true} {
		m := waiter(shared)
		done := told(m, message.Event{Of: message.OnPlace, KV: message.KV{Create: 10, Mod: 20, Lease: 1, Value: "record"}}, message.LeaseLost{})
		if m.Token != 20 || !does(done, message.TellHeld) || !does(done, message.TellLost) || does(done, message.TellEnd) {
			t.Errorf("token %d, %v", m.Token, done)
		}
	}
}

// TestWatchOfAHolder: who has waited for long watches its lock once it has held it for long enough,
// and not as soon as it holds it.
func TestWatchOfAHolder(t *testing.T) {
	watchesLock := func(done []message.Effect) bool {
		return slices.ContainsFunc(done, func(e message.Effect) bool { return e.Do == message.Watch && e.Of == message.OnLock })
	}
	m := waiter(true)
	granted := message.Event{Of: message.OnPlace, KV: message.KV{Create: 10, Mod: 20, Lease: 1, Value: "record"}}
	if done := told(m, message.Lasting{}, granted); !does(done, message.TellHeld) || watchesLock(done) {
		t.Errorf("granted: %v", done)
	}
	if done := told(m, message.Lasting{}); !watchesLock(done) {
		t.Errorf("it lasts: %v", done)
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
	m := New(message.Config{Lock: "/k", Place: "/k/1", Lease: 1, Linked: true, Shared: true})
	told(&m, message.Acquire{}, message.Settled{}, message.Cancel{})
	done := told(&m, message.Answer{Outcome: message.Unknown, Repeated: true})
	if m.State != standing.Unconfirmed || !does(done, message.Track) {
		t.Errorf("%v: %v", m.State, done)
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
			m := New(message.Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Linked: true, Shared: true})
			done := told(&m, message.Acquire{}, entry)
			if m.State != standing.Joining || !does(done, message.Send) || m.Request.Name != message.ReadWritten {
				t.Fatalf("%v: %v", m.State, done)
			}
			told(&m, read.Answer)
			if left := m.State >= standing.Leaving; left != read.left {
				t.Errorf("%+v, %+v: %v", entry, read, m.State)
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

// TestTailThatIsRemoved: whoever releases the lock removes the tail if its request to join may have
// written that: also if it was passed the lock before it heard that it had joined, and if a try of
// it may come late. Whoever won at the first try has not.
func TestTailThatIsRemoved(t *testing.T) {
	keys := func(token int64) message.Keys {
		return message.Keys{Lock: message.KV{Create: 5, Mod: token}, Place: message.KV{Create: 10, Mod: token}}
	}
	for name, joined := range map[string]struct {
		message.Answer
		tail bool
	}{
		"won at the first try": {message.Answer{Outcome: message.Applied, Rev: 10}, false},
		"won at the second":    {message.Answer{Outcome: message.Applied, Rev: 10, Repeated: true}, true},
		"an earlier try won":   {message.Answer{Outcome: message.Refused, Repeated: true, Ours: true, Keys: keys(10)}, true},
		"passed meanwhile":     {message.Answer{Outcome: message.Refused, Repeated: true, Ours: true, Keys: keys(20)}, true},
	} {
		m := New(message.Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Linked: true, Shared: true})
		told(&m, message.Acquire{}, joined.Answer, message.Settled{})
		done := told(&m, message.Release{})
		i := slices.IndexFunc(done, func(e message.Effect) bool { return e.Do == message.Send })
		if i < 0 || done[i].Request.Tail != joined.tail {
			t.Errorf("%s: %v", name, done)
		}
	}
}

// TestGrantedInAPause: whoever is granted the lock, or loses its place, while it waits to read a
// long line does not wait any more.
func TestGrantedInAPause(t *testing.T) {
	own := message.KV{Create: 10, Mod: 20, Lease: 1, Value: "record"}
	for name, in := range map[string]struct {
		message.Input
		end standing.State
	}{
		"granted": {message.Event{Of: message.OnPlace, KV: own}, standing.Held},
		"deleted": {message.Observation{Rev: 20}, standing.Leaving},
	} {
		m := waiter(true)
		m.Position().Ahead.Link = message.Link{Place: "/k/0"}
		told(m, message.Event{Of: message.OnAhead, KV: message.KV{Create: 5, Mod: 5}}, message.Event{Of: message.OnAhead, Deleted: true})
		for range 40 { // the history tells of places that are gone
			if m.Paused || m.State != standing.Looking && m.State != standing.Claiming {
				break
			}
			a := message.Answer{Outcome: message.Applied}
			switch m.Request.Name {
			case message.ReadHistory:
				a.Keys.Lock = message.KV{Create: 5, Mod: 5}
				a.Tail, a.Ahead = message.KV{Create: 3, Mod: 3}, message.Ahead{Key: "/k/0", Create: 3, Link: message.Link{Place: "/k/0"}}
			case message.Claim:
				a.Outcome, a.Keys = message.Refused, message.Keys{Lock: a.Keys.Lock, Place: message.KV{Create: 10, Mod: 10, Lease: 1, Value: "record"}}
			}
			told(m, a)
		}
		if !m.Paused {
			t.Fatalf("%s: it does not pause: %v, %v", name, m.State, m.Request)
		}
		if told(m, in.Input); m.State != in.end {
			t.Errorf("%s: %v", name, m.State)
		}
	}
}

// TestGivesUpInDoubt: whoever gives up before it is known whether K was left by an earlier try
// looks for that when it leaves, though K is older than the place.
func TestGivesUpInDoubt(t *testing.T) {
	own := message.KV{Create: 5, Mod: 5, Lease: 1, Value: "me"}
	place := message.KV{Create: 10, Mod: 10, Lease: 1}
	entry := message.Answer{Outcome: message.Refused, Rev: 10, Repeated: true, Else: true, Keys: message.Keys{Lock: own}, Ahead: message.Ahead{Key: "/k/0", Create: 5}}
	for name, inputs := range map[string][]message.Input{
		"cancelled":              {message.Cancel{}, entry},
		"cancelled, a read late": {entry, message.Cancel{}, message.Answer{Outcome: message.Unknown}},
		"a read denied":          {entry, message.Answer{Outcome: message.Denied}},
	} {
		m := New(message.Config{Lock: "/k", Place: "/k/1", Lease: 1, ID: "me", Linked: true, Shared: true})
		done := told(&m, message.Acquire{})
		done = append(done, told(&m, inputs...)...)
		done = append(done, told(&m, message.Settled{})...)
		removed := false
		for range 10 {
			if m.State == standing.Gone || len(done) == 0 {
				break
			}
			a := message.Answer{Outcome: message.Applied}
			switch r := m.Request; {
			case r.Name == message.ReadState:
				a.Keys = message.Keys{Lock: own, Place: place}
			case r.Name == message.ReadWritten, r.Name == message.ReadTail && r.Place == "/k":
				a.Found = own
			case r.Name == message.RemoveKey:
				removed = removed || r.Rev == own.Mod
			}
			done = told(&m, a)
		}
		if m.State != standing.Gone || !removed {
			t.Errorf("%s: %v, removed %v", name, m.State, removed)
		}
	}
}
