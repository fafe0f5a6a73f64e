package wire

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// ShareIfFree shares the lock if nobody is there but others who do: the place is all that it takes.
// If the place is there, which an earlier try has created, it answers with it.
func ShareIfFree(p Place) *pb.TxnRequest { return p.share(nil) }

// Share is ShareIfFree that takes a place in line otherwise. It then answers with what was there
// before: K and the tail.
func Share(p Place) *pb.TxnRequest {
	return p.share([]*operation{get(p.Lock), get(Tail(p.Lock)), p.put()})
}

// share creates a place, or does something else if it may not share the lock at once. A place that
// is written twice would look as if somebody had overwritten it.
func (p Place) share(els []*operation) *pb.TxnRequest {
	isAbsent := createIs(p.Key, 0)
	cmps := []*comparison{isAbsent, createIs(p.Lock, 0), createIs(Tail(p.Lock), 0), noneIn(unshared(p.Lock))}
	return txn(cmps, []*operation{p.put()}, []*operation{nested([]*comparison{isAbsent}, els, []*operation{get(p.Key)})})
}

// ShareBehindHolder finds out whether a place that was created in a revision shares the lock,
// directly behind a holder that is gone: nobody holds the lock, and no stranger is in line. It
// writes nothing.
func ShareBehindHolder(p Place, created int64) *pb.TxnRequest {
	return p.shares(created, onlyLinked(p.Lock)...)
}

// ShareOldest is ShareBehindHolder for a place before which nobody is known to be but others who
// share the lock.
func ShareOldest(p Place, created int64) *pb.TxnRequest { return p.shares(created) }

func (p Place) shares(created int64, turn ...*comparison) *pb.TxnRequest {
	return txn(append([]*comparison{p.is(created), createIs(p.Lock, 0)}, turn...), nil, p.state())
}
