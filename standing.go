package etcdlock

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/place"
)

// A standing is what a contender knows of its place in line, and of its neighbours there. It is guarded by contender.mu.
type standing struct {
	create  int64 // CreateRevision of the place, 0 as long as it is not known
	written int64 // when the place was last written as it is: from then on the lock was ours
	doom    error // why the place is of no use any more

	tail  bool // the tail named it when it was created
	ahead obstacle

	next    *successor // nil if nobody is known to stand behind
	sure    bool       // all changes of the tail since the place was created are told
	lost    bool       // they are not, and cannot be found out any more
	changes []*successor

	onPlace, onKey, onTail, onAhead *watch
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

// A successor is who joined next, and in which revision.
type successor struct {
	place.Link
	joined int64
}

// joined takes note of the revision that created the place. It reports whether something may have happened to the place before it was watched.
func (s *standing) joined(create int64) (look bool) {
	s.create = create
	s.sure = s.tailSince > 0 && s.tailSince < create
	s.choose()
	return s.placeSince >= create || s.tailSince >= create
}

// choose finds the successor: who changed the tail first.
func (s *standing) choose() {
	if s.create <= 0 || !s.sure || s.next != nil {
		return
	}
	for _, change := range s.changes {
		if change.joined > s.create {
			s.next = change
			break
		}
	}
	s.changes = nil
}

// confirmed takes note of a watch that is confirmed, and reports whether what it watches has to be read.
func (s *standing) confirmed(w *watch, since int64, again bool) (look bool) {
	switch w {
	case s.onPlace:
		s.placeSince = since
		return again || s.create != 0 && since >= s.create
	case s.onTail:
		s.tailSince = since
		if s.create == 0 || s.next != nil {
			return false
		}
		s.sure = !again && since < s.create
		s.choose()
		return !s.sure && !s.lost
	case s.onKey, s.onAhead:
		return true
	}
	return false
}

// follow takes note of a change of the tail.
func (s *standing) follow(lock string, e *mvccpb.Event) {
	if e.Type != mvccpb.PUT || s.next != nil || e.Kv.ModRevision <= s.create {
		return
	}
	if link, ok := place.ParseLink(lock, string(e.Kv.Value)); ok {
		s.changes = append(s.changes, &successor{link, e.Kv.ModRevision})
		s.choose()
	}
}

// readTail draws conclusions from the tail and, for who was alone, from the linked places, read after the tail's watch was confirmed.
func (s *standing) readTail(lock string, tail *mvccpb.KeyValue, line *pb.RangeResponse) {
	switch {
	case s.sure || s.next != nil:
		return
	case tail != nil && tail.ModRevision <= s.create, line != nil && line.Count == 1:
		s.sure = true // nobody has joined
		s.choose()
	case line != nil && line.Count == 2 && tail != nil:
		link, ok := place.ParseLink(lock, string(tail.Value))
		for _, kv := range line.Kvs {
			if ok && string(kv.Key) == link.Place && kv.CreateRevision == tail.ModRevision {
				s.next = &successor{link, tail.ModRevision}
			}
		}
	}
	// Otherwise who was first is not known, and the release passes nothing on.
	s.lost = !s.sure && s.next == nil
}

// passed takes note of an event of what stands in the way.
func (s *standing) passed(e *mvccpb.Event) {
	if string(e.Kv.Key) != s.ahead.key {
		return
	}
	if e.Type == mvccpb.DELETE {
		s.ahead.gone = true
		return
	}
	s.ahead.is(e.Kv, s.create)
	s.ahead.held = s.ahead.held || e.Kv.ModRevision > e.Kv.CreateRevision // only a grant writes a place
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

// read draws conclusions from the state of a place that waits.
func (s *standing) read(key, own *mvccpb.KeyValue) {
	switch {
	case own == nil || own.CreateRevision != s.create:
		s.doom = errDeleted
	case own.ModRevision == s.create:
	case key != nil && key.ModRevision == own.ModRevision:
		s.written = own.ModRevision
	default:
		s.doom = errOverwritten
	}
}

// end returns the watches that are left.
func (s *standing) end() []*watch {
	watches := []*watch{s.onPlace, s.onKey, s.onTail, s.onAhead}
	s.onPlace, s.onKey, s.onTail, s.onAhead = nil, nil, nil, nil
	return watches
}

// A glance is what is read of a contender in one revision: the lock's key and its place, and if need be what stands in its way, and the tail with
// the line of who was alone when it joined.
type glance struct {
	c          *contender
	ahead      string
	tail, line bool
}

func (c *contender) glance() (glance, []*operation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := glance{c: c}
	ops := c.state()
	if c.token.Load() == 0 && c.line.ahead.key != "" && !c.line.ahead.gone {
		g.ahead = c.line.ahead.key
		ops = append(ops, get(g.ahead))
	}
	if g.tail = c.line.tailSince > 0 && c.line.create > 0 && !c.line.sure && !c.line.lost && c.line.next == nil; g.tail {
		ops = append(ops, get(place.Tail(c.key)))
	}
	if g.line = g.tail && c.line.create == c.token.Load(); g.line {
		ops = append(ops, someLinked(c.key, 2))
	}
	return g, ops
}

// state is the read that shows whether a contender is what it believes to be.
func (c *contender) state() []*operation {
	return []*operation{get(c.key), get(c.place)}
}

// learn draws conclusions from the answers from the n-th on, and returns how many there are up to the next contender's.
func (g glance) learn(resp *answer, n int) int {
	c := g.c
	key, own := getOne(resp, n), getOne(resp, n+1)
	n += 2
	c.mu.Lock()
	old := c.left || c.line.create <= 0 || resp.Header.Revision < max(c.line.create, c.token.Load()) // read before, answered after
	if g.ahead != "" {
		if !old {
			c.line.readAhead(g.ahead, key, getOne(resp, n))
		}
		n++
	}
	if g.tail {
		tail := getOne(resp, n)
		n++
		var line *pb.RangeResponse
		if g.line {
			line = resp.Responses[n].GetResponseRange()
			n++
		}
		if !old {
			c.line.readTail(c.key, tail, line)
		}
	}
	c.forgetTail()
	waits := c.token.Load() == 0
	if !old && waits {
		c.line.read(key, own)
	}
	c.mu.Unlock()
	if old {
		return n
	}
	if waits {
		c.wake()
	} else if reason := c.whatIsLost(key, own); reason != 0 {
		c.lose(reason, nil)
	}
	return n
}

// watchPlace watches one's own place and the tail, before the place is taken.
func (c *contender) watchPlace() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.onPlace = c.watch(c.place)
	if c.linked {
		c.line.onTail = c.watch(place.Tail(c.key))
	}
}

// watchHeld watches what a holder has, and who comes next. It is called with mu locked.
func (c *contender) watchHeld() {
	s := &c.line
	if s.onKey == nil {
		s.onKey = c.watch(c.key)
	}
	if s.onPlace == nil {
		s.onPlace = c.watch(c.place)
	}
	if s.onTail == nil && s.next == nil && !s.lost && c.linked {
		s.onTail = c.watch(place.Tail(c.key))
	}
}

func (c *contender) watch(key string) *watch {
	return watchKey(c.lease.client, key, c, growth*c.lease.first)
}
