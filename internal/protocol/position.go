package protocol

// An Ahead is a key that stands before the place, as it was created.
type Ahead struct {
	Key    string
	Create int64
	Link   Link // the tail that named it, if one did
	seen   bool // it was there
	held   bool // it was a place of the holder's
	gone   bool
}

// left reports whether somebody left the line at a place that is gone, and perhaps many with them.
// A place that held the lock, and one that was gone before it was seen, do not show that: the line
// moves, and the history of the tail, which is that of all turns, has only places that are gone.
func (a Ahead) left() bool { return a.seen && !a.held }

// granted reports whether an event wrote the place as only a grant writes it: as it was. What an
// operator puts there does not show that anybody held the lock.
func (a Ahead) granted(e Event) bool {
	known := a.Link.Place == "" || e.ID == a.Link.ID && e.KV.Lease == a.Link.Lease
	return e.KV.Mod > e.KV.Create && e.Record && known
}

// is compares a key that is there with the one that stood before the place, which was created
// before the revision than. Of a key that a tail has named the first reading tells when it was
// created.
func (a *Ahead) is(kv KV, than int64) {
	if a.Link.Place != "" && !a.seen && kv.Create < than {
		a.Create = kv.Create
	}
	a.seen = true
	a.gone = a.gone || kv.Create != a.Create
}

// A Successor is who joined next, and the revision of that.
type Successor struct {
	Link
	Joined int64
}

// A position is what a machine knows of its place in line, and of its neighbours.
type position struct {
	create  int64 // the revision that created the place; 0 as long as that is not known
	unsure  bool  // it is not known whether the place was created
	written int64 // when the place was written as it is: from then on the lock was ours
	end     End   // why the place is useless

	named bool // the tail named it when it was created
	ahead Ahead

	// Who joined next; the place is "" if it is not one to which the lock can be passed.
	next    Successor
	changes []Successor // of the tail, as long as it is not known which of them came after create

	watches [watchers]bool
	// From which revision on the tail is watched, 0: from when the watch began.
	tailFrom              int64
	placeSince, tailSince int64 // from when on the watches miss nothing
}

// joined takes note of the revision that created the place. It reports whether something may have
// happened to the place, or to the tail, before the watches began.
func (p *position) joined(create int64) (missedPlace, missedTail bool) {
	p.create, p.unsure = create, false
	p.choose()
	return p.placeSince > create, p.tailSince > create
}

// choose finds the successor: who changed the tail first. As long as something may have been
// missed, that is not known.
func (p *position) choose() {
	if p.create <= 0 || p.next.Joined != 0 || p.tailSince == 0 || p.tailSince > p.create {
		return
	}
	for _, change := range p.changes {
		if change.Joined > p.create {
			p.next = change
			break
		}
	}
	p.changes = nil
}

// created takes note of a watch that was created. It reports whether what it watches has to be
// read, and whether the tail has to be watched from an earlier revision on.
func (p *position) created(w Watching) (read, missedTail bool) {
	switch w.Of {
	case OnPlace:
		p.placeSince = w.Since
		return w.Again || p.create > 0 && w.Since > p.create, false
	case OnTail:
		since := w.Since
		if p.tailFrom > 0 {
			since = p.tailFrom - 1
		}
		p.tailSince = max(since, 1)
		p.choose()
		return false, p.create > 0 && since > p.create
	default:
		return true, false
	}
}

// follow takes note of a change of the tail.
func (p *position) follow(e Event) {
	if e.Deleted || p.next.Joined != 0 || e.KV.Mod <= p.create {
		return
	}
	// Another copy of the machine may have these.
	changes := make([]Successor, len(p.changes), len(p.changes)+1)
	copy(changes, p.changes)
	p.changes = append(changes, Successor{e.Link, e.KV.Mod})
	p.choose()
}

// passed takes note of an event of the predecessor's key.
func (p *position) passed(e Event) {
	if e.Deleted {
		p.ahead.gone = true
		return
	}
	p.ahead.is(e.KV, p.create)
	p.ahead.held = p.ahead.held || p.ahead.granted(e)
}

// observeAhead draws conclusions from K and the predecessor's key, in one revision.
func (p *position) observeAhead(key string, lock, kv KV) {
	switch {
	case key != p.ahead.Key:
	case !kv.Exists():
		p.ahead.gone = true
	default:
		p.ahead.is(kv, p.create)
		p.ahead.held = p.ahead.held || lock.Mod == kv.Mod
	}
}

// observe draws conclusions from the state of a place that waits.
func (p *position) observe(k Keys) {
	switch own := k.Place; {
	case !own.Exists() || own.Create != p.create:
		p.end = Deleted
	case own.Mod == p.create:
	case k.holds():
		p.written = own.Mod
	default:
		p.end = Overwritten
	}
}

// granted returns the token if the lock was granted to the place while it waited.
func (p *position) granted() (token int64, is bool) {
	return p.written, p.end == NotEnded && p.create > 0 && p.written > p.create
}
