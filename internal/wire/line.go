package wire

import (
	"context"
	"fmt"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A Line is who holds a lock and who waits for it, as of one revision.
type Line struct {
	Held   bool               // K exists
	Token  int64              // its ModRevision
	Lease  clientv3.LeaseID   // that it is bound to
	Holder string             // its value as it is shown
	Record Record             // of the holder, if it is one of ours
	Places []*mvccpb.KeyValue // oldest first, the holder's among them
	More   bool               // there may be others
}

// mostPlaces is how many places of one kind are read. Keys of other locks, below K/ as well, count
// among the strangers'.
const mostPlaces = 1000

// mostStrangers is how many keys that have the name of a stranger's place are looked at: they may
// have values of any size.
const mostStrangers = 64

// ReadLine returns the line for a lock, with one linearizable read if no stranger seems to be in
// it, else with two. It reads none of the values below K/ but those of keys that have the name of a
// place.
func ReadLine(ctx context.Context, client *clientv3.Client, lock string) (Line, error) {
	from, to := LinkedRange(lock)
	resp, err := client.Txn(ctx).Then(
		clientv3.OpGet(lock),
		clientv3.OpGet(from, clientv3.WithRange(to), clientv3.WithLimit(mostPlaces)),
		clientv3.OpGet(Prefix(lock), clientv3.WithRange(from), clientv3.WithLimit(mostPlaces), clientv3.WithKeysOnly()),
	).Commit()
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	ours, others := resp.Responses[1].GetResponseRange(), resp.Responses[2].GetResponseRange()
	line := Line{More: ours.More || others.More}
	names := NamedAsPlaces(lock, others.Kvs)
	if len(names) > mostStrangers {
		names, line.More = names[len(names)-mostStrangers:], true
	}
	strangers, err := whole(ctx, client, names)
	if err != nil {
		return Line{}, fmt.Errorf("reading the line for %q: %w", lock, err)
	}
	line.Places = Places(lock, append(ours.Kvs, strangers...))
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		line.Held, line.Token, line.Holder = true, kv.ModRevision, Shown(kv.Value)
		line.Lease = clientv3.LeaseID(kv.Lease)
		for _, p := range line.Places {
			if p.ModRevision == kv.ModRevision {
				line.Record, _ = ParseRecord(p.Value)
			}
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

// Shown returns the value of K as it is shown to people. Anybody may have put anything there: what
// is longer than an id may be is cut off.
func Shown(value []byte) string {
	const most = 256
	if len(value) <= most {
		return string(value)
	}
	end := most
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return string(value[:end]) + "..."
}

// Ahead returns how many places, the holder's among them, are before that of a process of this
// host; -1 if it has none.
func (l Line) Ahead(pid int) int {
	self := process()
	for i, kv := range l.Places {
		if r, err := ParseRecord(kv.Value); err == nil && r.PID == pid && r.Boot == self.Boot && r.PIDNS == self.PIDNS {
			return i
		}
	}
	return -1
}
