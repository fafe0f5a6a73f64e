package supervise

import (
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// A Process is one that was seen in /proc.
type Process struct {
	PID  int
	Name string

	Zombie  bool // its main thread has ended; see Alive
	Stopped bool

	parent  int
	forked  bool // and has not executed anything since
	threads int  // 0: not known
	// When it started: tells it from a later one with the same id; empty for what /proc does not
	// show.
	start string
}

// Alive reports whether any thread of the process goes on.
func (p Process) Alive() bool { return !p.Zombie || p.threads > 1 }

// Descendants returns the processes below this one, but for earlier children and what is below
// those, as far as /proc shows them. If it belongs to another pid namespace the numbers in it are
// other processes': then it is the children of this one, orphans that have fallen to it among them.
func Descendants() []Process {
	all, _ := walk(os.Getpid())
	return all
}

// walk returns the processes below one, and whether all of them stood still, see descend. Where
// /proc belongs to another pid namespace it knows only of those below this one.
func walk(top int) (all []Process, still bool) {
	switch {
	case kernel.OwnProc() && listsChildren() == nil:
		still = descend(top, func(p Process, _ int) { all = append(all, p) })
		return all, still
	case kernel.OwnProc():
		return amongAll(top), true
	case top == os.Getpid():
		return children(), true
	}
	return nil, true
}

// listsChildren returns nil if the kernel lists the children of each thread, fs.ErrNotExist if it
// never does (CONFIG_PROC_CHILDREN), and another error if the list cannot be read now, for lack of
// descriptors or memory.
func listsChildren() error {
	self := strconv.Itoa(os.Getpid())
	_, err := kernel.ReadFile("/proc/" + self + "/task/" + self + "/children")
	return err
}

// childrenOf returns the ids of a process's children, those of this one without the earlier ones,
// and whether the kernel lists them. They belong to the thread that started them; orphans fall to
// the main one, as long as it lives.
func childrenOf(pid, threads int) (pids []int, listed bool) {
	main := strconv.Itoa(pid)
	task, tids := "/proc/"+main+"/task/", []string{main}
	if threads != 1 {
		if all, err := kernel.Names(task); err == nil {
			tids = all
		}
	}
	for _, tid := range tids {
		content, err := kernel.ReadFile(task + tid + "/children")
		if err != nil {
			continue
		}
		listed = true
		for _, word := range kernel.Fields(content) {
			if child, err := strconv.Atoi(word); err == nil {
				pids = append(pids, child)
			}
		}
	}
	if pid == os.Getpid() {
		pids = slices.DeleteFunc(pids, isEarlier)
	}
	return pids, listed
}

// descend goes down from parent to child, and calls found for each process that it finds below top,
// with a descriptor of it, which is negative where none is to be had. It costs what the tree is
// large, and not the machine. What becomes an orphan meanwhile may be missed, and is found the next
// time: it reports whether all stood still. Then nothing was missed, but for what those that are
// found ended have started: they may have lived when their parent was asked for its children.
func descend(top int, found func(p Process, fd int)) (still bool) {
	still = true
	for next := []Process{{PID: top}}; len(next) > 0; next = next[1:] {
		pids, _ := childrenOf(next[0].PID, next[0].threads)
		for _, pid := range pids {
			if p, ok := find(pid, found, next[0].PID, top); ok {
				next = append(next, p)
			} else {
				still = false
			}
		}
	}
	return still
}

// Count counts the processes below this one. It gives up after a time, and reports whether it has
// not.
func Count(within time.Duration) (n int, all bool) {
	if !kernel.OwnProc() || listsChildren() != nil {
		return len(Descendants()), true
	}
	begun := time.Now()
	for next := []int{os.Getpid()}; len(next) > 0; next = next[1:] {
		if time.Since(begun) > within {
			return n, false
		}
		pids, _ := childrenOf(next[0], 0)
		n += len(pids)
		next = append(next, pids...)
	}
	return n, true
}

// find calls found if a process, which was the child of the first of some parents, has one of them.
// It may be an orphan by now, or its number may have gone to another process: so it is looked at
// after the descriptor was opened.
func find(pid int, found func(p Process, fd int), parents ...int) (p Process, ok bool) {
	fd, err := kernel.PidfdOpen(pid)
	switch err {
	case nil:
		defer kernel.Close(fd)
	case syscall.ESRCH:
		return p, false
	default:
		fd = -1
	}
	if p, ok = readProcess(pid); !ok {
		// /proc may hide it (hidepid). Then its parent is all that is known of it.
		p = Process{PID: pid, Name: "a process", parent: parents[0]}
		ok = p.isStill()
	}
	if ok && slices.Contains(parents, p.parent) {
		found(p, fd)
		return p, true
	}
	return p, false
}

// amongAll looks at all processes of the machine.
func amongAll(top int) []Process {
	below := make(map[int][]Process)
	names, err := kernel.Names("/proc")
	if err != nil {
		return nil
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := readProcess(pid); ok && !isEarlier(pid) {
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

// children asks the kernel of each possible process id whether it is a child of this process: first
// up to the one that was given last, and if none of those is, of all, as they may have begun anew.
// To ask of all may take seconds, which nobody has who waits for the last of them to be gone.
func children() []Process {
	const most = 1 << 22 // the kernel's own limit
	if !kernel.HasChildren() {
		return nil
	}
	last := lastPID()
	if found := childrenAmong(2, last); len(found) > 0 {
		return found
	}
	return childrenAmong(last+1, most)
}

func childrenAmong(from, to int) (found []Process) {
	for pid := from; pid <= to; pid++ {
		// The first question is the cheaper one.
		if syscall.Kill(pid, 0) != syscall.ESRCH && kernel.IsChild(pid) && !isEarlier(pid) {
			found = append(found, Process{PID: pid, Name: "a process"})
		}
	}
	return found
}

// lastPID returns the process id that was given last in our namespace, which is what /proc/loadavg
// tells to whoever reads it, also where the rest of /proc belongs to another one.
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

// Executed reports whether a child of this process has executed a program. Where /proc does not
// tell, it has.
func Executed(pid int) bool {
	p, ok := readProcess(pid)
	return !ok || !p.forked || !kernel.OwnProc()
}

// IsAbove reports whether a process has started this one, or one that has, as far as /proc shows
// it.
func IsAbove(pid int) bool { return isBelow(os.Getppid(), pid) }

// IsBelow reports whether this process has started a process, or one that has, as far as /proc
// shows it.
func IsBelow(pid int) bool { return isBelow(pid, os.Getpid()) }

// isBelow reports whether a process is another one, or below it.
func isBelow(pid, other int) bool {
	for pid > 0 {
		if pid == other {
			return true
		}
		p, ok := readProcess(pid)
		if !ok || !kernel.OwnProc() {
			return false
		}
		pid = p.parent
	}
	return false
}

// forkedNotExecuted is the kernel's PF_FORKNOEXEC, among the flags of a process.
const forkedNotExecuted = 0x40

// readProcess reads /proc/PID/stat.
func readProcess(pid int) (Process, bool) {
	stat, err := kernel.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, false
	}
	return parseStat(pid, stat)
}

func parseStat(pid int, stat string) (Process, bool) {
	// The name stands in parentheses and may hold any others.
	_, stat, _ = kernel.Cut(stat, '(')
	name, rest, _ := kernel.CutLast(stat, ')')
	var buf [20]string
	fields := kernel.AppendFields(buf[:0], rest, len(buf))
	if len(fields) < len(buf) {
		return Process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	threads, _ := strconv.Atoi(fields[17])
	flags, _ := strconv.ParseUint(fields[6], 10, 64)
	return Process{
		PID:     pid,
		Name:    name,
		Zombie:  fields[0] == "Z",
		Stopped: fields[0] == "T",
		parent:  parent,
		threads: threads,
		forked:  flags&forkedNotExecuted != 0,
		start:   fields[19],
	}, err == nil
}

// Signal sends a signal to the very process that was seen: through a descriptor, opened before it
// is looked at again, as its id may have gone to another one.
func (p Process) Signal(sig syscall.Signal) {
	fd, err := kernel.PidfdOpen(p.PID)
	switch err {
	case nil:
		defer kernel.Close(fd)
	case syscall.ESRCH:
		return
	default: // an old kernel, or a sandbox that does not know the call, or no descriptors left
		fd = -1
	}
	if p.isStill() {
		kernel.Signal(p.PID, fd, sig)
	}
}

// freezeRounds bounds how often Freeze looks for what has been started meanwhile. A tree that forks
// without end is killed when validity ends.
const freezeRounds = 50

// Freeze stops the processes that list returns, and what they have started meanwhile, but for those
// that are stopped already, and embedded etcds: a lock in doubt may hang on one. It returns those
// that it has stopped.
func Freeze(list func() []Process) (frozen []Process) {
	seen := make(map[int]string) // by process id: when it started
	for range freezeRounds {
		more := false
		for _, p := range list() {
			if start, ok := seen[p.PID]; ok && start == p.start {
				continue
			}
			seen[p.PID], more = p.start, true
			if !p.Stopped && !p.isServer() {
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
	if p.start == "" && p.parent == 0 {
		return kernel.IsChild(p.PID)
	}
	if p.start == "" {
		pids, _ := childrenOf(p.parent, 0)
		return slices.Contains(pids, p.PID)
	}
	now, ok := readProcess(p.PID)
	return ok && now.start == p.start
}
