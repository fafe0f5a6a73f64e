// Package line reads who holds a lock and who waits for it, to tell people.
package line

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Line is who holds a lock and who waits for it, as of one revision.
type Line struct {
	Lock   string
	Held   bool               // K exists
	Token  int64              // its ModRevision
	Lease  clientv3.LeaseID   // that it is bound to
	Holder string             // its value as it is shown
	Places []*mvccpb.KeyValue // oldest first, the holder's among them
	Shared []*mvccpb.KeyValue // those of them that share the lock now
	More   bool               // there may be others
}

// mostPlaces is how many places of one kind are read. Keys of other locks, below K/ as well, count
// among the strangers'.
const mostPlaces = 1000

// mostStrangers is how many keys that have the name of a stranger's place are looked at: they may
// have values of any size.
const mostStrangers = 64

// Read returns the line for a lock, with one linearizable read if no stranger seems to be in it,
// else with two. It reads none of the values below K/ but those of keys that have the name of a
// place.
func Read(ctx context.Context, client *clientv3.Client, lock string) (Line, error) {
	from, to := wire.LinkedRange(lock)
	resp, err := client.Txn(ctx).Then(
		clientv3.OpGet(lock),
		clientv3.OpGet(from, clientv3.WithRange(to), clientv3.WithLimit(mostPlaces)),
		clientv3.OpGet(wire.Prefix(lock), clientv3.WithRange(from), clientv3.WithLimit(mostPlaces), clientv3.WithKeysOnly()),
	).Commit()
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	ours, others := resp.Responses[1].GetResponseRange(), resp.Responses[2].GetResponseRange()
	line := Line{Lock: lock, More: ours.More || others.More}
	names := wire.NamedAsPlaces(lock, others.Kvs)
	if len(names) > mostStrangers {
		names, line.More = names[len(names)-mostStrangers:], true
	}
	strangers, err := whole(ctx, client, names)
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	line.Places = wire.Places(lock, append(ours.Kvs, strangers...))
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		line.Held, line.Token, line.Holder = true, kv.ModRevision, wire.Shown(kv.Value)
		line.Lease = clientv3.LeaseID(kv.Lease)
	}
	if !line.Held {
		waits := func(p *mvccpb.KeyValue) bool { return !wire.IsShared(lock, p) }
		line.Shared = line.Places
		if i := slices.IndexFunc(line.Places, waits); i >= 0 {
			line.Shared = line.Places[:i]
		}
	}
	return line, nil
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

// Stand returns whether a process of this host has the lock, or else which place in line: 1 is
// next, and 0 that it does not stand there. Those who share the lock do not stand before each
// other.
func (l Line) Stand(pid int) (place int, has bool) {
	own := slices.IndexFunc(l.Places, func(kv *mvccpb.KeyValue) bool {
		r, err := wire.ParseRecord(kv.Value)
		return err == nil && r.IsOf(pid)
	})
	if own < 0 {
		return 0, false
	}
	if l.has(own) {
		return 0, true
	}
	place = 1
	for i, kv := range l.Places[:own] {
		if !l.has(i) && !(wire.IsShared(l.Lock, kv) && wire.IsShared(l.Lock, l.Places[own])) {
			place++
		}
	}
	return place, false
}

// has reports whether the i-th place has the lock.
func (l Line) has(i int) bool {
	return l.Held && l.Places[i].ModRevision == l.Token || i < len(l.Shared)
}

// Holders returns the records of all who have the lock, the oldest first, as far as they are ours.
func (l Line) Holders() (all []wire.Record) {
	for i, kv := range l.Places {
		if !l.has(i) {
			continue
		}
		if r, err := wire.ParseRecord(kv.Value); err == nil {
			all = append(all, r)
		}
	}
	return all
}

// Leases returns the leases of all who have the lock.
func (l Line) Leases() (all []clientv3.LeaseID) {
	if l.Held {
		return []clientv3.LeaseID{l.Lease}
	}
	for _, kv := range l.Shared {
		all = append(all, clientv3.LeaseID(kv.Lease))
	}
	return all
}
