package supervise

import (
	"bytes"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// adopt makes orphans among our descendants fall to us instead of to init.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

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
func Descendants() []Process {
	self := os.Getpid()
	if link, err := os.Readlink("/proc/self"); err != nil || link != strconv.Itoa(self) {
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
	for next := []int{self}; len(next) > 0; next = next[1:] {
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
		if unix.Kill(pid, 0) != unix.ESRCH && isChild(pid) {
			found = append(found, Process{PID: pid, Name: "a process"})
		}
	}
	return found
}

// lastPID returns the process id that was given last in our namespace, which is what /proc/loadavg tells to whoever reads it,
// also where the rest of /proc belongs to another one.
func lastPID() int {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 1
	}
	fields := bytes.Fields(content)
	pid, err := strconv.Atoi(string(fields[len(fields)-1]))
	if err != nil {
		return 1
	}
	return pid
}

// isChild also says yes of a child that has ended and was not waited for.
func isChild(pid int) bool {
	return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil) == nil
}

// readProcess reads /proc/PID/stat.
func readProcess(pid int) (Process, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, false
	}
	// The name stands in parentheses and may hold any others.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Process{}, false
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 20 {
		return Process{}, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return Process{
		PID:     pid,
		Name:    string(stat[open+1 : end]),
		Zombie:  fields[0][0] == 'Z',
		Stopped: fields[0][0] == 'T',
		parent:  parent,
		start:   string(fields[19]),
	}, err == nil
}

// Signal sends a signal to the very process that was seen: through a descriptor, opened before it is looked at
// again, as its id may have gone to another one.
func (p Process) Signal(sig syscall.Signal) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		if err == unix.ENOSYS {
			syscall.Kill(p.PID, sig)
		}
		return
	}
	defer unix.Close(fd)
	if p.start == "" && isChild(p.PID) || p.start != "" && p.isStill() {
		unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// Freeze stops the processes that list returns, and what they have started meanwhile, but for those that are stopped
// already. It returns those that it has stopped.
func Freeze(list func() []Process) (frozen []Process) {
	seen := make(map[int]string) // by process id: when it started
	for more := true; more; {
		more = false
		for _, p := range list() {
			if seen[p.PID] == p.start {
				continue
			}
			seen[p.PID], more = p.start, true
			if !p.Stopped && !p.Zombie {
				p.Signal(syscall.SIGSTOP)
				frozen = append(frozen, p)
			}
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

// isStill reports whether a process that was seen in /proc is there.
func (p Process) isStill() bool {
	now, ok := readProcess(p.PID)
	return ok && now.start == p.start
}
