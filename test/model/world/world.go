// Package world runs machines of internal/protocol against a small etcd, as etcdlock's driver runs
// them against a real one, in every order and with every fault that it is told to.
package world

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

const lock = "k"

// byHand is what an operator writes.
const byHand = "by hand"

// A World is a small etcd, and everybody who wants the lock.
type World struct {
	etcd   *smalletcd.Store
	users  []*user
	slots  []*slot
	leases []*lease
	late   []lateRequest
	mutex  []*mutex

	named  int   // how many leases there were
	token  int64 // the newest fencing token
	broken error
	mutate func(*pb.TxnRequest) *pb.TxnRequest // nil: the transactions are sent as they are
	log    func(format string, args ...any)
}

// A user wants the lock a number of times.
type user struct {
	name   string
	turns  int
	try    bool
	linked bool
	lone   bool
	lease  *lease
	slot   *slot
	works  bool
	forced bool // an operator has taken the lock away, and it was not told yet
	told   bool // of a loss
}

// A lease is one lease with its slots. One that is not shared serves one user.
type lease struct {
	id      int64
	shared  bool
	places  int64
	over    bool // validity has ended
	gone    bool // etcd has it no more
	told    bool // that it is useless
	renames bool // the last place's name must not be used again
	revoke  bool // it is to be revoked before anything else
}

// A slot is one machine, and what its driver has to do.
type slot struct {
	m        protocol.Machine
	place    wire.Place
	lease    *lease
	user     *user // nil if it is left to the session
	asked    bool
	request  protocol.Request
	again    bool // a try has an unknown outcome
	joins    int  // requests to join that are late
	watches  [4]watch
	observes bool
	timer    bool
	ended    bool // the user was told
}

type watch struct {
	on, created bool
	key         string
	next        int64 // the next revision to tell of
}

// A lateRequest was sent, and is applied at some time or never.
type lateRequest struct {
	txn  *pb.TxnRequest
	slot *slot // if it is a request to join
}

// errf notes the first thing that is broken.
func (w *World) errf(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
}

func (w *World) say(format string, args ...any) {
	if w.log != nil {
		w.log(format, args...)
	}
}

// newLease grants a lease.
func (w *World) newLease(shared bool) *lease {
	w.named++
	l := &lease{id: int64(w.named), shared: shared}
	w.etcd.Grant(l.id)
	return l
}

// begin makes a user's next machine.
func (w *World) begin(u *user) {
	l := u.lease
	if l.places == 0 || l.renames || l.shared {
		l.places, l.renames = l.places+1, false
	}
	p := wire.Place{Lock: lock, Lease: clientv3.LeaseID(l.id), ID: u.name, Record: `{"v":1,"id":"` + u.name + `"}`, Linked: u.linked}
	if p.Key = wire.LinkedPlace(lock, p.Lease, l.places); !u.linked {
		p.Key = wire.UnlinkedPlace(lock, p.Lease, l.places)
	}
	c := translate.Config(p)
	c.Try, c.Lone, c.Shared = u.try, u.lone, l.shared
	s := &slot{m: protocol.New(c), place: p, lease: l, user: u}
	u.slot = s
	w.slots = append(w.slots, s)
	w.step(s, protocol.Acquire{})
}

// step gives a machine an input, and does what it asks for.
func (w *World) step(s *slot, in protocol.Input) {
	before := s.m.State()
	effects := s.m.Step(in)
	w.say("%s: %s: %v -> %v", s.place.Key, short(in), before, s.m.State())
	for _, e := range effects {
		w.do(s, e)
	}
	w.mustStand(s)
}

func (w *World) do(s *slot, e protocol.Effect) {
	switch e.Do {
	case protocol.Send:
		if s.asked {
			w.errf("%s: two requests at once", s.place.Key)
		}
		s.asked, s.request, s.again = true, e.Request, false
	case protocol.Watch:
		key := e.Key
		if e.Of == protocol.OnTail {
			key = wire.Tail(lock)
		}
		s.watches[e.Of] = watch{on: true, key: key, next: e.From}
	case protocol.Unwatch:
		s.watches[e.Of] = watch{}
	case protocol.Observe:
		s.observes = true
	case protocol.Timer:
		s.timer = true
	case protocol.TellHeld:
		w.held(s, e.Token)
	case protocol.TellBusy, protocol.TellEnd:
		w.ended(s, e)
	case protocol.TellLost:
		w.lost(s, e.Reason)
	case protocol.TellReleased:
		w.released(s, e)
	case protocol.TellGone:
		w.gone(s)
	}
}

