package model

import (
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// txn applies a transaction of a contender's, and checks what it has done.
func (w *World) txn(s *slot, r message.Request, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	revision, before := w.etcd.Revision(), w.scene(s)
	w.mustStandTogether(r, before)
	if w.mutate != nil {
		name := r.Name
		if s.place.Mode == mode.Shared || s.place.Mode.Slots() > 0 {
			name = message.Name(kind.Of(req))
		}
		req = w.mutate(name, req)
	}
	resp, err := w.send(req, translate.IsRead(s.place, r))
	if err == nil && resp.Succeeded {
		w.mustShareInTurn(s, r)
	}
	if err == nil && w.etcd.Revision() > revision {
		w.mustWrite(r, before, w.scene(s))
		w.mustBeInOrder()
		w.mustSitInTurn()
	}
	return resp, err
}

// send has etcd execute a transaction, in a batch if it writes and that is how things are sent. The
// other lock is always written, so a transaction that is refused is answered with a new revision.
func (w *World) send(req *pb.TxnRequest, reads bool) (*pb.TxnResponse, error) {
	if !w.batches || reads {
		return w.etcd.Txn(req)
	}
	resp, err := w.etcd.Txn(wire.Batch([]*pb.TxnRequest{otherLock, req}))
	if err != nil {
		return nil, err
	}
	return wire.BatchAnswers(resp)[1], nil
}

var otherLock = &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("another")}}}}}

// get returns a key. One that is absent has revisions of 0.
func (w *World) get(key string) *mvccpb.KeyValue {
	if kv := w.etcd.Get(key); kv != nil {
		return kv
	}
	return &absent
}

var absent mvccpb.KeyValue

func (w *World) put(r *pb.PutRequest) {
	if _, err := w.etcd.Txn(&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: r}}}}); err != nil {
		w.errf("putting %s: %v", r.Key, err)
	}
}

// remove deletes a key, whoever has written it.
func (w *World) remove(key string) { w.etcd.Txn(wire.RemoveKey(key, w.get(key).ModRevision)) }

// expire ends a lease in etcd.
func (w *World) expire(l *lease) {
	w.etcd.Expire(l.id)
	l.gone = true
}

// txn returns the transaction that a machine asks for.
func (s *slot) txn() *pb.TxnRequest {
	req := translate.Txn(s.place, s.request, s.again)
	if s.others {
		req.Compare = append(req.Compare, notFree)
	}
	return req
}

// notFree is a comparison that another lock of a set fails.
var notFree = &pb.Compare{Key: []byte("another"), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{}}

// ask applies the request that a machine waits for, and returns what it is to be told, as the
// driver sorts that.
func (w *World) ask(s *slot) message.Answer {
	a := message.Answer{Outcome: message.Rejected, Repeated: s.again}
	if w.leaseOf(s.lease).wiped { // the header of the answer shows it
		return a
	}
	before := w.scene(s)
	resp, err := w.txn(s, s.request, s.txn())
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound) && s.request.WritesForOthers():
		a.Outcome = message.Denied
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		w.leaseOf(s.lease).gone = true
	case err != nil:
	default:
		a = w.answer(s, resp)
		w.mustShow(s, a, before)
		w.mustNotMatter(s, resp)
	}
	a.Repeated = s.again
	return a
}

// answer returns what a machine is to be told of an answer to its request.
func (w *World) answer(s *slot, resp *pb.TxnResponse) message.Answer {
	if s.request.Name == message.ReadFar {
		return w.far(s, resp)
	}
	return translate.Answer(s.place, s.request, resp)
}

// far looks for the newest older place behind strangers' keys.
func (w *World) far(s *slot, resp *pb.TxnResponse) message.Answer {
	if newest := translate.Newest(s.place, resp); newest == nil || wire.IsPlace(lock, newest) {
		return translate.Answer(s.place, s.request, resp)
	}
	read := wire.NamesRead(lock, s.m.Created())
	if w.mutate != nil {
		read = w.mutate("NamesRead", read)
	}
	names, _ := w.etcd.Txn(read)
	a := message.Answer{Outcome: message.Applied, Rev: resp.Header.Revision}
	var named []*mvccpb.KeyValue
	for _, kv := range wire.NamedAsPlaces(lock, wire.KeysOf(names, 0)) {
		if !(s.place.Mode == mode.Shared && wire.IsShared(lock, kv)) {
			named = append(named, w.get(string(kv.Key)))
		}
	}
	a.Ahead = translate.AheadOf(lock, translate.NewestOlder(s.place, named, s.m.Created()), wire.Got(resp, 0))
	return a
}
