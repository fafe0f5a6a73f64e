package record

import (
	"fmt"
	"time"
)

// A Pause says who keeps everybody out of a lock, from where, why and until when.
type Pause struct {
	By     string    `json:"by"` // a user
	Host   string    `json:"host"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`             // when it was asked for
	Until  time.Time `json:"until,omitzero"` // when it ends by itself; zero while it waits
}

// HasBegun reports whether the pause has had its turn: nobody can have the lock since then.
func (p *Pause) HasBegun() bool { return !p.Until.IsZero() }

// Name returns how the pause is called where a holder has an id.
func (p *Pause) Name() string { return "pause by " + who(p.By, p.Host) }

// String says who has paused the lock, from where, until when and why. Anybody may have written
// these: control characters are replaced.
func (p *Pause) String() string {
	until := ""
	if p.HasBegun() {
		until = " until " + p.Until.Local().Format(time.DateTime)
	}
	return fmt.Sprintf("by %s%s: %q", who(p.By, p.Host), until, Cut(p.Reason))
}

// paused is the value of the place of a pause.
type paused struct {
	Pause *Pause `json:"pause"`
}

// Value returns the value of the place of the pause.
func (p *Pause) Value() string { return marshal(paused{p}) }

// PauseOf returns the pause that the value of a place has, nil if it has none.
func PauseOf(value []byte) *Pause {
	var read paused
	if !parse(value, `"pause":`, &read) {
		return nil
	}
	if p := read.Pause; p != nil {
		p.At, p.Until = Said(p.At), Said(p.Until)
	}
	return read.Pause
}
