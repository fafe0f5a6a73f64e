package supervise

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/sched"
)

// A Killer kills everything below this process, until somebody stops it. Three threads do it side
// by side, so that none waits for another:
//
//   - the group: everything in the control group is frozen, so that nothing forks any more, and
//     then killed;
//   - the tree: everything below this process is stopped, parents first, until no other process is
//     found, and then killed;
//   - the children: what forks and exits at once is never found by a walk, as none of it lives for
//     so long. But each of its generations falls to this process as an orphan: who looks at nothing
//     but its own children catches one of them.
//
// First all is stopped, and only then killed: to stop a process costs it microseconds, to die a
// hundred times more, and while thousands die nobody else gets the processor. A process to which
// SIGKILL was sent executes nothing of its own any more, though it may take the kernel a while to
// take it down.
type Killer struct {
	group   *cgroup.Group
	reaping *sync.Mutex // held while children are waited for: else their numbers are theirs

	preparing sync.Mutex
	reserved  bool // guarded by preparing
	prepared  bool // guarded by preparing
	begin     sync.Once
	begun     chan struct{}
	over      chan struct{}
	end       sync.Once
	running   sync.WaitGroup // those that find what to kill by themselves
	spared    atomic.Int64   // the id of a child that is not killed, 0: none
	killing   atomic.Bool    // what there was has been stopped, and is killed now
	orphans   atomic.Int64   // that have appeared since Begin

	walked  chan struct{}  // closed after the first walk
	seen    map[int]string // in walks that stop, by process id: when it started
	stopped []int          // descriptors of some of those that have not been killed yet
	killed  map[int]string // in walks that kill
}

// NewKiller returns a Killer that has not begun. Whoever waits for children of this process must
// hold reaping at the time. Spared is the id of a child that is left to live, 0: none.
func NewKiller(group *cgroup.Group, reaping *sync.Mutex, spared int) *Killer {
	k := &Killer{group: group, reaping: reaping, begun: make(chan struct{}), over: make(chan struct{}), walked: make(chan struct{}), seen: map[int]string{}, killed: map[int]string{}}
	k.spared.Store(int64(spared))
	return k
}

// Reserve has this process have the threads that it will need, if there is room for them. Prepare
// does it otherwise.
func (k *Killer) Reserve() {
	k.preparing.Lock()
	defer k.preparing.Unlock()
	k.reserved = k.reserved || !isClosed(k.over) && reserve(k.reaping)
}

// Prepare starts the threads and does what is slow the first time, so that Begin need not: on a
// busy machine each of that may have to wait for a processor, and a command may use up all
// processes and threads that its user may have. If it has done so already, Prepare tries again
// later.
func (k *Killer) Prepare() {
	const every = time.Second
	if !k.prepareNow(reserve) {
		time.AfterFunc(every, k.Prepare)
	}
}

// prepareNow prepares unless that is done or all is over. It returns false if there is no room for
// the threads, which reserve finds out.
func (k *Killer) prepareNow(reserve func(reaping *sync.Mutex) bool) bool {
	k.preparing.Lock()
	defer k.preparing.Unlock()
	if k.prepared || isClosed(k.over) {
		return true
	}
	if k.reserved = k.reserved || reserve(k.reaping); !k.reserved {
		return false
	}
	k.prepared = true
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors)) // there and back
	k.visit(map[int]string{}, 0)
	thread := func(kill func()) func() {
		return func() {
			runtime.LockOSThread()
			select {
			case <-k.begun:
				sched.UsualSlice()
				kill()
			case <-k.over:
				runtime.UnlockOSThread() // the thread need not end with it
			}
		}
	}
	if k.group != nil {
		go thread(k.killGroup)() // it can hang in the kernel
	}
	k.running.Go(thread(func() {
		<-k.walked
		k.killTree()
	}))
	k.running.Go(thread(k.killChildren))
	return true
}

func (k *Killer) isPrepared() bool {
	k.preparing.Lock()
	defer k.preparing.Unlock()
	return k.prepared
}

// Begin begins the killing, the first time that it is called. It does not wait for the end of it.
func (k *Killer) Begin() {
	k.begin.Do(func() {
		// A thread that asks for short slices lets everybody else go before it when one is over.
		sched.UsualSlice()
		if isSmall() {
			k.visit(k.killed, syscall.SIGKILL)
		}
		if k.isPrepared() || k.prepareStopped() {
			k.start()
		} else {
			k.running.Go(k.makeRoom)
		}
	})
}

