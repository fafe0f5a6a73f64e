package model

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

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

func (m *mutex) key() string { return wire.MutexPlace(lock, clientv3.LeaseID(m.lease)) }

func (w *World) mutexMoves(i int, a *moves) {
	switch m := &w.mutexes[i]; {
	case m.turns == 0:
	case m.create == 0:
		a.add(sure, "a Mutex joins", i, 0, func(w *World, i, _ int) {
			m := &w.mutexes[i]
			if m.lease == 0 {
				w.granted++
				m.lease = w.granted
				w.etcd.Grant(m.lease)
			}
			w.put(&pb.PutRequest{Key: []byte(m.key()), Lease: m.lease})
			m.create = w.etcd.Revision()
		})
	case !m.works:
		if !w.isBlocked(m) {
			a.add(sure, "a Mutex has the lock", i, 0, (*World).lockMutex)
		}
	default:
		a.add(sure, "a Mutex unlocks", i, 0, func(w *World, i, _ int) {
			m := &w.mutexes[i]
			w.remove(m.key())
			m.works, m.create = false, 0
			m.turns--
		})
	}
}

// lockMutex: the answer that shows that no older key is there gives a Mutex its token.
func (w *World) lockMutex(i, _ int) {
	w.mustBeAlone(-1, "a Mutex")
	w.mutexes[i].works = true
	w.mustGrow(w.etcd.Revision(), 0, false)
}

// isBlocked reports whether there is an older key.
func (w *World) isBlocked(m *mutex) bool {
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		if kv.CreateRevision < m.create {
			return true
		}
	}
	return false
}
