package smalletcd_test

import (
	"fmt"
	"math/rand/v2"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

var (
	// The second lock and its places are below the first one's, as keys that are no places of it.
	locks = []string{"k", "k/1", "k~x"}

	// The last lease is never granted.
	leases = []clientv3.LeaseID{0x1f, 0x2f, 0x3f, 0x4f, 0x5f}
)

// A step is a transaction, or something else that is done to an etcd.
type step struct {
	name string
	txn  *pb.TxnRequest
	do   func(etcd) error
}

func (s step) make(e etcd) (*pb.TxnResponse, error) {
	if s.do != nil {
		return nil, s.do(e)
	}
	return e.Txn(s.txn)
}

// A generator chooses the next step at random, given what is in the small etcd.
type generator struct {
	rand  *rand.Rand
	small *smalletcd.Store
	start int64 // the first revision
	calm  bool  // there is nobody but locks, and all may write the tail
	links []wire.Link
}

func newGenerator(seed uint64, small *smalletcd.Store) *generator {
	g := &generator{rand: rand.New(rand.NewPCG(seed, 0)), small: small, start: small.Revision()}
	g.calm = g.chance(50)
	return g
}

func grant(lease clientv3.LeaseID) step {
	return step{name: "grant", do: func(e etcd) error { return e.Grant(int64(lease)) }}
}

func (g *generator) chance(percent int) bool { return g.rand.IntN(100) < percent }

func pick[T any](g *generator, of ...T) T { return of[g.rand.IntN(len(of))] }

// next returns the next step: mostly a transaction of a lock's.
func (g *generator) next() step {
	switch n := g.rand.IntN(100); {
	case n < 56, g.calm && n < 82:
		return g.named()
	case n < 62:
		return step{name: "Mutex", txn: g.mutex()}
	case n < 70:
		return step{name: "operator", txn: g.operator()}
	case n < 82:
		return step{name: "anything", txn: g.anything(2)}
	case n < 92:
		return step{name: "read", txn: write(g.readOp(g.chance(50)), g.readOp(g.chance(20)))}
	case n < 94:
		return step{name: "malformed", txn: g.malformed()}
	case n < 97:
		return grant(pick(g, leases[:4]...))
	case n < 98:
		id := int64(pick(g, leases...))
		return step{name: "revoke", do: func(e etcd) error { return e.Revoke(id) }}
	}
	revision := g.small.Revision() - g.rand.Int64N(40) + 2
	return step{name: "compact", do: func(e etcd) error { return e.Compact(revision) }}
}

// get returns what the small etcd has under a key, zeros if nothing.
func (g *generator) get(key string) *mvccpb.KeyValue {
	resp, err := g.small.Txn(wire.KeyRead(key))
	if err != nil {
		panic(err)
	}
	if kv := wire.Got(resp, 0); kv != nil {
		return kv
	}
	return &mvccpb.KeyValue{}
}

// revision returns the one that is given, or another one now and then.
func (g *generator) revision(right int64) int64 {
	if g.chance(85) {
		return right
	}
	return g.anyRevision()
}

// anyRevision returns one of the last 30, or one before the first or after the current one.
func (g *generator) anyRevision() int64 {
	now := g.small.Revision()
	first := max(g.start-2, now-30)
	return first + g.rand.Int64N(now+3-first)
}

func newPlace(lock string, lease clientv3.LeaseID, n int64, linked bool) wire.Place {
	id := fmt.Sprintf("id-%x", int64(lease))
	key := wire.UnlinkedPlace(lock, lease, n)
	if linked {
		key = wire.LinkedPlace(lock, lease, n)
	}
	record := fmt.Sprintf(`{"v":1,"id":%q}`, id)
	return wire.Place{Lock: lock, Key: key, Lease: lease, ID: id, Record: record, Linked: linked}
}

func (g *generator) newPlace(lock string) wire.Place {
	return newPlace(lock, pick(g, leases...), 1+g.rand.Int64N(2), g.calm || g.chance(70))
}

// sharing returns a place of a lock that shares it: one of a few.
func (g *generator) sharing(lock string) wire.Place {
	p := newPlace(lock, pick(g, leases[:3]...), 1, false)
	p.Key, p.Mode = wire.SharedPlace(lock, p.Lease, 1), mode.Shared
	return p
}

// line returns the places of a lock that are in the small etcd, oldest first.
func (g *generator) line(lock string) (line []wire.Place) {
	for _, lease := range leases {
		for n := range int64(2) {
			for _, linked := range []bool{true, false} {
				if p := newPlace(lock, lease, n+1, linked); g.get(p.Key).CreateRevision != 0 {
					line = append(line, p)
				}
			}
		}
	}
	slices.SortFunc(line, func(a, b wire.Place) int {
		return int(g.get(a.Key).CreateRevision - g.get(b.Key).CreateRevision)
	})
	return line
}

// place returns a place of a lock: often the holder's, the oldest, or another one that is there.
func (g *generator) place(lock string) wire.Place {
	line := g.line(lock)
	n := g.rand.IntN(10)
	switch {
	case len(line) == 0 || n == 0:
		return g.newPlace(lock)
	case n < 4:
		return line[0]
	case n < 7:
		return g.holder(lock)
	}
	return pick(g, line...)
}

// holder returns the place that has the lock, or else any.
func (g *generator) holder(lock string) wire.Place {
	line, held := g.line(lock), g.get(lock).ModRevision
	for _, p := range line {
		if g.get(p.Key).ModRevision == held {
			return p
		}
	}
	return pick(g, append(line, g.newPlace(lock))...)
}

// before returns what a tail has named, or could name.
func (g *generator) before(lock string) wire.Link {
	if link, ok := wire.ParseLink(lock, string(g.get(wire.Tail(lock)).Value)); ok {
		g.links = append(g.links, link)
	}
	if len(g.links) > 0 && g.chance(50) {
		return pick(g, g.links...)
	}
	p := g.place(lock)
	return wire.Link{Place: p.Key, Lease: p.Lease, ID: p.ID}
}

// named returns a transaction of a lock's.
func (g *generator) named() step {
	lock := pick(g, locks...)
	if g.calm {
		lock = pick(g, "k", "k~x")
	}
	switch {
	case g.chance(10):
		return g.together(lock)
	case g.chance(25):
		return g.share(lock)
	case g.chance(40):
		return g.sit()
	}
	p := g.place(lock)
	switch g.rand.IntN(3) {
	case 0:
		p = g.newPlace(lock)
		if g.chance(30) {
			return step{name: "AcquireIfFree", txn: wire.AcquireIfFree(p, g.chance(50))}
		}
		return step{name: "Acquire", txn: wire.Acquire(p)}
	case 1:
		return g.namedWrite(lock, p)
	}
	return g.namedRead(lock, p)
}

// share returns a transaction of one who shares a lock.
func (g *generator) share(lock string) step {
	p := g.sharing(lock)
	created := g.revision(g.get(p.Key).CreateRevision)
	switch g.rand.IntN(9) {
	case 0, 1:
		return step{name: "ShareIfFree", txn: wire.ShareIfFree(p)}
	case 2:
		return step{name: "Share", txn: wire.Share(p)}
	case 3:
		return step{name: "ShareBehindHolder", txn: wire.ShareBehindHolder(p, created)}
	case 4:
		return step{name: "ShareOldest", txn: wire.ShareOldest(p, created)}
	case 5:
		return step{name: "Remove", txn: wire.Remove(p, created, false)}
	case 6:
		return step{name: "SharedLineRead", txn: wire.SharedLineRead(p)}
	case 7:
		return g.note(p, created)
	}
	return step{name: "SharedNewestRead", txn: wire.SharedNewestRead(p, g.anyRevision())}
}

// together returns transactions of two locks as one.
func (g *generator) together(lock string) step {
	other := pick(g, locks...)
	for other == lock {
		other = pick(g, locks...)
	}
	acquires, again := g.chance(60), g.chance(50)
	var each []*pb.TxnRequest
	for _, lock := range []string{lock, other} {
		if acquires {
			each = append(each, wire.AcquireIfFree(g.newPlace(lock), again))
			continue
		}
		each = append(each, wire.Release(g.holder(lock), g.revision(g.get(lock).ModRevision), g.chance(50)))
	}
	if acquires {
		return step{name: "AcquireAllIfFree", txn: wire.AcquireAllIfFree(each)}
	}
	return step{name: "Batch", txn: wire.Batch(each)}
}

func (g *generator) namedWrite(lock string, p wire.Place) step {
	token, place, tail := g.revision(g.get(lock).ModRevision), g.get(p.Key), g.chance(50)
	created, written := g.revision(place.CreateRevision), g.revision(place.ModRevision)
	switch g.rand.IntN(18) {
	case 0:
		return step{name: "Claim", txn: wire.Claim(p, created)}
	case 1:
		return step{name: "ClaimBehindHolder", txn: wire.ClaimBehindHolder(p, created)}
	case 2:
		return step{name: "ClaimOldest", txn: wire.ClaimOldest(p, created)}
	case 3, 4, 5:
		p, next := g.holder(lock), g.place(lock)
		for i := 0; i < 3 && next.Key == p.Key; i++ {
			next = g.place(lock)
		}
		token := g.revision(g.get(p.Key).ModRevision)
		joined := g.revision(g.get(next.Key).ModRevision)
		link := wire.Link{Place: next.Key, Lease: next.Lease, ID: next.ID}
		return step{name: "Pass", txn: wire.Pass(p, token, wire.Successor{Link: link, Joined: joined})}
	case 6, 7:
		return step{name: "Release", txn: wire.Release(p, token, tail)}
	case 8:
		return step{name: "LeaveLost", txn: wire.LeaveLost(p, tail)}
	case 9:
		return step{name: "Remove", txn: wire.Remove(p, written, tail)}
	case 10:
		return step{name: "RemoveKey", txn: wire.RemoveKey(lock, token)}
	case 11:
		return step{name: "RemoveTail", txn: wire.RemoveTail(lock, g.revision(g.get(wire.Tail(lock)).ModRevision))}
	case 12:
		return step{name: "Break", txn: wire.Break(lock, "broken", token)}
	case 13:
		return step{name: "Force", txn: wire.Force(lock, p.Key, token, written)}
	case 14:
		return g.note(p, token)
	case 15, 16:
		return g.pause(lock)
	}
	if g.chance(70) {
		return step{name: "Leave", txn: wire.Leave(p, created, tail, g.before(lock))}
	}
	return step{name: "Leave", txn: wire.Leave(p, created, tail, wire.Link{})}
}

// note returns a transaction that writes or erases since when a place has the lock.
func (g *generator) note(p wire.Place, nonce int64) step {
	value := pick(g, "since", "long since") // keys of small etcds know no numbers in values
	if g.chance(60) {
		return step{name: "NoteSince", txn: wire.NoteSince(p, nonce, value)}
	}
	return step{name: "EraseSince", txn: wire.EraseSince(p, value)}
}

// pause returns a transaction that begins or ends a pause. Its place is that of a Mutex.
func (g *generator) pause(lock string) step {
	lease := pick(g, leases...)
	place := wire.MutexPlace(lock, lease)
	if g.chance(50) {
		return step{name: "Pause", txn: wire.Pause(place, "paused", lease)}
	}
	return step{name: "Resume", txn: wire.Resume(place, g.revision(g.get(place).CreateRevision))}
}

func (g *generator) namedRead(lock string, p wire.Place) step {
	place := g.get(p.Key)
	switch g.rand.IntN(10) {
	case 0:
		return step{name: "LineRead", txn: wire.LineRead(p)}
	case 1:
		return step{name: "NewestRead", txn: wire.NewestRead(p, g.revision(place.CreateRevision))}
	case 2:
		ops := wire.StateOps(lock, p.Key, pick(g, "", lock, g.place(lock).Key))
		other := pick(g, locks...)
		ops = append(ops, wire.StateOps(other, g.place(other).Key, "")...)
		return step{name: "StateRead", txn: wire.StateRead(ops)}
	case 3:
		created := max(g.revision(place.CreateRevision), 1)
		return step{name: "HistoryRead", txn: wire.HistoryRead(lock, p.Key, created)}
	case 4:
		return step{name: "BusyRead", txn: wire.BusyRead(g.place(lock))}
	case 5:
		return step{name: "KeyRead", txn: wire.KeyRead(lock, p.Key, wire.Tail(lock))}
	case 6:
		return step{name: "ProbeRead", txn: wire.ProbeRead(p.Key)}
	case 7:
		return step{name: "NewestOfAllRead", txn: wire.NewestOfAllRead(lock)}
	case 8:
		return step{name: "NamesRead", txn: wire.NamesRead(lock, g.anyRevision())}
	}
	return step{name: "WrittenRead", txn: wire.WrittenRead(g.place(lock), g.revision(g.get(lock).ModRevision))}
}
