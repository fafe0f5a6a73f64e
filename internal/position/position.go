// Package position is what a machine of package protocol knows of its place in line, and of its
// neighbours.
package position

import "github.com/etcdlock/etcdlock/internal/message"

// A Position is what a machine knows of its place in line, and of its neighbours.
type Position struct {
	Create  int64       // the revision that created the place; 0 as long as that is not known
	Unsure  bool        // it is not known whether the place was created
	Written int64       // when the place was written as it is: from then on the lock was ours
	End     message.End // why the place is useless

	Lease  int64        // of the place
	Kind   message.Kind // of the line
	Shares bool         // the lock, with others who do
	Asks   bool         // for a slot: the place may have it before the answer is there

	Named bool // the tail named it when it was created
	Ahead message.Ahead

	// Who joined next; the place is "" if it is not one to which the lock can be passed.
	Next message.Successor
	// Of the tail, as long as it is not known which of them came after create.
	Changes []message.Successor

	Watches [message.Watchers]bool
	// From which revision on the tail is watched, 0: from when the watch began.
	TailFrom              int64
	PlaceSince, TailSince int64 // from when on the watches miss nothing
}

// Joined takes note of the revision that created the place. It reports whether something may have
// happened to the place, or to the tail, before the watches began.
func (p *Position) Joined(create int64) (missedPlace, missedTail bool) {
	p.Create, p.Unsure = create, false
	p.Choose()
	return p.PlaceSince > create, p.TailSince > create
}

// Choose finds the successor: who changed the tail first. As long as something may have been
// missed, that is not known.
func (p *Position) Choose() {
	if p.Create <= 0 || p.Next.Joined != 0 || p.TailSince == 0 || p.TailSince > p.Create {
		return
	}
	for _, change := range p.Changes {
		if change.Joined > p.Create {
			p.Next = change
			break
		}
	}
	p.Changes = nil
}

// Created takes note of a watch that was created. It reports whether what it watches has to be
// read, and whether the tail has to be watched from an earlier revision on.
func (p *Position) Created(w message.Watching) (read, missedTail bool) {
	switch w.Of {
	case message.OnPlace:
		p.PlaceSince = w.Since
		return w.Again || p.Create > 0 && w.Since > p.Create, false
	case message.OnTail:
		since := w.Since
		if p.TailFrom > 0 {
			since = p.TailFrom - 1
		}
		p.TailSince = max(since, 1)
		p.Choose()
		return false, p.Create > 0 && since > p.Create
	default:
		return true, false
	}
}

// Follow takes note of a change of the tail.
func (p *Position) Follow(e message.Event) {
	if e.Deleted || p.Next.Joined != 0 || e.KV.Mod <= p.Create {
		return
	}
	// Another copy of the machine may have these.
	changes := make([]message.Successor, len(p.Changes), len(p.Changes)+1)
	copy(changes, p.Changes)
	p.Changes = append(changes, message.Successor{Link: e.Link, Joined: e.KV.Mod})
	p.Choose()
}

// Heard takes note of an event of the place, which waits and has a record as its value. It reports
// whether the state has to be read to know what has happened.
func (p *Position) Heard(e message.Event, record string) (read bool) {
	switch {
	case !e.Deleted && e.KV.Create == e.KV.Mod:
		return p.Create > 0 && e.KV.Mod > p.Create
	case !e.Deleted && e.KV.Lease == p.Lease && e.KV.Value == record && !p.Shares:
		p.Written = e.KV.Mod
		return false
	case !e.Deleted && e.KV.Seat > 0 && p.Asks: // the answer tells of the slot
		return false
	}
	return true
}

// Passed takes note of an event of the predecessor's key.
func (p *Position) Passed(e message.Event) {
	if e.Deleted {
		p.Ahead.Gone = true
		return
	}
	p.Ahead.Is(e.KV, p.Create, p.Kind)
	p.Ahead.Held = p.Ahead.Held || p.Ahead.Granted(e)
}

// ObserveAhead draws conclusions from K and the predecessor's key, in one revision.
func (p *Position) ObserveAhead(key string, lock, kv message.KV) {
	switch {
	case key != p.Ahead.Key:
	case !kv.Exists():
		p.Ahead.Gone = true
	default:
		p.Ahead.Is(kv, p.Create, p.Kind)
		p.Ahead.Held = p.Ahead.Held || lock.Mod == kv.Mod
	}
}

// Observe draws conclusions from the state of a place that waits.
func (p *Position) Observe(k message.Keys) {
	switch own := k.Place; {
	case !own.Exists() || own.Create != p.Create:
		p.End = message.Deleted
	case own.Mod == p.Create, p.Asks && own.Seat > 0: // the answer tells of the slot
	case k.Holds() && !p.Shares:
		p.Written = own.Mod
	default:
		p.End = message.Overwritten
	}
}

// Granted returns the token if the lock was granted to the place while it waited.
func (p *Position) Granted() (token int64, is bool) {
	return p.Written, p.End == message.NotEnded && p.Create > 0 && p.Written > p.Create
}

// Watch takes note that a key is watched from a revision on. It reports whether it was not before.
func (p *Position) Watch(of message.Watched, from int64) bool {
	if p.Watches[of] {
		return false
	}
	p.Watches[of] = true
	if of == message.OnTail {
		p.TailFrom = from
	}
	return true
}

// Unwatch takes note that a key is not watched any more. It reports whether it was before.
func (p *Position) Unwatch(of message.Watched) (was bool) {
	was, p.Watches[of] = p.Watches[of], false
	return was
}

// ForgetNext makes it unknown who is next.
func (p *Position) ForgetNext() {
	p.Next, p.TailSince, p.Changes = message.Successor{}, 0, nil
}

// Overwriting returns what somebody has written over the lock, so that its holder stops.
func (p *Position) Overwriting(k message.Keys) string {
	if p.Shares {
		return k.Place.Value
	}
	return k.Lock.Value
}

// Compare returns how a lock was lost that was granted to the place with a token, by K and the
// place, if it was.
func (p *Position) Compare(k message.Keys, token int64) message.Reason {
	switch {
	case !k.Place.Exists() && !k.Lock.Exists() && !p.Shares:
		return message.LeaseGone
	case !k.Place.Exists() && p.Kind > message.Plain && k.Lock.Create != token: // the next has it
		return message.LeaseGone
	case k.Place.Create != p.Create:
		return message.PlaceLost
	case p.Shares && k.Place.Lease != p.Lease: // nobody takes it for a place any more
		return message.PlaceLost
	case p.Shares && k.Place.Mod != p.Create:
		return message.KeyOverwritten
	case p.Shares: // whatever K is
	case k.Place.Mod != token:
		return message.PlaceLost
	case p.Kind > message.Plain && k.Lock.Create != token: // another one can have the slot
		return message.SlotLost
	case !k.Lock.Exists():
		return message.KeyDeleted
	case k.Lock.Mod != token:
		return message.KeyOverwritten
	}
	return message.NotLost
}
