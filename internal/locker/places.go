package locker

import (
	"path/filepath"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// places are those that one contender takes in line, one after another.
type places struct {
	key, id string

	unlinked bool         // the tail may not be written
	n        int64        // the number of the last place
	under    *lease.Lease // whose name it bears; nil if it must not be used again

	stamp func() string // makes our record in the line
	says  said          // that one
}

// said is what may change of a record, beside the time.
type said struct {
	command string
	shares  bool
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
		Linked: !p.unlinked && !s.Shares,
		Shared: s.Shares,
	}
}

// name returns the key of the next place.
func (p *places) name(ls *lease.Lease, s Settings) string {
	switch {
	case s.Shares:
		return wire.SharedPlace(p.key, ls.ID(), p.n)
	case p.unlinked:
		return wire.UnlinkedPlace(p.key, ls.ID(), p.n)
	}
	return wire.LinkedPlace(p.key, ls.ID(), p.n)
}

// record returns what a place in line says of us.
func (p *places) record(s Settings) string {
	if says := (said{s.Command, s.Shares}); p.stamp == nil || says != p.says {
		r := wire.Self(p.id)
		if s.Command != "" {
			r.Command = filepath.Base(s.Command)
		}
		if s.Shares {
			r.Mode = wire.ModeShared
		}
		p.stamp, p.says = r.Stamp(), says
	}
	return p.stamp()
}

// avoidTail reports whether what was denied may be allowed without the tail. Then the next place is
// taken without it.
func (p *places) avoidTail(h *holding.Holding, err error, nothing bool) bool {
	if !retry.IsDenied(err) || !h.Place.Linked || !nothing && h.Created() > 0 {
		return false
	}
	p.unlinked, p.under = true, nil
	return true
}
