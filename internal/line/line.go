// Package line reads who holds a lock and who waits for it, to tell people.
package line

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Line is who holds a lock and who waits for it, as of one revision.
type Line struct {
	Lock    string
	Slots   int                // of a semaphore, else 0
	Shared  bool               // by who has it
	Holders []Holder           // who have the lock, the first one first
	Places  []*mvccpb.KeyValue // oldest first, the holders' among them
	More    bool               // there may be others

	has []bool // of each place, whether it is that of a holder
}

// A Holder is one who has the lock, alone or together with others.
type Holder struct {
	ID     string // as it is shown
	Lease  clientv3.LeaseID
	Token  int64         // 0 where the lock is shared, or a Mutex's, and it is not known
	Record record.Record // of its place, if that is known, and one of ours

	// Nonce means this holder and no other: the token, or, of one who shares the lock, the revision
	// that created its place.
	Nonce int64

	// Key makes it the holder: K, a slot, or the place of one who shares the lock. Place is nil if
	// it is not known.
	Key, Place *mvccpb.KeyValue

	Broken *record.Break // who has asked it to stop, nil if nobody has

	Mutex bool          // etcd's own, or etcdctl lock, or a pause
	Pause *record.Pause // that the place has, if it is one
}

// mostPlaces is how many places of one kind are read. Keys of other locks, below K/ as well, count
// among the strangers'. No semaphore has more slots.
const mostPlaces = 1000

// mostStrangers is how many keys that have the name of a stranger's place are looked at: they may
// have values of any size.
const mostStrangers = 64

// Read returns the line for a lock, with one linearizable read if no stranger seems to be in it,
// else with two. Of keys below K/ that have not the name of a place, or of what is of a semaphore,
// it reads no values.
func Read(ctx context.Context, client *clientv3.Client, lock string) (Line, error) {
	linked, linkedEnd := wire.LinkedRange(lock)
	slots, slotsEnd := wire.SemaphoresRange(lock)
	read := func(from, to string, most int64, opts ...clientv3.OpOption) clientv3.Op {
		return clientv3.OpGet(from, append(opts, clientv3.WithRange(to), clientv3.WithLimit(most))...)
	}
	resp, err := client.Txn(ctx).Then(
		clientv3.OpGet(lock),
		read(linked, linkedEnd, mostPlaces),
		read(slots, slotsEnd, 2*mostPlaces), // the slots come first
		read(wire.Prefix(lock), slots, mostPlaces, clientv3.WithKeysOnly()),
		read(slotsEnd, linked, mostPlaces, clientv3.WithKeysOnly()),
	).Commit()
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	line := Line{Lock: lock}
	var found [][]*mvccpb.KeyValue
	for _, r := range resp.Responses {
		found = append(found, r.GetResponseRange().Kvs)
		line.More = line.More || r.GetResponseRange().More
	}
	names := wire.NamedAsPlaces(lock, slices.Concat(found[3:]...))
	if len(names) > mostStrangers {
		names, line.More = names[len(names)-mostStrangers:], true
	}
	strangers, err := whole(ctx, client, names)
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	line.fill(found[0], slices.Concat(found[1], found[2], strangers))
	return line, nil
}

// Of returns the line for a lock of which all keys below K/ are known that belong to it, and K, if
// it is there.
func Of(lock string, k, below []*mvccpb.KeyValue) Line {
	line := Line{Lock: lock}
	line.fill(k, below)
	return line
}

func (l *Line) fill(k, below []*mvccpb.KeyValue) {
	l.Places = wire.Places(l.Lock, below)
	l.find(k, below)
}

// find finds out who has the lock. To those who want a slot K is not the lock: who has it is next.
func (l *Line) find(k, ofSemaphores []*mvccpb.KeyValue) {
	l.has = make([]bool, len(l.Places))
	taken := l.findSlots(ofSemaphores)
	switch {
	case len(k) == 0 && len(l.Places) > 0 && !l.More && wire.IsMutex(l.Lock, l.Places[0]):
		l.Slots = 0
		l.add(l.Places[0], func(p *mvccpb.KeyValue) bool { return p == l.Places[0] })
	case len(k) > 0 && !l.isTurn(k[0]):
		l.Slots = 0
		l.add(k[0], func(p *mvccpb.KeyValue) bool { return p.ModRevision == l.nonceOf(k[0]) })
	case l.Slots > 0:
		for _, slot := range taken { // who is passed K is written with the slot as well
			l.add(slot, func(p *mvccpb.KeyValue) bool { return p.ModRevision == l.nonceOf(slot) && record.SeatOf(p.Value) > 0 })
		}
	default:
		for _, place := range l.Places {
			if !wire.IsShared(l.Lock, place) {
				return
			}
			l.Shared = true
			l.add(place, func(p *mvccpb.KeyValue) bool { return p == place })
		}
	}
}

