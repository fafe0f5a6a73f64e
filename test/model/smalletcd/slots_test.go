package smalletcd_test

import (
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// The semaphore is a lock of two slots. Now and then somebody else wants it in another way.
const (
	semaphore = "s"
	slots     = 2
)

// sitter returns a place of one who wants a slot, or has one: one of a few.
func (g *generator) sitter() wire.Place {
	p := newPlace(semaphore, pick(g, leases[:4]...), 1, true)
	p.Mode = mode.Mode(slots + g.rand.IntN(20)/19)
	p.Key = wire.SlotPlace(semaphore, p.Mode.Slots(), p.Lease, 1)
	return p.At(record.SeatOf(g.get(p.Key).Value))
}

// isTurn reports whether a place has K.
func (g *generator) isTurn(p wire.Place) bool {
	return p.Seat == 0 && g.get(p.Key).ModRevision == g.get(p.Lock).ModRevision
}

// turn returns the place that has K, if chance finds it, and another one, which waits.
func (g *generator) turn() (first, next wire.Place) {
	first, next = g.sitter(), g.sitter()
	for range 10 {
		if !g.isTurn(first) {
			first = g.sitter()
		}
		if next.Key == first.Key || next.Seat > 0 {
			next = g.sitter()
		}
	}
	return first, next
}

// sit returns a transaction of one who wants a slot, or has one.
func (g *generator) sit() step {
	p, tail := g.sitter(), g.chance(50)
	token := g.revision(g.get(p.LockKey()).ModRevision)
	created := g.revision(g.get(p.Key).CreateRevision)
	switch g.rand.IntN(21) {
	case 0, 1, 2:
		return step{name: "SlotIfFree", txn: wire.SlotIfFree(p.At(0), g.rand.IntN(p.Mode.Slots()))}
	case 3, 4, 5:
		return step{name: "SlotTurn", txn: wire.SlotTurn(p.At(0))}
	case 6, 7:
		return step{name: "SlotBehindHolder", txn: wire.SlotBehindHolder(p.At(0), created)}
	case 8, 9, 10, 11:
		return g.takeSlot(tail)
	case 12, 13, 14:
		return step{name: "Release", txn: wire.Release(p, token, tail)}
	case 15:
		return step{name: "LeaveLost", txn: wire.LeaveLost(p, tail)}
	case 16:
		return step{name: "Leave", txn: wire.Leave(p.At(0), created, tail, g.before(semaphore))}
	case 17:
		return g.share(semaphore)
	case 19:
		return g.note(p, g.revision(g.get(p.LockKey()).CreateRevision))
	case 18:
		return step{name: "Acquire", txn: wire.Acquire(newPlace(semaphore, p.Lease, 1, g.chance(50)))}
	}
	return g.sitRead(p, token, created)
}

// takeSlot returns a transaction of one who has K: mostly that with which it takes a slot.
func (g *generator) takeSlot(tail bool) step {
	p, other := g.turn()
	turn, joined := g.revision(g.get(p.Key).ModRevision), g.revision(g.get(other.Key).ModRevision)
	next := wire.Successor{Link: wire.Link{Place: other.Key, Lease: other.Lease, ID: other.ID}, Joined: joined}
	switch {
	case g.chance(20):
		return step{name: "Pass", txn: wire.Pass(p.At(0), turn, next)}
	case g.chance(50):
		return step{name: "TakeSlot", txn: wire.TakeSlot(p.At(0), turn, g.rand.IntN(p.Mode.Slots()), tail, &next)}
	}
	return step{name: "TakeSlot", txn: wire.TakeSlot(p.At(0), turn, g.rand.IntN(p.Mode.Slots()), tail, nil)}
}

func (g *generator) sitRead(p wire.Place, token, created int64) step {
	switch g.rand.IntN(5) {
	case 0:
		return step{name: "SlotLineRead", txn: wire.SlotLineRead(p)}
	case 1:
		return step{name: "SlotNewestRead", txn: wire.SlotNewestRead(p, created)}
	case 2:
		return step{name: "KindRead", txn: wire.KindRead(semaphore)}
	case 3:
		return step{name: "BusyRead", txn: wire.BusyRead(p)}
	}
	return step{name: "WrittenRead", txn: wire.WrittenRead(p, token)}
}
