package wire

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// ShareIfFree shares the lock if nobody is there but others who do: the place is all that it takes.
// Refused, it answers as ShareBehind does.
func ShareIfFree(p Place) *pb.TxnRequest {
	return p.share(createIs(p.Lock, 0), createIs(Tail(p.Lock), 0), noneButShared(p.Lock))
}

// ShareBehind takes a place behind the one that the tail names, which was last written in a
// revision; 0 if it is absent. If the place is there, which an earlier try has created, it answers
// with the place. Otherwise, if the tail is another one, it answers with K and the tail.
func ShareBehind(p Place, tail int64) *pb.TxnRequest {
	return p.share(modIs(Tail(p.Lock), tail))
}

// share creates a place. A place that is written twice would look as if somebody had overwritten
// it.
func (p Place) share(cmps ...*comparison) *pb.TxnRequest {
	isAbsent := createIs(p.Key, 0)
	return txn(append(cmps, isAbsent), []*operation{p.put()}, []*operation{nested([]*comparison{isAbsent},
		[]*operation{get(p.Lock), get(Tail(p.Lock))}, []*operation{get(p.Key)})})
}

// Share finds out whether a place that was created in a revision shares the lock, behind a holder
// that is gone: it is the holder's no more, and no stranger is in line. It writes nothing.
func Share(p Place, created int64) *pb.TxnRequest {
	return p.sharing(created, onlyLinked(p.Lock)...)
}

// ShareOldest is Share for a place before which nobody is known to be but others who share the
// lock.
func ShareOldest(p Place, created int64) *pb.TxnRequest { return p.sharing(created) }

func (p Place) sharing(created int64, turn ...*comparison) *pb.TxnRequest {
	return txn(append([]*comparison{p.is(created), createIs(p.Lock, 0)}, turn...), nil, p.state())
}
