package model

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// The values of the place of a pause.
const (
	pauseWaits = "a pause that waits"
	pauseHolds = "a pause"
)

// A pauser is an operator who keeps everybody out: he joins as a Mutex does, with a lease of his
// own, and waits for K and for slots as well. A pause of his may follow another one.
type pauser struct {
	mutex
	old int64 // when the place of the one before was created
}

// pauseMoves are what operators do with etcdlockctl pause and resume. An answer may be lost: then
// they ask again.
func (w *World) pauseMoves(a *moves) {
	p := &w.pauser
	switch {
	case p.lease == 0:
		if !w.isDone() {
			a.add(pauses, "an operator asks for a pause", -1, 0, (*World).askForPause)
			a.add(pauses, "an operator asks for a pause, and the answer is lost", -1, 0, func(w *World, _, _ int) {
				w.askForPause(0, 0)
				w.pauser.create = 0
			})
		}
		return
	case p.create == 0:
		a.add(sure, "an operator asks for the pause again", -1, 0, (*World).joinPause)
		return
	case !p.works && !w.keepsOut(p):
		a.add(sure, "a pause begins", -1, 0, (*World).beginPause)
	}
	a.add(sure, "an operator ends the pause", -1, 0, func(w *World, _, _ int) { w.resume(w.pauser.create) })
	a.add(possible, "an operator ends a pause that is over", -1, 0, func(w *World, _, _ int) { w.resume(w.pauser.old) })
	a.add(possible, "the lease of the pause ends", -1, 0, func(w *World, _, _ int) { w.endPause() })
}

func (w *World) askForPause(_, _ int) {
	w.granted++
	w.pauser.lease = w.granted
	w.etcd.Grant(w.granted)
	w.joinPause(0, 0)
}

// keepsOut reports whether somebody who came before a pause has the lock, or may get it.
func (w *World) keepsOut(p *pauser) bool {
	if w.isBlocked(&p.mutex) || w.get(lock).CreateRevision > 0 {
		return true
	}
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		if _, slots := wire.SlotOf(lock, string(kv.Key)); slots > 0 {
			return true
		}
	}
	return false
}

// sendAs has etcd execute a transaction that no machine asks for.
func (w *World) sendAs(name message.Name, req *pb.TxnRequest) *pb.TxnResponse {
	if w.mutate != nil {
		req = w.mutate(name, req)
	}
	resp, err := w.etcd.Txn(req)
	if err != nil {
		w.errf("%s: %v", name, err)
		return &pb.TxnResponse{Header: &pb.ResponseHeader{}}
	}
	return resp
}

// joinPause puts a pause in line. Whoever asks again learns when that was.
func (w *World) joinPause(_, _ int) {
	p := &w.pauser
	resp := w.sendAs("Pause", wire.Pause(p.key(), pauseWaits, clientv3.LeaseID(p.lease)))
	p.create = resp.Header.Revision
	if there := wire.Got(resp, 0); there != nil {
		p.create = there.CreateRevision
	}
	if now := w.get(p.key()); now.CreateRevision != p.create || now.ModRevision != p.create || now.Lease != p.lease {
		w.errf("a pause learns that it has joined in %d: %v", p.create, now)
	}
}

// beginPause: nobody came before, so nobody works until the pause ends.
func (w *World) beginPause(_, _ int) {
	p := &w.pauser
	resp := w.sendAs("Break", wire.Break(p.key(), pauseHolds, p.create))
	if now := w.get(p.key()); !resp.Succeeded || now.CreateRevision != p.create || string(now.Value) != pauseHolds {
		w.errf("a pause has begun: %v", now)
	}
	w.mustBeAlone(-1, "a pause")
	p.works = true
}

// resume takes a pause out of the line, if it is the one with that token.
func (w *World) resume(token int64) {
	p := &w.pauser
	before := w.get(p.key())
	resp := w.sendAs("Resume", wire.Resume(p.key(), token))
	now := w.get(p.key())
	switch isIt := token == p.create; {
	case resp.Succeeded != isIt, isIt && now.CreateRevision > 0:
		w.errf("the pause of %d is ended, and with %d there is %v", p.create, token, now)
	case !isIt && now.ModRevision != before.ModRevision:
		w.errf("a pause of %d is ended with %d", p.create, token)
	case !isIt && !shows(resp, before):
		w.errf("a resume that is refused does not show %s", p.key())
	case isIt:
		w.endPause()
	}
}

// endPause ends the lease of a pause.
func (w *World) endPause() {
	p := &w.pauser
	w.etcd.Expire(p.lease)
	*p = pauser{old: p.create}
}
