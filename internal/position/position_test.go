package position

import (
	"reflect"
	"testing"

	"github.com/etcdlock/etcdlock/internal/message"
)

// kv returns a key of lease 1 that was created, and last written, in some revisions.
func kv(create, mod int64) message.KV { return message.KV{Create: create, Mod: mod, Lease: 1} }

// TestCompare: what K and the place are tells how the lock was lost, which was granted in revision
// 12 to a place of revision 10. A slot is created when it is taken.
func TestCompare(t *testing.T) {
	alone := Position{Create: 10, Lease: 1}
	shares := Position{Create: 10, Lease: 1, Shares: true}
	slot := Position{Create: 10, Lease: 1, Kind: 3}
	absent := message.KV{}
	for _, c := range []struct {
		name        string
		p           Position
		lock, place message.KV
		want        message.Reason
	}{
		{"both are as they were", alone, kv(12, 12), kv(10, 12), message.NotLost},
		{"K was passed on", alone, kv(5, 12), kv(10, 12), message.NotLost},
		{"both are gone", alone, absent, absent, message.LeaseGone},
		{"the place is gone", alone, kv(12, 12), absent, message.PlaceLost},
		{"the place is gone, and somebody else has K", alone, kv(14, 14), absent, message.PlaceLost},
		{"the place was created anew", alone, kv(12, 12), kv(14, 14), message.PlaceLost},
		{"the place was overwritten", alone, kv(12, 12), kv(10, 14), message.PlaceLost},
		{"K is gone", alone, absent, kv(10, 12), message.KeyDeleted},
		{"K was overwritten", alone, kv(12, 14), kv(10, 12), message.KeyOverwritten},
		{"K was created anew", alone, kv(14, 14), kv(10, 12), message.KeyOverwritten},

		{"a shared one, K is absent", shares, absent, kv(10, 10), message.NotLost},
		{"a shared one, K is there", shares, kv(14, 14), kv(10, 10), message.NotLost},
		{"a shared one is gone", shares, absent, absent, message.PlaceLost},
		{"a shared one has another lease", shares, absent, message.KV{Create: 10, Mod: 14, Lease: 2}, message.PlaceLost},
		{"a shared one was overwritten", shares, absent, kv(10, 14), message.KeyOverwritten},

		{"a slot is as it was", slot, kv(12, 12), kv(10, 12), message.NotLost},
		{"a slot was overwritten", slot, kv(12, 14), kv(10, 12), message.KeyOverwritten},
		{"a slot and the place are gone", slot, absent, absent, message.LeaseGone},
		{"a slot is the next one's", slot, kv(14, 14), absent, message.LeaseGone},
		{"a slot is there, and the place is gone", slot, kv(12, 12), absent, message.PlaceLost},
		{"a slot is gone", slot, absent, kv(10, 12), message.SlotLost},
		{"a slot was created anew", slot, kv(14, 14), kv(10, 12), message.SlotLost},
		{"the place of a slot was overwritten", slot, kv(12, 12), kv(10, 14), message.PlaceLost},
	} {
		if got := c.p.Compare(message.Keys{Lock: c.lock, Place: c.place}, 12); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// changed is an event of the tail, which then names a place.
func changed(place string, in int64) message.Event {
	return message.Event{Of: message.OnTail, KV: kv(1, in), Link: message.Link{Place: place}}
}

// TestFollow: the successor is who changed the tail first after the place was created, in revision
// 10, whether that is told before the revision is known or later, unless something was missed.
func TestFollow(t *testing.T) {
	deleted := changed("x", 11)
	deleted.Deleted = true
	for _, c := range []struct {
		name  string
		since int64 // the watches tell what comes after it; 0: there are none
		early []message.Event
		late  []message.Event // after the revision of the place is known
		next  string

		missedPlace, missedTail bool
	}{
		{"nobody", 9, nil, nil, "", false, false},
		{"told before", 9, []message.Event{changed("a", 11)}, nil, "a", false, false},
		{"told after", 9, nil, []message.Event{changed("a", 11)}, "a", false, false},
		{"the first of two before", 9, []message.Event{changed("a", 11), changed("b", 12)}, nil, "a", false, false},
		{"the first of two after", 9, nil, []message.Event{changed("a", 11), changed("b", 12)}, "a", false, false},
		{"one before and one after", 9, []message.Event{changed("a", 11)}, []message.Event{changed("b", 12)}, "a", false, false},
		{"an older one", 8, []message.Event{changed("old", 9), changed("a", 11)}, nil, "a", false, false},
		{"its own", 9, []message.Event{changed("me", 10), changed("a", 11)}, nil, "a", false, false},
		{"its own later", 9, nil, []message.Event{changed("me", 10)}, "", false, false},
		{"a deletion", 9, []message.Event{deleted}, []message.Event{deleted, changed("a", 12)}, "a", false, false},
		{"a watch from the place on", 10, nil, []message.Event{changed("a", 11)}, "a", false, false},
		{"a watch that came late", 11, []message.Event{changed("b", 12)}, []message.Event{changed("c", 13)}, "", true, true},
		{"not watched yet", 0, []message.Event{changed("a", 11)}, []message.Event{changed("b", 12)}, "", false, false},
	} {
		p := Position{Lease: 1}
		if c.since > 0 {
			p.Created(message.Watching{Of: message.OnPlace, Since: c.since})
			p.Created(message.Watching{Of: message.OnTail, Since: c.since})
		}
		for _, e := range c.early {
			p.Follow(e)
		}
		if p.Next.Joined != 0 {
			t.Errorf("%s: %q is next of a place that is not known", c.name, p.Next.Place)
		}
		missedPlace, missedTail := p.Joined(10)
		if missedPlace != c.missedPlace || missedTail != c.missedTail {
			t.Errorf("%s: missed of the place %v, of the tail %v", c.name, missedPlace, missedTail)
		}
		for _, e := range c.late {
			p.Follow(e)
		}
		if p.Next.Place != c.next {
			t.Errorf("%s: %q is next, not %q", c.name, p.Next.Place, c.next)
		}
	}
}

// TestFollowCopies: what another copy of the machine follows does not reach this one.
func TestFollowCopies(t *testing.T) {
	p := Position{}
	for in := range int64(3) { // then append would leave room for one more
		p.Follow(changed("a", 11+in))
	}
	one, other := p, p
	one.Follow(changed("b", 14))
	other.Follow(changed("c", 14))
	if got := one.Changes[3].Place; got != "b" {
		t.Errorf("it has %q, not b", got)
	}
}

// TestForgetNext: who is next is found again by a watch from the place on.
func TestForgetNext(t *testing.T) {
	p := Position{Create: 10, TailSince: 9}
	p.Follow(changed("a", 11))
	p.ForgetNext()
	p.Follow(changed("b", 12))
	if p.Next.Joined != 0 {
		t.Errorf("%q is next, and the tail is not watched", p.Next.Place)
	}
	p.Changes = nil
	p.Watches[message.OnTail] = false
	p.Watch(message.OnTail, 11)
	p.Created(message.Watching{Of: message.OnTail, Since: 20})
	if p.Follow(changed("a", 11)); p.Next.Place != "a" {
		t.Errorf("%q is next", p.Next.Place)
	}
}

// TestCreated: a watch that was created shows whether its key has to be read, and whether the tail
// has to be watched from an earlier revision on. The place is of revision 10.
func TestCreated(t *testing.T) {
	for _, c := range []struct {
		name         string
		create, from int64
		w            message.Watching
		read, missed bool
	}{
		{"of the place, before it", 10, 0, message.Watching{Of: message.OnPlace, Since: 9}, false, false},
		{"of the place, with it", 10, 0, message.Watching{Of: message.OnPlace, Since: 10}, false, false},
		{"of the place, after it", 10, 0, message.Watching{Of: message.OnPlace, Since: 11}, true, false},
		{"of the place, not known yet", 0, 0, message.Watching{Of: message.OnPlace, Since: 11}, false, false},
		{"of the place, again", 10, 0, message.Watching{Of: message.OnPlace, Since: 9, Again: true}, true, false},
		{"of the tail, before it", 10, 0, message.Watching{Of: message.OnTail, Since: 9}, false, false},
		{"of the tail, with it", 10, 0, message.Watching{Of: message.OnTail, Since: 10}, false, false},
		{"of the tail, after it", 10, 0, message.Watching{Of: message.OnTail, Since: 11}, false, true},
		{"of the tail, not known yet", 0, 0, message.Watching{Of: message.OnTail, Since: 11}, false, false},
		{"of the tail, from the place on", 10, 11, message.Watching{Of: message.OnTail, Since: 20}, false, false},
		{"of the tail, from later on", 10, 12, message.Watching{Of: message.OnTail, Since: 20}, false, true},
		{"of K", 10, 0, message.Watching{Of: message.OnLock, Since: 9}, true, false},
		{"of the predecessor", 10, 0, message.Watching{Of: message.OnAhead, Since: 9}, true, false},
		{"of the slots", 10, 0, message.Watching{Of: message.OnSlots, Since: 9}, true, false},
	} {
		p := Position{Create: c.create, TailFrom: c.from}
		if read, missed := p.Created(c.w); read != c.read || missed != c.missed {
			t.Errorf("%s: read %v, missed %v", c.name, read, missed)
		}
	}
}

// TestObserve: the state of a place of revision 10 tells whether it waits, has the lock, or is
// useless.
func TestObserve(t *testing.T) {
	sits := message.KV{Create: 10, Mod: 12, Lease: 1, Seat: 2}
	for _, c := range []struct {
		name        string
		p           Position
		lock, place message.KV
		end         message.End
		token       int64 // 0: it was not granted
	}{
		{"it waits", Position{}, kv(5, 5), kv(10, 10), message.NotEnded, 0},
		{"it was granted", Position{}, kv(5, 12), kv(10, 12), message.NotEnded, 12},
		{"it is gone", Position{}, kv(5, 5), message.KV{}, message.Deleted, 0},
		{"it was created anew", Position{}, kv(5, 5), kv(11, 11), message.Deleted, 0},
		{"it was overwritten", Position{}, kv(5, 5), kv(10, 12), message.Overwritten, 0},
		{"it was overwritten, without K", Position{}, message.KV{}, kv(10, 12), message.Overwritten, 0},
		{"it shares the lock", Position{Shares: true}, kv(5, 5), kv(10, 10), message.NotEnded, 0},
		{"it shares the lock, and is written with K", Position{Shares: true}, kv(5, 12), kv(10, 12), message.Overwritten, 0},
		{"it asks for a slot, and has one", Position{Asks: true, Kind: 3}, message.KV{}, sits, message.NotEnded, 0},
		{"it has a slot that it did not ask for", Position{Kind: 3}, kv(5, 12), sits, message.Overwritten, 0},
	} {
		c.p.Create, c.p.Lease = 10, 1
		c.p.Observe(message.Keys{Lock: c.lock, Place: c.place})
		token, is := c.p.Granted()
		if c.p.End != c.end || is != (c.token > 0) || is && token != c.token {
			t.Errorf("%s: end %v, granted %v in %d", c.name, c.p.End, is, token)
		}
	}
}

// TestSearchNext: the search in the history stops at a place that is there and older than 20, goes
// on behind one that is gone, and ends in vain where nobody was named, or after some steps.
func TestSearchNext(t *testing.T) {
	gone := message.Ahead{Key: "c", Create: 15, Link: message.Link{Place: "c"}, Seen: true}
	before := message.Ahead{Key: "b", Create: 12, Link: message.Link{Place: "b"}}
	begin := func() (s Search) {
		r, ok := s.Back(gone)
		if want := (message.Request{Name: message.ReadHistory, Place: "c", Rev: 15}); !ok || r != want {
			t.Fatalf("it begins with %v, %v", r, ok)
		}
		return s
	}
	for _, c := range []struct {
		name  string
		a     message.Answer
		of    message.Kind
		found string
		asks  message.Request
	}{
		{"there and older", message.Answer{Keys: message.Keys{Lock: kv(5, 5), Place: kv(15, 15)}}, 0, "c", message.Request{}},
		{"there and younger", message.Answer{Keys: message.Keys{Lock: kv(5, 5), Place: kv(25, 25)}, Tail: kv(1, 14), Ahead: before}, 0, "",
			message.Request{Name: message.ReadHistory, Place: "b", Rev: 12}},
		{"gone", message.Answer{Keys: message.Keys{Lock: kv(5, 5)}, Tail: kv(1, 14), Ahead: before}, 0, "",
			message.Request{Name: message.ReadHistory, Place: "b", Rev: 12}},
		{"gone, nobody was named", message.Answer{Keys: message.Keys{Lock: kv(5, 5)}}, 0, "", message.Request{}},
		{"gone, and a tail that cannot be read", message.Answer{Keys: message.Keys{Lock: kv(5, 5)}, Tail: kv(1, 14)}, 0, "", message.Request{}},
		{"gone, and the lock is free", message.Answer{Tail: kv(1, 14), Ahead: before}, 0, "", message.Request{}},
		{"has a slot", message.Answer{Keys: message.Keys{Lock: kv(5, 5), Place: message.KV{Create: 15, Mod: 16, Seat: 1}}}, 3, "", message.Request{}},
	} {
		s := begin()
		s.ahead.Kind = c.of
		found, r, ok := s.Next(c.a, 20, c.of)
		if found.Key != c.found || ok != (c.asks.Name != "") || ok && r != c.asks || s.Crowd {
			t.Errorf("%s: found %q, asks %v %v, a crowd %v", c.name, found.Key, ok, r, s.Crowd)
		}
		if want := (message.Ahead{Key: "c", Create: 15, Link: gone.Link, Seen: true}); c.found != "" && !reflect.DeepEqual(found, want) {
			t.Errorf("%s: found %+v", c.name, found)
		}
	}
	s, steps := begin(), 0
	for ok := true; ok && steps <= stepsBack; steps++ {
		_, _, ok = s.Next(message.Answer{Keys: message.Keys{Lock: kv(5, 5)}, Tail: kv(1, 14), Ahead: before}, 20, 0)
	}
	if steps != stepsBack || !s.Crowd {
		t.Errorf("%d steps back, a crowd %v", steps, s.Crowd)
	}
}
