// Package admin looks at locks on etcd: who holds which, since when, and who waits. It is what
// etcdlockctl is made of, and needs no more than a client and permission to read.
//
// What it returns is what etcd had at one moment, and may be over when it is read: nothing here
// tells that a lock will still be held, or free, a moment later. Whoever wants to run something
// once takes the lock.
package admin

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/etcdlock/etcdlock/internal/record"
)

// A State says what there is of a lock.
type State string

// The states of a lock.
const (
	Free    State = "free"    // nobody has it, and nobody waits
	Held    State = "held"    // by one holder, or several
	Passing State = "passing" // the next in line is about to get it
	Broken  State = "broken"  // a holder was asked to stop, and still has it
	Paused  State = "paused"  // an operator keeps everybody out
	ByHand  State = "by-hand" // somebody has put its key, and others wait for that
)

// A Kind says what has a place in line.
type Kind string

// The kinds of contenders.
const (
	Etcdlocker Kind = "etcdlocker"
	Library    Kind = "library" // a program that uses package etcdlock
	Etcd       Kind = "etcd"    // a Mutex, etcdctl lock, or etcd's lock service
	ByPause    Kind = "pause"   // see Pause
	Hand       Kind = "by-hand" // who has put the key is not known
)

// A Line is a lock, who has it, and who waits for it, as of one revision.
type Line struct {
	Key      string
	State    State
	Mode     string // exclusive, shared or slots; empty if the lock is free
	Slots    int    // of how many slots the lock is, 0 for the other modes
	Token    int64  // the fencing token of who has the lock alone, else 0
	Holders  []Holder
	Hand     *Holder  // its key, if somebody has put it by hand beside those who have the lock
	Waiters  []Waiter // first come, first in the list
	Revision int64    // of etcd, in which it was so
}

// An Under is a lock under which somebody was started, or that a set has while it waits for the
// next one, and its token.
type Under = record.Under

// A Contender is somebody who stands in the line for a lock. What is not known is the zero value.
type Contender struct {
	Kind    Kind      `json:"kind,omitempty"`
	ID      string    `json:"id,omitempty"` // as it is shown to people; anybody may have written it
	Host    string    `json:"host,omitempty"`
	PID     int       `json:"pid,omitempty"`
	User    string    `json:"user,omitempty"`
	Command string    `json:"command,omitempty"` // its base name
	Why     string    `json:"why,omitempty"`     // it wants the lock, in its user's words
	Under   []Under   `json:"under,omitempty"`   // the locks that it runs under, or has already
	Joined  time.Time `json:"joined,omitzero"`   // the line, by the clock of its host
	Lease   string    `json:"lease,omitempty"`   // in hex

	// Nonce tells a holding from all others: the revision of what makes it one. Where the lock is
	// held alone, or has slots, it is the fencing token. Break and Force take that of a holder, and
	// Resume that of a pause, also while it waits. Nobody else has one who waits.
	Nonce int64 `json:"nonce,omitempty"`

	Pause *Pausing `json:"pause,omitempty"` // what a pause says, nil for everybody else
}

// A Holder is somebody who has the lock, alone or together with others.
type Holder struct {
	Contender

	Slot *int `json:"slot,omitempty"` // which one it has, from 0 on

	// Acquired is when it has got the lock, by the clock of its host. It says so when it has had it
	// for a second, if it may write that.
	Acquired time.Time `json:"acquired,omitzero"`

	Broken *Request `json:"broken,omitempty"` // who has asked it to stop, nil if that is not known

	// ByHand says that it was asked to stop by hand: somebody who is not known has deleted or
	// overwritten what makes it the holder.
	ByHand bool `json:"by_hand,omitempty"`

	// TTL is the lease's, as granted, and TTLLeft how much of that was left when etcd was asked.
	// TTL minus TTLLeft is how long ago the lease was renewed. Both are 0 if that is not known.
	TTL     time.Duration `json:"-"`
	TTLLeft time.Duration `json:"-"`
}

// IsAsked reports whether somebody has asked it to stop, with Break or by hand.
func (h Holder) IsAsked() bool { return h.Broken != nil || h.ByHand }

// Since returns since when it has the lock. If that is not known it is when it joined the line, and
// not exact.
func (h Holder) Since() (at time.Time, exact bool) {
	if h.Acquired.IsZero() {
		return h.Joined, false
	}
	return h.Acquired, true
}

// A Waiter is somebody who waits for the lock.
type Waiter struct {
	Place int `json:"place"` // 1 is next
	Contender
	Mode string `json:"mode,omitempty"` // shared, if the lock is wanted so
}

// MarshalJSON returns the line as etcdlockctl prints it: durations are seconds, a key that is not
// UTF-8 is key_base64, and what is not known is absent. Fields are only ever added.
func (l Line) MarshalJSON() ([]byte, error) {
	out := struct {
		Key       *string  `json:"key,omitempty"`
		KeyBase64 []byte   `json:"key_base64,omitempty"`
		State     State    `json:"state"`
		Mode      string   `json:"mode,omitempty"`
		Slots     int      `json:"slots,omitempty"`
		Token     int64    `json:"token,omitempty"`
		Holder    *Holder  `json:"holder,omitempty"`
		Holders   []Holder `json:"holders,omitempty"`
		Hand      *Holder  `json:"hand,omitempty"`
		Waiters   []Waiter `json:"waiters"`
	}{State: l.State, Mode: l.Mode, Slots: l.Slots, Token: l.Token, Hand: l.Hand, Waiters: l.Waiters}
	out.Key, out.KeyBase64 = keyInJSON(l.Key)
	if len(l.Holders) > 0 {
		out.Holder = &l.Holders[0]
	}
	if l.Mode != exclusive {
		out.Holders = l.Holders
	}
	if out.Waiters == nil {
		out.Waiters = []Waiter{}
	}
	return json.Marshal(out)
}

// keyInJSON returns the key of a lock as text, or, if it is not UTF-8, as bytes.
func keyInJSON(key string) (text *string, bytes []byte) {
	if utf8.ValidString(key) {
		return &key, nil
	}
	return nil, []byte(key)
}

// MarshalJSON returns the holder as in the JSON of its line.
func (h Holder) MarshalJSON() ([]byte, error) {
	type fields Holder
	out := struct {
		fields
		TTL     *float64 `json:"ttl,omitempty"`
		TTLLeft *float64 `json:"ttl_left,omitempty"`
	}{fields: fields(h)}
	if h.TTL > 0 {
		ttl, left := h.TTL.Seconds(), h.TTLLeft.Seconds()
		out.TTL, out.TTLLeft = &ttl, &left
	}
	return json.Marshal(out)
}
