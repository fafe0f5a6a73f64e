package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// A Break says who has asked a holder to stop. It is an error: the one with which the holder ends.
type Break struct {
	By     string    `json:"by"` // a user
	Host   string    `json:"host"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Token  int64     `json:"token"` // the nonce of the holder that is meant
}

// Error says who has broken the lock, from where and why. Anybody may have written these: control
// characters are replaced.
func (b *Break) Error() string {
	return fmt.Sprintf("broken by %s: %q", who(b.By, b.Host), Cut(b.Reason))
}

// who names a user of a host.
func who(user, host string) string { return visible(user) + "@" + visible(host) }

func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, Cut(text))
}

// broken is the value of K, or of a slot, while its holder is asked to stop.
type broken struct {
	Break *Break `json:"break"`
	ID    string `json:"id"`
}

// Value returns what is written over K, or over a slot, whose value is the id of its holder.
func (b *Break) Value(id string) string { return marshal(broken{b, id}) }

// breakMark begins what is added to the record of a place.
const breakMark = `,"break":`

// Over returns the record of a place of one who shares the lock, with the break at its end.
func (b *Break) Over(record string) string {
	return strings.TrimSuffix(record, "}") + breakMark + marshal(b) + "}"
}

// BrokenValue returns what a break writes over a key with a value, which is the record of a place
// if the key is that, and else the id of a holder.
func BrokenValue(b *Break, value string, isPlace bool) string {
	if isPlace {
		return b.Over(value)
	}
	return b.Value(value)
}

// BreakOf returns the break that a value has, of K, of a slot or of a place, and the id of who has
// that. It returns nil if the value has none.
func BreakOf(value []byte) (b *Break, id string) {
	var read broken
	if !parse(value, `"break":`, &read) {
		return nil, ""
	}
	if b := read.Break; b != nil {
		b.At = Said(b.At)
	}
	return read.Break, read.ID
}

// lastYear is the last one that RFC 3339, and so JSON, can say.
const lastYear = 9999

// Said returns a time that somebody has written as it can be written again, else the zero time.
func Said(at time.Time) time.Time {
	if at = at.UTC(); at.Year() < 0 || at.Year() > lastYear {
		return time.Time{}
	}
	return at
}

// parse reads a value that has a mark. Most values have none, and cost no more than to look for it.
func parse(value []byte, mark string, into any) bool {
	return bytes.Contains(value, []byte(mark)) && json.Unmarshal(value, into) == nil
}
