package locker

import (
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// places are those that one contender takes in line, one after another.
type places struct {
	key, id string

	unlinked bool         // the tail may not be written
	n        int64        // the number of the last place
	under    *lease.Lease // whose name it bears; nil if it must not be used again

	slot int // that was held the last time, as a seat

	stamp func() string // makes our record in the line
	says  said          // that one
}

// said is what may change of a record, beside the time.
type said struct {
	command string
	mode    mode.Mode
}

// nextPlace names the next place in line. Etcd keeps a name for every key that ever was, until it
// compacts, and goes through all below K/ when somebody joins: so the next place takes the same
// name, unless a late write could hit it, or somebody still stands there, or removes what is there.
// Whoever takes the place leaves it when nothing of it is left.
func (p *places) nextPlace(ls *lease.Lease, s Settings) wire.Place {
	if p.under != ls {
		p.under, p.n = ls, ls.Places.Next()
	}
	for !ls.Places.Take(p.name(ls, s)) {
		p.n = ls.Places.Next()
	}
	return wire.Place{
		Lock:   p.key,
		Key:    p.name(ls, s),
		Lease:  ls.ID(),
		ID:     p.id,
		Record: p.record(s),
		Linked: s.Mode.Slots() > 0 || s.Mode != mode.Shared && !p.unlinked,
		Mode:   s.Mode,
	}
}

// name returns the key of the next place.
func (p *places) name(ls *lease.Lease, s Settings) string {
	switch {
	case s.Mode.Slots() > 0:
		return wire.SlotPlace(p.key, s.Mode.Slots(), ls.ID(), p.n)
	case s.Mode == mode.Shared:
		return wire.SharedPlace(p.key, ls.ID(), p.n)
	case p.unlinked:
		return wire.UnlinkedPlace(p.key, ls.ID(), p.n)
	}
	return wire.LinkedPlace(p.key, ls.ID(), p.n)
}

// record returns what a place in line says of us.
func (p *places) record(s Settings) string {
	if len(s.under) > 0 { // which has tokens, and is another one each time
		return p.stampFor(s)()
	}
	if says := (said{s.Command, s.Mode}); p.stamp == nil || says != p.says {
		p.stamp, p.says = p.stampFor(s), says
	}
	return p.stamp()
}

func (p *places) stampFor(s Settings) func() string {
	r := record.Self(p.id)
	r.Under = slices.Concat(r.Under, s.under)
	if s.Command != "" {
		r.Command = filepath.Base(s.Command)
	}
	if s.Mode != mode.Exclusive {
		r.Mode, r.Slots = s.Mode.Name(), s.Mode.Slots()
	}
	return r.Stamp()
}

// nextSlot returns the slot to try first: that of the last time, else any.
func (p *places) nextSlot(s Settings) int {
	if p.slot > 0 && p.slot <= s.Mode.Slots() {
		return p.slot - 1
	}
	return rand.IntN(max(s.Mode.Slots(), 1))
}

// avoidTail reports whether what was denied may be allowed without the tail. Then the next place is
// taken without it.
func (p *places) avoidTail(h *holding.Holding, err error, nothing bool) bool {
	if !retry.IsDenied(err) || !h.Place.Linked || h.Place.Mode.Slots() > 0 || !nothing && h.Created() > 0 {
		return false
	}
	p.unlinked, p.under = true, nil
	return true
}
