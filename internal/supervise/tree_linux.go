package supervise

import (
	"os"
	"strconv"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// adopt makes orphans among our descendants fall to us instead of to init.
func adopt() error {
	return os.NewSyscallError("becoming the parent of orphans", kernel.AdoptOrphans(true))
}

// release lets them fall to init again.
func release() { kernel.AdoptOrphans(false) }

func attributes() *syscall.SysProcAttr { return nil }

func (t *Tree) signalCommand(sig syscall.Signal) { syscall.Kill(t.pid, sig) }

func (t *Tree) signalAll(sig syscall.Signal) {
	for _, p := range Descendants() {
		p.Signal(sig)
	}
	t.Signal(sig) // also where /proc shows nothing
}

// A Process is one that was seen in /proc.
type Process struct {
	PID  int
	Name string

	Zombie  bool // its main thread has ended; other threads may go on
	Stopped bool

	parent int
	start  string // when it started: tells it from a later one with the same id; empty for a child that /proc does not show
}

// Descendants returns the processes below this one, as far as /proc shows them. If it belongs to another pid namespace the
// numbers in it are other processes': then it is the children of this one, orphans that have fallen to it among them.
func Descendants() []Process { return DescendantsOf(os.Getpid()) }

// DescendantsOf returns those below another process. In another pid namespace than that of /proc it knows only of this one.
func DescendantsOf(top int) []Process {
	self := os.Getpid()
	if link, err := os.Readlink("/proc/self"); err != nil || link != strconv.Itoa(self) {
		if top != self {
			return nil
		}
		return children()
	}
	below := make(map[int][]Process)
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := readProcess(pid); ok {
				below[p.parent] = append(below[p.parent], p)
			}
		}
	}
	var all []Process
	for next := []int{top}; len(next) > 0; next = next[1:] {
		for _, p := range below[next[0]] {
			all = append(all, p)
			next = append(next, p.PID)
		}
	}
	return all
}

// children asks the kernel of each possible process id whether it is a child of this process: first up to the one that was
// given last, and if none of those is, of all, as they may have begun anew.
func children() []Process {
	const most = 1 << 22 // the kernel's own limit
	last := lastPID()
	if found := childrenAmong(2, last); len(found) > 0 {
		return found
	}
	return childrenAmong(last+1, most)
}

func childrenAmong(from, to int) (found []Process) {
	for pid := from; pid <= to; pid++ {
		// The first question is the cheaper one.
		if syscall.Kill(pid, 0) != syscall.ESRCH && kernel.IsChild(pid) {
			found = append(found, Process{PID: pid, Name: "a process"})
		}
	}
	return found
}

// lastPID returns the process id that was given last in our namespace, which is what /proc/loadavg tells to whoever reads it,
// also where the rest of /proc belongs to another one.
func lastPID() int {
	content, err := kernel.ReadFile("/proc/loadavg")
	fields := kernel.Fields(content)
	if err != nil || len(fields) == 0 {
		return 1
	}
	pid, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		return 1
	}
	return pid
}

// readProcess reads /proc/PID/stat.
func readProcess(pid int) (Process, bool) {
	stat, err := kernel.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, false
	}
	// The name stands in parentheses and may hold any others.
	_, stat, _ = kernel.Cut(stat, '(')
	name, rest, _ := kernel.CutLast(stat, ')')
	fields := kernel.Fields(rest)
	if len(fields) < 20 {
		return Process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return Process{
		PID:     pid,
		Name:    name,
		Zombie:  fields[0] == "Z",
		Stopped: fields[0] == "T",
		parent:  parent,
		start:   fields[19],
	}, err == nil
}

// Signal sends a signal to the very process that was seen: through a descriptor, opened before it is looked at
// again, as its id may have gone to another one.
func (p Process) Signal(sig syscall.Signal) {
	fd, err := kernel.PidfdOpen(p.PID)
	if err == syscall.ESRCH {
		return
	}
	if err == nil {
		defer syscall.Close(fd)
	}
	if !p.isStill() {
		return
	}
	if err == nil {
		err = kernel.PidfdSignal(fd, sig)
	}
	if err != nil && err != syscall.ESRCH {
		syscall.Kill(p.PID, sig) // an old kernel, or a sandbox that does not know the calls, or no descriptors left
	}
}

// freezeRounds bounds how often Freeze looks for what has been started meanwhile. A tree that forks without end is killed
// when validity ends.
const freezeRounds = 50

// Freeze stops the processes that list returns, and what they have started meanwhile, but for those that are stopped
// already. It returns those that it has stopped.
func Freeze(list func() []Process) (frozen []Process) {
	seen := make(map[int]string) // by process id: when it started
	for range freezeRounds {
		more := false
		for _, p := range list() {
			if start, ok := seen[p.PID]; ok && start == p.start {
				continue
			}
			seen[p.PID], more = p.start, true
			if !p.Stopped {
				p.Signal(syscall.SIGSTOP)
				frozen = append(frozen, p)
			}
		}
		if !more {
			break
		}
	}
	return frozen
}

// Thaw lets processes go on that were frozen.
func Thaw(frozen []Process) {
	for _, p := range frozen {
		p.Signal(syscall.SIGCONT)
	}
}

// isStill reports whether the very process that was seen is there.
func (p Process) isStill() bool {
	if p.start == "" {
		return kernel.IsChild(p.PID)
	}
	now, ok := readProcess(p.PID)
	return ok && now.start == p.start
}
