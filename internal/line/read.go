package line

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/wire"
)

// mostPlaces is how many places of one kind are read. Keys of other locks, below K/ as well, count
// among the strangers'. No semaphore has more slots.
const mostPlaces = 1000

// mostStrangers is how many keys that have the name of a stranger's place are looked at.
const mostStrangers = 64

// Read returns the line for a lock, or as much of it as can be read cheaply: with one linearizable
// read if no stranger seems to be in it, else with two. It reads the value of K, and below K/ those
// of the lock alone.
func Read(ctx context.Context, client *clientv3.Client, lock string) (l Line, err error) {
	for range tries {
		var changed bool
		l, changed, err = readSome(ctx, client, lock)
		if !changed && !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	return l, nil
}

// readSome is Read, unless something of the line has changed meanwhile.
func readSome(ctx context.Context, client *clientv3.Client, lock string) (l Line, changed bool, err error) {
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
		return Line{}, false, err
	}
	l = Line{Lock: lock, Revision: resp.Header.Revision}
	var found [][]*mvccpb.KeyValue
	for _, r := range resp.Responses {
		found = append(found, r.GetResponseRange().Kvs)
		l.More = l.More || r.GetResponseRange().More
	}
	names := wire.NamedAsPlaces(lock, slices.Concat(found[3:]...))
	if len(names) > mostStrangers {
		names, l.More = names[len(names)-mostStrangers:], true
	}
	s, of := &survey{client: client, revision: l.Revision}, &surveyed{below: slices.Concat(found[1], found[2])}
	for _, kv := range names {
		_, lease, _ := wire.LockOf(string(kv.Key))
		of.name(string(kv.Key), lease)
	}
	if err := s.values(ctx, of.names); err != nil {
		return Line{}, false, err
	}
	return l, of.changed, l.settle(ctx, client, found[0], of.below)
}

// settle finds out who has the lock, if need be from the past of K.
func (l *Line) settle(ctx context.Context, client *clientv3.Client, k, below []*mvccpb.KeyValue) error {
	l.fill(k, below, nil)
	if !l.unclear {
		return nil
	}
	past, err := pastOf(ctx, client, l.Lock, l.oldest().ModRevision)
	l.fill(k, below, past)
	return err
}

// pastOf returns a key as it was in a revision, or, if etcd has forgotten that, as it was in the
// oldest revision that etcd knows.
func pastOf(ctx context.Context, client *clientv3.Client, key string, revision int64) ([]*mvccpb.KeyValue, error) {
	resp, err := client.Get(ctx, key, clientv3.WithRev(revision))
	if errors.Is(err, rpctypes.ErrCompacted) {
		watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		defer cancel()
		refused := <-client.Watch(watching, key, clientv3.WithRev(revision)) // it says what is left
		resp, err = client.Get(ctx, key, clientv3.WithRev(max(refused.CompactRevision, revision)))
	}
	if err != nil {
		return nil, err
	}
	return resp.Kvs, nil
}
