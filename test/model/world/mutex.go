package world

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/wire"
)

// A mutex is a Mutex of etcd's concurrency package: it puts its key below K/, and waits for all
// older ones. It ignores K.
type mutex struct {
	turns  int
	lease  int64
	create int64
	works  bool
}

func (m *mutex) key() string { return fmt.Sprintf("%s/%x", lock, m.lease) }

func (m *mutex) moves(w *World, add adder) {
	switch {
	case m.turns == 0:
	case m.create == 0:
		add(false, "a Mutex joins", func() {
			if m.lease == 0 {
				m.lease = w.newLease(false).id
			}
			w.put(&pb.PutRequest{Key: []byte(m.key()), Lease: m.lease})
			m.create = w.etcd.Revision()
		})
	case !m.works:
		names, _ := w.etcd.Txn(wire.NamesRead(lock, m.create))
		if len(wire.KeysOf(names, 0)) > 0 {
			return
		}
		add(false, "a Mutex has the lock", func() {
			m.works = true
			for _, u := range w.users {
				if u.works && !u.forced {
					w.errf("two holders: a Mutex and %s", u.name)
				}
			}
		})
	default:
		add(false, "a Mutex unlocks", func() {
			m.works, m.create = false, 0
			m.turns--
			w.etcd.Txn(wire.RemoveKey(m.key(), w.get(m.key()).ModRevision))
		})
	}
}
