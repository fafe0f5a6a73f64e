// Package record has the values of places in line: who stands there.
package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// version is that of the record's form. A reader takes what it knows of newer ones.
const version = 1

// A Record says who stands at a place. The zero value of a field means that it is not known.
type Record struct {
	Slot    *int      `json:"slot,omitempty"` // that is held; comes first, see SeatOf
	Version int       `json:"v"`
	Kind    string    `json:"kind,omitempty"` // of the program, if that is etcdlocker
	ID      string    `json:"id"`
	Host    string    `json:"host,omitempty"`
	PID     int       `json:"pid,omitempty"`
	Boot    string    `json:"boot,omitempty"`    // the boot id of the host's kernel
	PIDNS   string    `json:"pidns,omitempty"`   // the pid namespace that PID belongs to
	Start   uint64    `json:"start,omitempty"`   // of the process, in clock ticks since boot
	User    string    `json:"user,omitempty"`    // that the program is of
	Why     string    `json:"why,omitempty"`     // the lock is wanted, in its user's words
	Command string    `json:"command,omitempty"` // base name only: arguments can be secrets
	Under   []Under   `json:"under,omitempty"`   // what it runs under, or its set has already
	Mode    string    `json:"mode,omitempty"`    // its name; empty for who wants the lock alone
	Slots   int       `json:"n,omitempty"`       // of how many one is wanted, of a semaphore
	Since   time.Time `json:"since,omitzero"`
}

// An Under is a lock that somebody holds for a command, and what that has started.
type Under struct {
	Key   string `json:"key"`
	Token int64  `json:"token,omitempty"`
}

// mostUnder is how many bytes of keys a record has, at most, of the locks that it is under.
const mostUnder = 1024

// AddUnder adds a lock to those that a record is under, unless its key is not UTF-8, or there are
// too many of them.
func AddUnder(all []Under, key string, token int64) []Under {
	size := len(key)
	for _, one := range all {
		size += len(one.Key)
	}
	if key == "" || size > mostUnder || !utf8.ValidString(key) {
		return all
	}
	return append(all, Under{Key: key, Token: token})
}

// Marshal returns the record as one line of JSON.
func (r Record) Marshal() string { return marshal(r) }

func marshal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and a time of this era always marshal
	}
	return string(b)
}

// Stamp returns a function that does what Marshal does, with the present time as Since, for much
// less.
func (r Record) Stamp() func() string {
	r.Since = time.Time{}
	head := strings.TrimSuffix(r.Marshal(), "}") + `,"since":"`
	return func() string {
		return string(append(time.Now().UTC().AppendFormat([]byte(head), time.RFC3339Nano), `"}`...))
	}
}

// SeatMark begins the record of a place that has a slot. A digit follows.
const SeatMark = `{"slot":`

// LastSeat is greater than all records of places that have a slot, and less than all others.
const LastSeat = SeatMark + ":"

// Seated returns the record of a place when it has got a slot.
func Seated(record string, slot int) string {
	return SeatMark + strconv.Itoa(slot) + "," + strings.TrimPrefix(record, "{")
}

// SeatOf returns which slot a place has, by its record: 1 is slot 0. It returns 0 if the place
// has no slot.
func SeatOf(record []byte) (seat int) {
	rest, ok := bytes.CutPrefix(record, []byte(SeatMark))
	end := bytes.IndexByte(rest, ',')
	if !ok || end < 0 {
		return 0
	}
	n, err := strconv.ParseUint(string(rest[:end]), 10, 31)
	if err != nil {
		return 0
	}
	return int(n) + 1
}

// Parse reads a record. Etcd's own Mutex writes an empty value: that is an error here, and no
// reason to doubt the place.
func Parse(value []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return Record{}, fmt.Errorf("no record of a place in line: %w", err)
	}
	if r.Version < 1 {
		return Record{}, fmt.Errorf("no record of a place in line: version %d", r.Version)
	}
	return r, nil
}

// Shown returns the id in the value of K as it is shown to people: that of the holder, if the value
// reads as a break.
func Shown(value []byte) string {
	if b, id := BreakOf(value); b != nil {
		return Cut(id)
	}
	return Cut(string(value))
}

// Cut returns a text as it is shown to people. Anybody may have put anything there: what is longer
// than an id may be is cut off.
func Cut(text string) string {
	const most = 256
	if len(text) <= most {
		return text
	}
	end := most
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}
