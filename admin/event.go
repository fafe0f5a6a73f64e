package admin

import (
	"encoding/json"
	"time"

	"github.com/etcdlock/etcdlock/internal/follow"
	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// An EventKind says what has happened. A version may add kinds.
type EventKind string

// The kinds of events. Whoever gets a lock has EventAcquired or EventPassed, and each of these ends
// with EventReleased, EventLost, or as the From of an EventPassed.
const (
	// EventJoined says that somebody has joined the line, and waits.
	EventJoined EventKind = "joined"

	// EventLeft says that somebody who waited does not any more.
	EventLeft EventKind = "left"

	// EventAcquired says that somebody has the lock. Who finds nobody there does not join before.
	EventAcquired EventKind = "acquired"

	// EventPassed says that the holder has given the lock to the next in line, in one revision.
	EventPassed EventKind = "passed"

	// EventReleased says that a holder has given the lock back, or that it was taken away: that
	// cannot be told apart. Nor can an end of its lease, where Unsure is set.
	EventReleased EventKind = "released"

	// EventLost says that the lease of a holder has ended.
	EventLost EventKind = "lost"

	// EventBroken says that a holder was asked to stop. It still has the lock. Holder.Broken says
	// who has asked, and is nil if somebody has deleted or overwritten the key by hand.
	EventBroken EventKind = "broken"

	// EventPaused says that a pause keeps everybody out from now on, and EventResumed that it is
	// over: somebody has ended it, or its time has passed.
	EventPaused  EventKind = "paused"
	EventResumed EventKind = "resumed"

	// EventBegan is the first event: all that happens after its revision is shown.
	EventBegan EventKind = "began"

	// EventMissed says that events after Since are missing, up to Revision: etcd has compacted
	// them, or was restored, and Since can be greater. Events with Resync follow.
	EventMissed EventKind = "missed"

	// EventAway says that etcd does not answer, and EventBack that it does again. What has happened
	// meanwhile comes after that.
	EventAway EventKind = "away"
	EventBack EventKind = "back"
)

// An Event is one thing that has happened to a lock, or to the watch.
type Event struct {
	Kind     EventKind
	Time     time.Time // when etcd's event was seen here, by the clock of this host
	Revision int64     // of etcd, in which it happened
	Key      string    // of the lock

	Mode  string // in which the lock is held, or wanted: exclusive, shared or slots
	Token int64  // the fencing token of Holder, 0 if it has none, or it is not known

	Holder *Holder    // who has the lock, or had it; nil for events of waiters
	From   *Holder    // EventPassed: who has given it on
	Waiter *Contender // EventJoined and EventLeft: who
	Place  int        // EventJoined: its place in line; 1 is next

	// Resync says that this is the difference between what was known before an EventMissed and what
	// there is now. It happened at some time before, in whatever order, and perhaps more than once.
	Resync bool

	// Unsure says of an EventReleased that its lease may have ended: etcd has not said in time.
	Unsure bool

	Since  int64 // EventMissed: the last revision of which all is shown
	Reason error // EventAway: what etcd said, nil if nothing
}

// ofPause returns the kind of event of a pause where that of a holder is known, "" for none: it
// begins when its place says until when it lasts, and not when it is the oldest one.
func ofPause(kind EventKind, p *Pausing) EventKind {
	begun := p.HasBegun()
	switch {
	case kind == EventReleased || kind == EventLost:
		if begun {
			return EventResumed
		}
		return EventLeft
	case begun:
		return EventPaused
	}
	return ""
}

// event returns a change as users see it.
func event(c follow.Change) Event {
	e := Event{Kind: EventKind(c.Kind), Time: c.Time.UTC(), Revision: c.Revision, Key: c.Lock, Place: c.Turn, Resync: c.Resync, Unsure: c.Unsure, Since: c.Since, Reason: c.Err}
	if c.Holder != nil {
		h := holder(c.Holder.Line, c.Holder.Holder, line.TTL{})
		e.Holder, e.Mode, e.Token = &h, c.Holder.Line.Mode().Name(), c.Holder.Token
	}
	if c.From != nil {
		h := holder(c.From.Line, c.From.Holder, line.TTL{})
		e.From = &h
	}
	if e.Holder != nil && e.Holder.Pause != nil {
		e.Kind = ofPause(e.Kind, e.Holder.Pause)
	}
	if c.Place != nil {
		w := waiter(c.Lock, c.Turn, c.Place)
		e.Waiter, e.Mode = &w.Contender, wire.ModeOf(c.Lock, c.Place).Name()
	}
	return e
}

// MarshalJSON returns the event as etcdlockctl prints it: a key that is not UTF-8 is key_base64,
// and what is not known is absent. Fields are only ever added.
func (e Event) MarshalJSON() ([]byte, error) {
	out := struct {
		Time      time.Time  `json:"time"`
		Revision  int64      `json:"revision,omitempty"`
		Kind      EventKind  `json:"event"`
		Key       *string    `json:"key,omitempty"`
		KeyBase64 []byte     `json:"key_base64,omitempty"`
		Mode      string     `json:"mode,omitempty"`
		Token     int64      `json:"token,omitempty"`
		Holder    *Holder    `json:"holder,omitempty"`
		From      *Holder    `json:"from,omitempty"`
		Waiter    *Contender `json:"waiter,omitempty"`
		Place     int        `json:"place,omitempty"`
		Resync    bool       `json:"resync,omitempty"`
		Unsure    bool       `json:"unsure,omitempty"`
		Since     int64      `json:"since,omitempty"`
		Reason    string     `json:"reason,omitempty"`
	}{e.Time, e.Revision, e.Kind, nil, nil, e.Mode, e.Token, e.Holder, e.From, e.Waiter, e.Place, e.Resync, e.Unsure, e.Since, ""}
	if e.Key != "" {
		out.Key, out.KeyBase64 = keyInJSON(e.Key)
	}
	if e.Reason != nil {
		out.Reason = e.Reason.Error()
	}
	return json.Marshal(out)
}
