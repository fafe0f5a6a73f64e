package position

import "github.com/etcdlock/etcdlock/internal/message"

// stepsBack is how many places that are gone a waiter goes back in the tail's history before it has
// the line read. Each costs a round trip.
const stepsBack = 16

// A Search is one in the history of the tail for who stood before a place that is gone.
type Search struct {
	Gone  message.Ahead // the predecessor that is gone
	Crowd bool          // it was in vain, as that of many others may be

	ahead message.Ahead // the one before it, as far as the history is known
	steps int           // that were gone back
}

// Back begins behind a place that is gone. It is not ok if there is nothing to ask.
func (s *Search) Back(gone message.Ahead) (r message.Request, ok bool) {
	s.steps = 0
	return s.back(gone)
}

func (s *Search) back(gone message.Ahead) (r message.Request, ok bool) {
	s.ahead, s.Crowd = gone, s.steps == stepsBack
	if gone.Link.Place == "" || s.Crowd {
		s.Crowd = gone.Link.Place != ""
		return r, false
	}
	return message.Request{Name: message.ReadHistory, Place: gone.Key, Rev: gone.Create}, true
}

// Next takes the answer of the history: found is a place that is there, and older than one that was
// created in a revision, and, in a line of a kind, has no slot. Otherwise, if it is ok, the search
// goes on.
func (s *Search) Next(a message.Answer, created int64, of message.Kind) (found message.Ahead, r message.Request, ok bool) {
	there := a.Keys.Place
	switch {
	case there.Sits(s.ahead.Kind, of):
		s.Crowd = false
		return found, r, false
	case there.Exists() && there.Create < created:
		return message.Ahead{Key: s.ahead.Key, Create: there.Create, Link: s.ahead.Link, Seen: true, Kind: s.ahead.Kind}, r, false
	case !a.Keys.Lock.Exists() || !a.Tail.Exists(): // the lock is free, or nobody was named
		s.Crowd = false
		return found, r, false
	}
	s.steps++
	r, ok = s.back(a.Ahead)
	return found, r, ok
}