func (w *World) held(s *slot, token int64) {
	u := s.user
	if u == nil || u.slot != s {
		w.errf("%s holds the lock for nobody", s.place.Key)
		return
	}
	if s.lease.over { // it is renewed first, and that fails
		w.step(s, protocol.ValidityOver{})
		return
	}
	u.works, u.told = true, false
	for _, other := range w.users {
		if other != u && other.works && !other.forced {
			w.errf("two holders: %s and %s", u.name, other.name)
		}
	}
	for _, m := range w.mutex {
		if m.works {
			w.errf("two holders: %s and a Mutex", u.name)
		}
	}
	if token <= w.token {
		w.errf("the token %d comes after %d", token, w.token)
	}
	w.token = token
	u.lone = s.m.Created() == token
}

// ended tells a user that the place will not get the lock.
func (w *World) ended(s *slot, e protocol.Effect) {
	u := s.user
	if e.Do == protocol.TellBusy || e.End == protocol.Cancelled || e.End == protocol.Failed {
		u.turns--
	}
	s.ended = true
	if s.lease.shared {
		s.user, u.slot = nil, nil
		if e.End == protocol.NoLease || e.End == protocol.NoHistory {
			u.lease = w.sessionOf(u)
		}
	}
}

// sessionOf returns the present lease of a session.
func (w *World) sessionOf(u *user) *lease {
	for _, l := range w.leases {
		if l.shared && !l.told {
			return l
		}
	}
	l := w.newLease(true)
	w.leases = append(w.leases, l)
	return l
}

func (w *World) lost(s *slot, reason protocol.Reason) {
	u := s.user
	if u == nil {
		return
	}
	if !u.forced && !s.lease.over && !s.lease.gone {
		w.errf("%s is told of a loss (%d) without one", s.place.Key, reason)
	}
	u.told = true
	if reason.Forced() || reason == protocol.Unrenewed { // the guard kills in time
		u.works = false
	}
}

func (w *World) released(s *slot, e protocol.Effect) {
	u := s.user
	if u == nil || u.slot != s {
		return
	}
	if e.Reason != protocol.NotLost && !u.forced && !s.lease.over && !s.lease.gone {
		w.errf("%s: the release says that it was lost (%d)", s.place.Key, e.Reason)
	}
	u.works, u.forced = false, false
	u.turns--
	s.ended = true
	if s.lease.shared || s.m.State() == protocol.Gone {
		s.user, u.slot = nil, nil
	}
	if !s.lease.shared && (!e.Confirmed || e.Reason != protocol.NotLost || s.m.Strays()) {
		s.lease.revoke = true
	}
	if s.lease.shared && s.lease.told {
		u.lease = w.sessionOf(u)
	}
}

// gone takes a machine away.
func (w *World) gone(s *slot) {
	for i, one := range w.slots {
		if one == s {
			w.slots = append(w.slots[:i:i], w.slots[i+1:]...)
			break
		}
	}
	if u := s.user; u != nil && u.slot == s {
		u.slot = nil
		if !s.lease.shared && (s.m.Created() != 0 || s.m.Strays()) && s.m.Token() == 0 {
			s.lease.revoke = true
		}
	}
	if s.m.Strays() {
		s.lease.renames = true
		if !s.lease.shared {
			s.lease.revoke = true
		}
	}
	for _, watch := range s.watches {
		if watch.on {
			w.errf("%s is gone and still watches %s", s.place.Key, watch.key)
		}
	}
}

// txn applies a transaction, and checks what it has done.
func (w *World) txn(req *pb.TxnRequest) (*pb.TxnResponse, error) {
	before, key := w.etcd.Revision(), w.get(lock)
	if w.mutate != nil {
		req = w.mutate(req)
	}
	resp, err := w.etcd.Txn(req)
	if now := w.get(lock); string(key.Value) == byHand && now.CreateRevision > 0 && string(now.Value) != byHand {
		w.errf("somebody took a K that the operator put there")
	}
	if err == nil && w.etcd.Revision() > before {
		w.check()
	}
	return resp, err
}

