// Package orphan finds what is left under a lease that lives on when somebody has deleted a place
// that held the lock, or stood in line: the tail if it names the place, and K if it was granted to
// the place and no place was written with it. Whatever K's value is: somebody may have overwritten
// it, and kept its lease.
package orphan

import "github.com/etcdlock/etcdlock/internal/message"

// A Search is one for what a place has left.
type Search struct {
	Lock   string // the key K
	Lease  int64  // of both
	Create int64  // the revision that created the place, 0 if that is not known
	Place  string // that the tail may name; empty if it was never written
}

// Of returns the search for what is left of a machine's place, which was created in a revision.
func Of(c message.Config, create int64) Search {
	s := Search{Lock: c.Lock, Lease: c.Lease, Create: create}
	if c.Linked {
		s.Place = c.Place
	}
	return s
}

// First returns the request to begin with.
func (s Search) First() message.Request {
	if s.Place == "" {
		return s.readKey()
	}
	return message.Request{Name: message.ReadTail}
}

func (s Search) readKey() message.Request {
	return message.Request{Name: message.ReadTail, Place: s.Lock}
}

// Next returns the request that follows the answer to one. More is false if nothing is left, and
// failed true if the answer does not tell.
func (s Search) Next(r message.Request, a message.Answer) (next message.Request, more, failed bool) {
	ofTail := r.Name == message.ReadTail && r.Place == ""
	// Whoever may not read the tail has not written it, unless the place was created, and both were
	// allowed then.
	if ofTail && a.Outcome == message.Denied && s.Create == 0 {
		return s.readKey(), true, false
	}
	if a.Outcome != message.Applied && a.Outcome != message.Refused {
		return r, false, true
	}
	switch {
	case ofTail && a.Link.Place == s.Place:
		return message.Request{Name: message.RemoveTail, Rev: a.Found.Mod}, true, false
	case ofTail, r.Name == message.RemoveTail:
		return s.readKey(), true, false
	case r.Name == message.ReadTail && s.mayBeOurs(a.Found):
		return message.Request{Name: message.ReadWritten, Rev: r.Granted(a.Found)}, true, false
	case r.Name == message.ReadWritten && !a.Some:
		return message.Request{Name: message.RemoveKey, Rev: a.Found.Mod}, r.Granted(a.Found) == r.Rev, false
	}
	return r, false, false
}

// mayBeOurs reports whether K may have been granted to the place.
func (s Search) mayBeOurs(lock message.KV) bool {
	return lock.Exists() && lock.Lease == s.Lease && lock.Mod >= s.Create
}
