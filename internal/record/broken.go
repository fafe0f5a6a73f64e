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
	return fmt.Sprintf("broken by %s@%s: %q", visible(b.By), visible(b.Host), Cut(b.Reason))
}

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

// BreakOf returns the break that a value has, of K, of a slot or of a place, and the id of who has
// that. It returns nil if the value has none.
func BreakOf(value []byte) (b *Break, id string) {
	var read broken
	if !bytes.Contains(value, []byte(`"break":`)) || json.Unmarshal(value, &read) != nil {
		return nil, ""
	}
	return read.Break, read.ID
}
