package etcdlock

import (
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/watch"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A standing is what a contender knows of its place in line, and of its neighbours there. It is guarded by contender.mu.
type standing struct {
	create  int64 // CreateRevision of the place, 0 as long as it is not known
	written int64 // when the place was last written as it is: from then on the lock was ours
	doom    error // why the place is of no use any more

	tail  bool // the tail named it when it was created
	ahead obstacle

	next    *wire.Successor   // nil if nobody is known to stand behind
	changes []*wire.Successor // of the tail, until it is known which came after the place

	onPlace, onKey, onTail, onAhead *watch.Watch
	placeSince, tailSince           int64 // from when on the watches miss nothing
}

// unknownRevision is that of a place of which it is not known whether it was created.
const unknownRevision = -1

// An obstacle is a key that stands in the way, as it was created.
type obstacle struct {
	key    string
	create int64
	link   string // the tail that named it, if one did
	seen   bool   // it was there
	held   bool   // it was a place of the holder's
	gone   bool
}

// left reports whether somebody left the line at a place that is gone, and perhaps many with them.
// One that held the lock, and one that was gone before it was seen, does not show that: the line
// moves, and nobody in the history of the tail, which is that of all turns, may be there any more.
func (o *obstacle) left() bool { return o.seen && !o.held }

// joined takes note of the revision that created the place. It reports whether something may have happened to the place, or to the
// tail, before it was watched.
func (s *standing) joined(create int64) (lookPlace, lookTail bool) {
	s.create = create
	s.choose()
	return s.placeSince > create, s.tailSince > create
}

// choose finds the successor: who changed the tail first. As long as something may have been missed, that is not known.
func (s *standing) choose() {
	if s.create <= 0 || s.next != nil || s.tailSince == 0 || s.tailSince > s.create {
		return
	}
	for _, change := range s.changes {
		if change.Joined > s.create {
			s.next = change
			break
		}
	}
	s.changes = nil
}

// confirmed takes note of a watch that is confirmed, and reports whether what it watches has to be read, and whether the tail is to be
// watched from an earlier revision on.
func (s *standing) confirmed(w *watch.Watch, since int64, again bool) (look, lookTail bool) {
	switch w {
	case s.onPlace:
		s.placeSince = since
		return again || s.create > 0 && since > s.create, false
	case s.onTail:
		if from := w.From(); from > 0 {
			since = from - 1
		}
		s.tailSince = max(since, 1)
		s.choose()
		return false, s.create > 0 && since > s.create
	case s.onKey, s.onAhead:
		return true, false
	}
	return false, false
}

// follow takes note of a change of the tail.
func (s *standing) follow(lock string, e *mvccpb.Event) {
	if e.Type != mvccpb.PUT || s.next != nil || e.Kv.ModRevision <= s.create {
		return
	}
	link, _ := wire.ParseLink(lock, string(e.Kv.Value)) // else empty: somebody has joined
	s.changes = append(s.changes, &wire.Successor{Link: link, Joined: e.Kv.ModRevision})
	s.choose()
}

// passed takes note of an event of what stands in the way.
func (s *standing) passed(lock string, e *mvccpb.Event) {
	if string(e.Kv.Key) != s.ahead.key {
		return
	}
	if e.Type == mvccpb.DELETE {
		s.ahead.gone = true
		return
	}
	s.ahead.is(e.Kv, s.create)
	s.ahead.held = s.ahead.held || s.ahead.granted(lock, e.Kv)
}

// granted reports whether a place was written as only a grant writes it: as it was. What an
// operator puts there does not show that anybody held the lock.
func (o *obstacle) granted(lock string, kv *mvccpb.KeyValue) bool {
	record, err := wire.ParseRecord(kv.Value)
	link, ok := wire.ParseLink(lock, o.link)
	return kv.ModRevision > kv.CreateRevision && err == nil && (!ok || record.ID == link.ID && kv.Lease == int64(link.Lease))
}

// readAhead draws conclusions from the lock's key and what stands in the way, in one revision.
func (s *standing) readAhead(name string, key, kv *mvccpb.KeyValue) {
	switch {
	case name != s.ahead.key:
	case kv == nil:
		s.ahead.gone = true
	default:
		s.ahead.is(kv, s.create)
		s.ahead.held = s.ahead.held || key != nil && key.ModRevision == kv.ModRevision
	}
}

// is compares a key that is there with the obstacle. Of one that a tail has named the first reading tells when it was created.
func (o *obstacle) is(kv *mvccpb.KeyValue, than int64) {
	if o.link != "" && !o.seen && kv.CreateRevision < than {
		o.create = kv.CreateRevision
	}
	o.seen = true
	o.gone = o.gone || kv.CreateRevision != o.create
}

// read draws conclusions from the state of a place that waits, in one revision with the lock's key. It returns the token, 0 if the lock was not
// granted.
func (s *standing) read(state wire.State) (token int64, doom error) {
	switch own := state.Place; {
	case own == nil || own.CreateRevision != s.create:
		s.doom = errDeleted
	case own.ModRevision == s.create:
		return 0, nil
	case state.Holds():
		s.written = own.ModRevision
		return own.ModRevision, nil
	default:
		s.doom = errOverwritten
	}
	return 0, s.doom
}

// end returns the watches that are left.
func (s *standing) end() []*watch.Watch {
	watches := []*watch.Watch{s.onPlace, s.onKey, s.onTail, s.onAhead}
	s.onPlace, s.onKey, s.onTail, s.onAhead = nil, nil, nil, nil
	return watches
}

// watchPlace watches one's own place and the tail, before the place is taken.
func (c *contender) watchPlace() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.onPlace = c.watch(c.place.Key)
	if c.place.Linked {
		c.watchTail(0)
	}
}

// watchHeld watches what a holder has, and who comes next. It is called with mu locked.
func (c *contender) watchHeld() {
	if isClosed(c.expired) {
		return
	}
	s := &c.line
	if s.onKey == nil {
		s.onKey = c.watch(c.key)
	}
	if s.onPlace == nil {
		s.onPlace = c.watch(c.place.Key)
	}
	if s.onTail == nil && s.next == nil && c.place.Linked {
		c.watchTail(s.create + 1)
	}
}

func (c *contender) watch(key string) *watch.Watch { return c.lease.Watch(key, 0, c) }

// watchTail watches the tail from a revision on, 0: from now.
func (c *contender) watchTail(from int64) {
	c.line.onTail = c.lease.Watch(wire.Tail(c.key), from, c)
}
