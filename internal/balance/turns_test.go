package balance

import (
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/resolver"
)

// A conn is a connection that is only chosen.
type conn struct {
	balancer.SubConn
	address string
}

// A desk makes requests to members, and says which they went to.
type desk struct {
	t     *testing.T
	turns *turns
	conns []*conn
}

func newDesk(t *testing.T, addresses ...string) *desk {
	d := &desk{t: t, turns: &turns{}}
	d.connect(addresses...)
	return d
}

func (d *desk) connect(addresses ...string) {
	for _, a := range addresses {
		d.conns = append(d.conns, &conn{address: a})
	}
	ready := map[balancer.SubConn]base.SubConnInfo{}
	for _, c := range d.conns {
		ready[c] = base.SubConnInfo{Address: resolver.Address{Addr: c.address}}
	}
	d.turns.Build(base.PickerBuildInfo{ReadySCs: ready})
}

// ask begins a request of a method, which the returned function ends.
func (d *desk) ask(method string) (member string, done func(answered bool)) {
	d.t.Helper()
	r, err := d.turns.Pick(balancer.PickInfo{FullMethodName: method})
	if err != nil {
		d.t.Fatal(err)
	}
	return r.SubConn.(*conn).address, func(answered bool) {
		if r.Done != nil {
			r.Done(balancer.DoneInfo{BytesReceived: answered})
		}
	}
}

// asked makes requests that are answered, and counts who got them.
func (d *desk) asked(n int) map[string]int {
	d.t.Helper()
	count := map[string]int{}
	for range n {
		member, done := d.ask(pb.KV_Txn_FullMethodName)
		count[member]++
		done(true)
	}
	return count
}

// silence has a member be given up on after some time, and returns its name.
func (d *desk) silence(after time.Duration) string {
	member, done := d.ask(pb.KV_Txn_FullMethodName)
	time.Sleep(after)
	done(false)
	return member
}

func TestInTurn(t *testing.T) {
	d := newDesk(t, "a", "b", "c")
	if count := d.asked(30); count["a"] != 10 || count["b"] != 10 || count["c"] != 10 {
		t.Error(count)
	}
}

func TestPastTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "a", "b")
		silent := d.silence(silence)
		if count := d.asked(20); count[silent] != 0 {
			t.Errorf("%s does not answer: %v", silent, count)
		}
		d.connect("c") // what was seen of the others still counts
		if count := d.asked(20); count[silent] != 0 || count["c"] != 10 {
			t.Errorf("%s does not answer, and c is new: %v", silent, count)
		}
		time.Sleep(again + time.Second)
		if count := d.asked(30); count[silent] == 0 {
			t.Errorf("%s was not asked again: %v", silent, count)
		}
		if count := d.asked(30); count[silent] != 10 {
			t.Errorf("%s answers: %v", silent, count)
		}
	})
}

// TestStillSilent: who does not answer when it is asked again is asked as seldom as before.
func TestStillSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "a", "b")
		silent := d.silence(silence)
		d.asked(1)
		for range 3 {
			time.Sleep(again + time.Second)
			n := 0
			for range 10 {
				member, done := d.ask(pb.KV_Txn_FullMethodName)
				if member == silent {
					time.Sleep(silence)
					n++
				}
				done(member != silent)
			}
			if n != 1 {
				t.Errorf("asked %d times", n)
			}
		}
	})
}

// TestPending: a request need not have been given up for others to go past.
func TestPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "a", "b")
		member, done := d.ask(pb.KV_Txn_FullMethodName)
		time.Sleep(silence)
		if count := d.asked(10); count[member] != 0 {
			t.Errorf("%s does not answer: %v", member, count)
		}
		done(true) // it was only slow
		if count := d.asked(10); count[member] != 5 {
			t.Errorf("%s has answered: %v", member, count)
		}
	})
}

// TestGivenUpEarly: a request that somebody else has answered says nothing of a member.
func TestGivenUpEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "a", "b")
		member := d.silence(silence - 1)
		if count := d.asked(10); count[member] != 5 {
			t.Errorf("%s was given up on early: %v", member, count)
		}
	})
}

func TestAllSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "a", "b")
		d.silence(silence)
		d.silence(silence)
		if count := d.asked(1); len(count) != 1 {
			t.Error(count)
		}
		d.silence(silence)
		if count := d.asked(10); count["a"]+count["b"] != 10 {
			t.Error(count)
		}
	})
}

// TestStreams: a watch that lasts is no request without an answer.
func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "a", "b")
		d.ask(pb.Watch_Watch_FullMethodName)
		d.ask(pb.Lease_LeaseKeepAlive_FullMethodName)
		time.Sleep(time.Hour)
		if count := d.asked(10); count["a"] != 5 {
			t.Error(count)
		}
	})
}

// TestStreamsGoPastTheSilent: nothing would be learnt from a stream, and it would hear nothing.
func TestStreamsGoPastTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "a", "b")
		silent := d.silence(silence)
		time.Sleep(again + time.Second)
		for range 4 {
			if member, _ := d.ask(pb.Watch_Watch_FullMethodName); member == silent {
				t.Errorf("a stream goes to %s", member)
			}
		}
		if count := d.asked(10); count[silent] != 5 {
			t.Errorf("%s was not asked again: %v", silent, count)
		}
	})
}

func TestNobodyIsThere(t *testing.T) {
	var turns turns
	p := turns.Build(base.PickerBuildInfo{})
	if _, err := p.Pick(balancer.PickInfo{}); err != balancer.ErrNoSubConnAvailable {
		t.Error(err)
	}
	if _, err := turns.Pick(balancer.PickInfo{}); err != balancer.ErrNoSubConnAvailable {
		t.Error(err)
	}
}
