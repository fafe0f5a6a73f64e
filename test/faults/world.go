//go:build linux

package faults

import (
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A world is an etcd of one or of three members, with etcd's own timing.
type world struct {
	members []*etcdtest.Process
	cluster *etcdtest.Cluster // nil if there is one member
	access  *etcdtest.Access
	users   bool  // who asks for anything must be a user, with a password
	pace    *pace // of its answers
}

func newWorld(t testing.TB, n need) *world {
	w := startWorld(t, n.size)
	if w.users = n.users; w.users {
		w.addUsers(t)
	}
	w.pace = answeringPace(t, w.members)
	t.Cleanup(w.pace.close)
	return w
}

func startWorld(t testing.TB, size int) *world {
	if size == 1 {
		p := etcdtest.StartProcess(t, etcdtest.WithStockTicks())
		return &world{members: []*etcdtest.Process{p}, access: &p.Access}
	}
	c := etcdtest.StartCluster(t, size, etcdtest.WithStockTicks())
	w := &world{cluster: c, access: &c.Access}
	for i := range size {
		w.members = append(w.members, c.Member(i))
	}
	return w
}

// leader returns the number of the member that leads.
func (w *world) leader() int {
	if w.cluster == nil {
		return 0
	}
	leader := w.cluster.Leader()
	for i, m := range w.members {
		if m == leader {
			return i
		}
	}
	return 0
}

// A need is what a fault needs of its world.
type need struct {
	size  int  // 0: any
	alone bool // it hits the members themselves: no other trial may be there
	users bool // etcd has users with passwords
}

// with returns what both need; it is not possible if one needs one member and the other one three.
func (n need) with(m need) (_ need, possible bool) {
	return need{max(n.size, m.size), n.alone || m.alone, n.users || m.users}, n.size == 0 || m.size == 0 || n.size == m.size
}

// worlds are all there are. Those for one trial alone are used again: what a fault has broken it
// mends.
type worlds struct {
	t testing.TB

	mu     sync.Mutex
	shared map[need]*world
	idle   map[need][]*world
	few    map[int]chan struct{} // bounds how many there are for one trial alone
}

func newWorlds(t testing.TB) *worlds {
	return &worlds{t: t, shared: map[need]*world{}, idle: map[need][]*world{}, few: map[int]chan struct{}{1: make(chan struct{}, 2), 3: make(chan struct{}, 3)}}
}

// processes returns the process ids of all members that run.
func (w *worlds) processes() (pids []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	idle := slices.Concat(slices.Collect(maps.Values(w.idle))...)
	for _, world := range slices.AppendSeq(idle, maps.Values(w.shared)) {
		for _, m := range world.members {
			if pid := m.PID(); pid != 0 {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// take returns a world, and what gives it back.
func (w *worlds) take(n need) (_ *world, giveBack func()) {
	if !n.alone {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.shared[n] == nil {
			w.shared[n] = newWorld(w.t, n)
		}
		return w.shared[n], func() {}
	}
	w.few[n.size] <- struct{}{}
	w.mu.Lock()
	var taken *world
	if idle := w.idle[n]; len(idle) > 0 {
		taken, w.idle[n] = idle[0], idle[1:]
	}
	w.mu.Unlock()
	if taken == nil {
		taken = newWorld(w.t, n)
	}
	return taken, func() {
		w.mu.Lock()
		w.idle[n] = append(w.idle[n], taken)
		w.mu.Unlock()
		<-w.few[n.size]
	}
}
