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
	place    string       // the name of the last place
	under    *lease.Lease // whose name it bears; nil if it must not be used again

	stamp   func() string // makes our record in the line
	stamped string        // the command that it names
}

// nextPlace names the next place in line. Etcd keeps a name for every key that ever was, until it
// compacts, and goes through all below K/ when somebody joins: so the next place takes the same
// name, unless a late write could hit it.
func (p *places) nextPlace(ls *lease.Lease, command string) wire.Place {
	if p.under != ls {
		n := ls.Places.Add(1)
		p.under = ls
		if p.place = wire.LinkedPlace(p.key, ls.ID(), n); p.unlinked {
			p.place = wire.UnlinkedPlace(p.key, ls.ID(), n)
		}
	}
	return wire.Place{
		Lock:   p.key,
		Key:    p.place,
		Lease:  ls.ID(),
		ID:     p.id,
		Record: p.record(command),
		Linked: !p.unlinked,
	}
}

// record returns what a place in line says of us.
func (p *places) record(command string) string {
	if p.stamp == nil || command != p.stamped {
		r := wire.Self(p.id)
		if command != "" {
			r.Command = filepath.Base(command)
		}
		p.stamp, p.stamped = r.Stamp(), command
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