// makeRoom kills until there is room for the threads.
func (k *Killer) makeRoom() {
	for p := (pace{first: KillEvery}); ; {
		others := k.round()
		if k.isPrepared() || isSmall() && k.prepareStopped() {
			k.start()
			return
		}
		if !p.wait(k.over, 0, others) {
			return
		}
	}
}

// prepareStopped prepares while as little as possible of the tree runs, which could take all room.
func (k *Killer) prepareStopped() bool {
	const walks = 3 // what forks and exits at once is never found by any
	for range walks {
		if others, still := k.stop(); !others && still {
			break
		}
	}
	return k.prepareNow(reserveStopped)
}

// start has the threads begin.
func (k *Killer) start() {
	defer close(k.walked)
	runtime.GOMAXPROCS(processors)
	close(k.begun)
	if k.group == nil {
		// This thread has a processor, and the others may have to wait for one. What is few is
		// stopped, and killed, by the time they come.
		k.stop()
	}
}

// kept is of how many processes that were stopped a descriptor is kept, where this process may have
// twice as many.
const kept = 512

// mayKeep reports whether it may.
var mayKeep = sync.OnceValue(func() bool {
	var limit syscall.Rlimit
	return syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil && limit.Cur >= 2*kept
})

// stop stops the tree, and reports whether it has found others than before, and whether nothing was
// missed. Then nothing forks any more that is known, and what was stopped is killed at once if it
// is not too many: another walk may have to wait for a processor, again and again.
func (k *Killer) stop() (others, still bool) {
	others, still = k.visit(k.seen, syscall.SIGSTOP)
	all := len(k.stopped) < kept
	for _, fd := range k.stopped {
		if still && all {
			kernel.PidfdSignal(fd, syscall.SIGKILL)
		}
		kernel.Close(fd)
	}
	k.stopped = nil
	return others, still
}

// Begun reports whether the threads have begun.
func (k *Killer) Begun() bool { return isClosed(k.begun) }

// few processes are killed at once. Nothing is left standing still of them, whatever happens to
// this process.
const few = 16

// isSmall reports whether the tree is of few processes, the dead ones that were not waited for
// among them.
func isSmall() bool {
	n, all := Count(time.Millisecond)
	return all && n <= few
}

// SpareNobody has the child killed as well that was spared.
func (k *Killer) SpareNobody() { k.spared.Store(0) }

