package record

import (
	"encoding/json"
	"time"
)

// A Since says when a holder has got a lock, by the clock of its host.
type Since struct {
	Token int64     `json:"token"` // the holder's nonce
	At    time.Time `json:"at"`
}

// Marshal returns it as one line of JSON.
func (s Since) Marshal() string { return marshal(s) }

// SinceOf reads what Marshal returns. Anything else, as somebody may have written, is the zero
// value.
func SinceOf(value []byte) (s Since) {
	if json.Unmarshal(value, &s) != nil {
		return Since{}
	}
	return s
}