// findSlots finds out of how many slots the semaphore is, by the oldest in line for one, and
// returns those that are held, the one that was taken first first.
func (l *Line) findSlots(kvs []*mvccpb.KeyValue) (taken []*mvccpb.KeyValue) {
	semaphore := wire.Place{Lock: l.Lock}
	for _, kv := range slices.Concat(l.Places, kvs) {
		if semaphore.Mode = wire.ModeOf(l.Lock, kv); semaphore.Mode.Slots() > 0 {
			break
		}
	}
	for _, kv := range kvs {
		if semaphore.SlotOf(string(kv.Key)) >= 0 {
			taken = append(taken, kv)
		}
	}
	slices.SortFunc(taken, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	l.Slots = semaphore.Mode.Slots()
	return taken
}

// isTurn reports whether K is held by the one that is next in line for a slot.
func (l *Line) isTurn(k *mvccpb.KeyValue) bool {
	for _, p := range l.Places {
		if n, _ := wire.SlotsOf(l.Lock, string(p.Key)); n > 0 && p.ModRevision == k.ModRevision {
			return true
		}
	}
	return l.Slots > 0 && l.More
}

// add adds a holder: who has that key, with a place if there is one like that.
func (l *Line) add(held *mvccpb.KeyValue, isPlace func(*mvccpb.KeyValue) bool) {
	holder := Holder{ID: record.Shown(held.Value), Lease: clientv3.LeaseID(held.Lease), Token: l.nonceOf(held), Nonce: l.nonceOf(held), Key: held}
	holder.Broken, _ = record.BreakOf(held.Value)
	i := slices.IndexFunc(l.Places, isPlace)
	if i >= 0 {
		l.has[i] = true
		holder.Place = l.Places[i]
		holder.Record, _ = record.Parse(holder.Place.Value)
	}
	switch {
	case l.Shared:
		holder.ID, holder.Token, holder.Nonce = holder.Record.ID, 0, held.CreateRevision
	case held == holder.Place: // there is no K
		holder.ID, holder.Token, holder.Nonce, holder.Mutex = NameOfMutex(held), 0, held.CreateRevision, true
		holder.Pause = PauseOf(l.Lock, held)
	}
	l.Holders = append(l.Holders, holder)
}

// PauseOf returns the pause that has a place in line, nil if that is somebody else.
func PauseOf(lock string, place *mvccpb.KeyValue) *record.Pause {
	if !wire.IsMutex(lock, place) {
		return nil
	}
	return record.PauseOf(place.Value)
}

// WaitingPause returns what the first pause in line says that waits for its turn, nil if none does.
func (l Line) WaitingPause() *record.Pause {
	for i, place := range l.Places {
		if p := PauseOf(l.Lock, place); p != nil && !l.has[i] {
			return p
		}
	}
	return nil
}

// NameOfMutex returns how a place is shown that has no record of who stands there, as that of
// etcd's own Mutex, or of a pause.
func NameOfMutex(place *mvccpb.KeyValue) string {
	if p := record.PauseOf(place.Value); p != nil {
		return p.Name()
	}
	return fmt.Sprintf("etcd (lease %x)", place.Lease)
}

// nonceOf returns the revision in which K, or a slot, was given to who holds it: somebody may have
// written over it since. A slot is created then, and of K a break says it.
func (l *Line) nonceOf(held *mvccpb.KeyValue) int64 {
	if slots, _ := wire.SlotsOf(l.Lock, string(held.Key)); slots > 0 {
		return held.CreateRevision
	}
	if b, _ := record.BreakOf(held.Value); b != nil && b.Token > 0 {
		return b.Token
	}
	return held.ModRevision
}

// whole reads keys of which the names are known, and leaves out those that have gone.
func whole(ctx context.Context, client *clientv3.Client, names []*mvccpb.KeyValue) (kvs []*mvccpb.KeyValue, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	var gets []clientv3.Op
	for _, kv := range names {
		gets = append(gets, clientv3.OpGet(string(kv.Key)))
	}
	resp, err := client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return nil, err
	}
	for _, r := range resp.Responses {
		kvs = append(kvs, r.GetResponseRange().Kvs...)
	}
	return kvs, nil
}

// Has reports whether the i-th place is that of a holder.
func (l Line) Has(i int) bool { return l.has[i] }

// Stand returns whether a process of this host has the lock, or else which place in line: 1 is
// next, and 0 that it does not stand there. Those who share the lock do not stand before each
// other, nor does anybody who has a slot.
func (l Line) Stand(pid int) (place int, has bool) {
	own := slices.IndexFunc(l.Places, func(kv *mvccpb.KeyValue) bool {
		r, err := record.Parse(kv.Value)
		return err == nil && r.IsOf(pid)
	})
	if own < 0 {
		return 0, false
	}
	if l.has[own] {
		return 0, true
	}
	place = 1
	for i, kv := range l.Places[:own] {
		beside := record.SeatOf(kv.Value) > 0 || wire.IsShared(l.Lock, kv) && wire.IsShared(l.Lock, l.Places[own])
		if !l.has[i] && !beside {
			place++
		}
	}
	return place, false
}