// check compares the line after a write: whoever got the lock by it is the oldest.
func (w *World) check() {
	rev := w.etcd.Revision()
	if w.get(lock).ModRevision != rev {
		return
	}
	all, _ := w.etcd.Txn(wire.NamesRead(lock, 1<<60))
	var holder, oldest *mvccpb.KeyValue
	for _, kv := range wire.KeysOf(all, 0) {
		if !wire.IsPlace(lock, w.get(string(kv.Key))) {
			continue
		}
		if kv.ModRevision == rev {
			holder = kv
		}
		if oldest == nil || kv.CreateRevision < oldest.CreateRevision {
			oldest = kv
		}
	}
	if holder != nil && holder.CreateRevision != oldest.CreateRevision {
		w.errf("%s got the lock before %s", holder.Key, oldest.Key)
	}
}

func (w *World) get(key string) *mvccpb.KeyValue {
	resp, err := w.etcd.Txn(wire.KeyRead(key))
	if err != nil {
		w.errf("%v", err)
		return &mvccpb.KeyValue{}
	}
	if kv := wire.Got(resp, 0); kv != nil {
		return kv
	}
	return &mvccpb.KeyValue{}
}

// mustStand checks that whoever waits has its place, unless somebody took it away.
func (w *World) mustStand(s *slot) {
	if s.m.State() != protocol.Waiting || s.lease.over || s.lease.gone || s.user == nil || s.user.forced {
		return
	}
	if w.get(s.place.Key).CreateRevision != s.m.Created() {
		w.errf("%s waits and has no place", s.place.Key)
	}
}

// answer applies the request that a machine waits for, and tells it of the answer.
func (w *World) answer(s *slot) {
	a := w.ask(s)
	a.Repeated = s.again
	s.asked = false
	w.step(s, a)
}

func (w *World) ask(s *slot) protocol.Answer {
	resp, err := w.txn(translate.Txn(s.place, s.request, s.again))
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		defer w.leaseLost(s.lease)
		return protocol.Answer{Outcome: protocol.Rejected}
	case err != nil:
		return protocol.Answer{Outcome: protocol.Rejected}
	}
	if s.request.Name == protocol.ReadFar {
		return w.far(s, resp)
	}
	return translate.Answer(s.place, s.request, resp)
}

// far looks for the newest older place behind strangers' keys.
func (w *World) far(s *slot, resp *pb.TxnResponse) protocol.Answer {
	if newest := wire.Got(resp, 2); newest == nil || wire.IsPlace(lock, newest) {
		return translate.Answer(s.place, s.request, resp)
	}
	names, _ := w.etcd.Txn(wire.NamesRead(lock, s.m.Created()))
	a := protocol.Answer{Outcome: protocol.Applied, Rev: resp.Header.Revision}
	for _, kv := range wire.NamedAsPlaces(lock, wire.KeysOf(names, 0)) {
		if wire.IsPlace(lock, w.get(string(kv.Key))) {
			a.Ahead = protocol.Ahead{Key: string(kv.Key), Create: kv.CreateRevision}
			return a
		}
	}
	if key := wire.Got(resp, 0); key != nil {
		a.Ahead = protocol.Ahead{Key: lock, Create: key.CreateRevision}
	}
	return a
}

// leaseLost tells everybody under a lease that it is useless.
func (w *World) leaseLost(l *lease) {
	if l.told {
		return
	}
	l.told = true
	for _, s := range append([]*slot(nil), w.slots...) {
		if s.lease == l {
			w.step(s, protocol.LeaseLost{})
		}
	}
}

// short describes an input.
func short(in protocol.Input) string {
	switch in := in.(type) {
	case protocol.Answer:
		return fmt.Sprintf("answer %d at %d, K %d, place %d/%d, ahead %q, ours %v, again %v", in.Outcome, in.Rev, in.Keys.Lock.Mod, in.Keys.Place.Create, in.Keys.Place.Mod, in.Ahead.Key, in.Ours, in.Repeated)
	case protocol.Event:
		return fmt.Sprintf("event of %d, deleted %v, %d/%d", in.Of, in.Deleted, in.KV.Create, in.KV.Mod)
	case protocol.Observation:
		return fmt.Sprintf("observation at %d, K %d, place %d/%d, ahead %q %d/%d", in.Rev, in.Keys.Lock.Mod, in.Keys.Place.Create, in.Keys.Place.Mod, in.Of, in.Ahead.Create, in.Ahead.Mod)
	}
	return fmt.Sprintf("%T%+v", in, in)
}