// End ends the killing. When it returns, children that are started next are safe.
func (k *Killer) End() {
	k.end.Do(func() {
		k.preparing.Lock() // nothing is prepared any more
		defer k.preparing.Unlock()
		close(k.over)
	})
	k.running.Wait()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A pace is the time between two rounds. It grows while there is nothing new to kill: what dies
// needs the processor, and the priority of this thread may be higher.
type pace struct {
	first, next time.Duration
	last        time.Time // that there was something new
}

const shortestPause, longestPause = 100 * time.Microsecond, 100 * time.Millisecond

// wait waits between two rounds, the last of which took so long and found others to kill, or did
// not. It reports whether there is to be another one.
func (p *pace) wait(over <-chan struct{}, took time.Duration, others bool) bool {
	switch {
	case others && took > time.Millisecond:
		p.next, p.last = took, time.Now()
	case others || p.last.IsZero():
		p.next, p.last = p.first, time.Now()
	default:
		p.next = min(max(time.Since(p.last)/8, shortestPause), longestPause)
	}
	if p.next > 0 {
		select {
		case <-over:
		case <-time.After(p.next):
		}
	}
	return !isClosed(over)
}

func (k *Killer) killGroup() {
	for p := (pace{first: KillEvery}); ; {
		k.group.Freeze() // again, as somebody may have thawed it
		k.group.Kill()   // again for what is put into it meanwhile
		if !p.wait(k.over, 0, false) {
			return
		}
	}
}

// stopFor bounds for how long a tree is stopped before it is killed. What is stopped keeps its
// place among the processes that its user may have, and its share of whatever else bounds a tree
// that forks without end: what is killed makes room for others. A tree that grows faster than it is
// stopped may shrink as it is killed.
const stopFor = 2 * time.Second

func (k *Killer) killTree() {
	for p := (pace{first: KillEvery}); ; {
		begun := time.Now()
		others := k.round()
		if !p.wait(k.over, time.Since(begun), others) {
			return
		}
	}
}

// round stops the tree and kills it, and reports whether it has killed others than before.
func (k *Killer) round() (others bool) {
	begun := time.Now()
	k.killing.Store(false)
	for time.Since(begun) < stopFor {
		orphans := k.orphans.Load()
		if others, still := k.stop(); !others && still && orphans == k.orphans.Load() {
			break
		}
	}
	k.killing.Store(true)
	others, _ = k.visit(k.killed, syscall.SIGKILL)
	return others
}

// visit sends a signal to all processes below this one, as soon as each is found: also to those
// that were seen before, as somebody may have continued them. It reports whether there are others,
// and whether nothing was missed that forked meanwhile.
func (k *Killer) visit(seen map[int]string, sig syscall.Signal) (others, still bool) {
	signal := func(p Process, fd int) {
		if p.PID == int(k.spared.Load()) {
			return
		}
		start, before := seen[p.PID]
		others = others || !before || start != p.start
		seen[p.PID] = p.start
		if fd < 0 || kernel.PidfdSignal(fd, sig) != nil {
			p.Signal(sig)
		} else if sig == syscall.SIGSTOP && len(k.stopped) < kept && mayKeep() {
			if again, err := kernel.Dup(fd); err == nil {
				k.stopped = append(k.stopped, again)
			}
		}
	}
	if kernel.OwnProc() && listsChildren() == nil {
		still = descend(os.Getpid(), signal)
		return others, still
	}
	for _, p := range Descendants() {
		signal(p, -1)
	}
	return others, true
}

func (k *Killer) killChildren() {
	if !kernel.OwnProc() || errors.Is(listsChildren(), fs.ErrNotExist) {
		return // the walk has to do
	}
	known := map[int]bool{}
	for p := (pace{}); ; {
		begun := time.Now()
		threads := 1 // what forks and exits at once falls to the main one
		if p.next > time.Millisecond {
			threads = 0
		}
		others := false
		known, others = k.signalOwn(known, threads)
		if !p.wait(k.over, time.Since(begun), others) {
			return
		}
	}
}

// killAtOnce is how many children that were stopped are killed before others are looked for. Those
// who appear while hundreds are killed must not wait for that.
const killAtOnce = 16

// signalOwn stops the children of this process that were not known yet, or kills them once it is
// time, and then some of those that were stopped; it reports whether there are any. It returns all
// that are there, and whether each was killed: the others are gone, and others may have their
// numbers.
func (k *Killer) signalOwn(known map[int]bool, threads int) (now map[int]bool, others bool) {
	if !k.reaping.TryLock() { // who reaps may be waiting for the processor that this thread has
		return known, false
	}
	defer k.reaping.Unlock()
	killing := k.killing.Load()
	now = make(map[int]bool)
	pids, _ := childrenOf(os.Getpid(), threads)
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == int(k.spared.Load()) })
	for _, pid := range pids {
		killed, before := known[pid]
		switch {
		case before:
		case killing:
			killed, others = true, true
			syscall.Kill(pid, syscall.SIGKILL)
		default:
			others = true
			syscall.Kill(pid, syscall.SIGSTOP)
			k.orphans.Add(1)
		}
		now[pid] = killed
	}
	if !killing {
		return now, others
	}
	left := killAtOnce
	// The walk kills them as well, and begins with the first.
	for _, pid := range slices.Backward(pids) {
		if left > 0 && !now[pid] {
			now[pid], others = true, true
			syscall.Kill(pid, syscall.SIGKILL)
			left--
		}
	}
	return now, others
}

// countEvery is the time between two counts of what is left, for Progress.
const countEvery = 250 * time.Millisecond

// Progress tells whether some of what is killed have died.
type Progress struct {
	at     time.Time
	living int
}

// Made reports whether some have died, or others appeared, since the last call. It counts them now
// and then, the first time a while after the first call: then most are dead.
func (p *Progress) Made() bool {
	if p.at.IsZero() {
		p.at = time.Now()
	}
	if time.Since(p.at) < countEvery {
		return false
	}
	living := 0
	for _, d := range Descendants() {
		if d.Alive() {
			living++
		}
	}
	made := living != p.living
	p.at, p.living = time.Now(), living
	return made
}
