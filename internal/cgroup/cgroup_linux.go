// Package cgroup is the control group of a command, where one may be made: then the kernel stops
// and kills everything in it at once.
//
// A group is made below that of the process that makes it, in the second version's hierarchy, and
// is called by [Prefix] and numbers: so one etcdlocker finds the groups of others that run below
// it.
//
// It belongs to what a guard is made of, see package kernel, and so needs little.
package cgroup

import (
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// Prefix is how the names of groups begin.
const Prefix = "etcdlocker-"

// A Group is a control group. The methods of a nil Group do nothing.
type Group struct {
	dir  string
	name string   // in the hierarchy
	file *os.File // the directory, which whoever made the group has locked; nil for others
}

// Make makes a group, with a suffix of a process id, a hyphen and a hexadecimal number. Nobody is
// in it yet. It fails where there is no hierarchy of the second version, where it may not be
// written to, and before Linux 5.14, which has no cgroup.kill.
func Make(suffix string) (*Group, error) {
	own, parent, err := current()
	if err != nil {
		return nil, err
	}
	g := &Group{dir: path.Join(parent, Prefix+suffix), name: path.Join(own, Prefix+suffix)}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, err
	}
	if err := g.lock(); err != nil {
		syscall.Rmdir(g.dir)
		return nil, err
	}
	return g, nil
}

// lock shows to others that the group is in use, for as long as this process lives.
func (g *Group) lock() (err error) {
	if _, err := os.Stat(g.dir + "/cgroup.kill"); err != nil {
		return err
	}
	if g.file, err = os.Open(g.dir); err != nil {
		return err
	}
	if err := syscall.Flock(int(g.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		g.file.Close()
		return err
	}
	return nil
}

// isUsed reports whether another guard has locked the group.
func (g *Group) isUsed() bool {
	other := &Group{dir: g.dir}
	err := other.lock()
	if err == nil {
		other.file.Close()
	}
	return err == syscall.EWOULDBLOCK
}

// hasEnded reports whether the group is that of an etcdlocker whose guard is there no more.
func (g *Group) hasEnded() bool { return isOurs(g.dir) && !g.isUsed() }

// isOurs reports whether a directory is that of an etcdlocker's group: behind the prefix there are
// a process id and another number, as in etcdlocker-4711-5eed. A service may be called alike.
func isOurs(dir string) bool {
	numbers, prefixed := kernel.CutPrefix(path.Base(dir), Prefix)
	pid, random, both := kernel.Cut(numbers, '-')
	_, err := strconv.ParseUint(pid, 10, 32)
	_, err2 := strconv.ParseUint(random, 16, 64)
	return prefixed && both && err == nil && err2 == nil
}

// Open returns the group that another process has made, by its Path.
func Open(path string) *Group {
	dir, name, found := kernel.Cut(path, 0)
	if !found {
		return nil
	}
	return &Group{dir: dir, name: name}
}

// Path says where the group is, for Open in another process.
func (g *Group) Path() string {
	if g == nil {
		return ""
	}
	return g.dir + "\x00" + g.name
}

// FD returns a descriptor of the group for clone3, if this process has made it.
func (g *Group) FD() (fd int, ok bool) {
	if g == nil || g.file == nil {
		return -1, false
	}
	return int(g.file.Fd()), true
}

// Has reports whether a process is in the group, or in one below it.
func (g *Group) Has(pid int) bool {
	if g == nil {
		return false
	}
	_, in := kernel.CutPrefix(groupOf(strconv.Itoa(pid))+"/", g.name+"/")
	return in
}

// Members returns the ids of the processes in the group and in those below it, as far as this
// process's pid namespace has them.
func (g *Group) Members() (pids []int) {
	if g == nil {
		return nil
	}
	g.walk(func(dir string) {
		content, err := kernel.ReadFile(dir + "/cgroup.procs")
		if err != nil {
			return
		}
		for _, word := range kernel.Fields(content) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	})
	return pids
}

// Kill kills everything in the group and in those below it. With thousands of processes, or with
// other groups at work, that takes the kernel some 100 ms.
func (g *Group) Kill() { g.write("cgroup.kill", "1") }

// Freeze stops everything in the group, and what that starts. Nobody in it executes anything of
// its own when Freeze returns, but for the moment until other processors have heard of it.
func (g *Group) Freeze() { g.write("cgroup.freeze", "1") }

// Thaw lets everything in the group go on.
func (g *Group) Thaw() {
	g.holdNested()
	g.write("cgroup.freeze", "0")
}

// Frozen reports whether the group was frozen by its own name, and not by one above it.
func (g *Group) Frozen() bool {
	if g == nil {
		return false
	}
	content, err := kernel.ReadFile(g.dir + "/cgroup.freeze")
	return err == nil && content == "1\n"
}

// hasCommand reports whether somebody is in a nested group but for what its guard has forked, and
// not executed yet: that would never be executed in a group that stands still.
func (g *Group) hasCommand() bool {
	return slices.ContainsFunc(g.Members(), func(pid int) bool { return !isGuard(pid) })
}

// isGuard reports whether a process is called like what looks after a nested group: 15 bytes of
// that.
func isGuard(pid int) bool {
	comm, err := kernel.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return err == nil && comm == "etcdlocker-guar\n"
}

// holdNested has the commands of etcdlockers within the group stand still when it is thawed: their
// locks may have run out meanwhile. A signal awaits their guards, who thaw them or kill them. A
// guard that has not started its command yet does not hear that: its group is left as it is.
func (g *Group) holdNested() {
	if g == nil {
		return
	}
	var nested []*Group
	g.walk(func(dir string) {
		if n := (&Group{dir: dir}); isOurs(dir) && dir != g.dir && n.hasCommand() {
			nested = append(nested, n)
		}
	})
	if len(nested) == 0 {
		return
	}
	for _, n := range nested {
		n.Freeze()
	}
	for _, pid := range g.Members() {
		if isGuard(pid) {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}

// Remove removes the group and those below it, the deepest first. What is left in it goes on where
// it would be without; what is left in a group of its own below it keeps that, and all above it. So
// does another etcdlocker whose guard lives: its Remove removes what was kept for it above. It may
// wait for what is just ending.
func (g *Group) Remove() {
	if g == nil {
		return
	}
	others := g.removeAll()
	if g.file != nil {
		g.file.Close()
	}
	// Another one that has ended meanwhile may have left to this one what is both's. Each of the
	// two asks when its own is locked no more.
	if slices.ContainsFunc(others, func(o *Group) bool { return !o.isUsed() }) {
		g.removeAll()
	}
	if around := (&Group{dir: path.Dir(g.dir)}); around.hasEnded() {
		around.Remove()
	}
}

// removeAll removes the group and those below it but for those that other guards have locked,
// which it returns.
func (g *Group) removeAll() (others []*Group) {
	var dirs []string
	theirs := make(map[string]bool)                             // with all in them
	kept, until := make(map[string]bool), time.Now().Add(dying) // kept as there are groups below
	g.walk(func(dir string) {
		above, one := path.Dir(dir), &Group{dir: dir}
		switch {
		case theirs[above]:
			theirs[dir] = true
		case dir != g.dir && isOurs(dir) && one.isUsed():
			theirs[dir], kept[above] = true, true
			others = append(others, one)
		default:
			dirs = append(dirs, dir)
		}
	})
	slices.Reverse(dirs)
	into := path.Dir(g.dir)
	for (&Group{dir: into}).hasEnded() {
		into = path.Dir(into)
	}
	for _, dir := range dirs {
		if !(&Group{dir: dir}).removeAlone(into, kept[dir], until) {
			kept[path.Dir(dir)] = true
		}
	}
	return others
}

// dying is how long Remove waits for what has not left a group although it could. The kernel moves
// nobody who is about to end, and does not refuse to: it has them in the group until they have
// given back their memory.
const dying = time.Second

// removeAlone removes the group, if it is an etcdlocker's, with what is left in it going into
// another one. It reports whether the group is gone, which it cannot be if it is kept.
func (g *Group) removeAlone(into string, kept bool, until time.Time) bool {
	gone := func() bool { return syscall.Rmdir(g.dir) != syscall.EBUSY }
	if gone() {
		return true
	}
	if !isOurs(g.dir) {
		return false
	}
	for ; ; time.Sleep(time.Millisecond) {
		all := g.evict(into)
		switch {
		case gone():
			return true
		case !all, kept, time.Now().After(until):
			return false
		}
	}
}

// Leave moves this process out of all groups of etcdlockers, where that is allowed: what it is
// about to start serves others as well, and must not be frozen with their commands.
func Leave() error {
	name, dir, err := current()
	if err != nil {
		return err
	}
	outside := ""
	for name != "/" && name != "." {
		ours := isOurs(name)
		name, dir = path.Dir(name), path.Dir(dir)
		if ours {
			outside = dir
		}
	}
	if outside == "" {
		return nil
	}
	return (&Group{dir: outside}).write("cgroup.procs", "0")
}

// evict lets all go on that are in the group, not in those below it, and puts them into another
// one. It reports whether none was refused.
func (g *Group) evict(into string) (all bool) {
	g.write("cgroup.freeze", "0")
	content, err := kernel.ReadFile(g.dir + "/cgroup.procs")
	if err != nil {
		return false
	}
	to := &Group{dir: into}
	all = true
	for _, pid := range kernel.Fields(content) {
		if err := to.write("cgroup.procs", pid); err != nil && !errors.Is(err, syscall.ESRCH) {
			all = false
		}
	}
	return all
}

// newborn is how old a group that nobody has locked must be before Sweep takes it for one that was
// left behind: it may be about to be locked.
const newborn = time.Minute

// Sweep removes groups beside this one that were left behind by etcdlockers that were killed
// together with their guards, if nobody is in them.
func (g *Group) Sweep() {
	if g == nil {
		return
	}
	parent := path.Dir(g.dir)
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !isOurs(e.Name()) {
			continue
		}
		if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < newborn {
			continue
		}
		other := &Group{dir: path.Join(parent, e.Name())}
		if len(other.Members()) == 0 && other.lock() == nil {
			other.Remove()
		}
	}
}

// RemoveMade removes the groups with a suffix that begins so: those of a process that was killed
// before it could say what it had made. One with a process in it stays.
func RemoveMade(begin string) {
	_, parent, err := current()
	if err != nil {
		return
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if _, made := kernel.CutPrefix(e.Name(), Prefix+begin); made {
			syscall.Rmdir(path.Join(parent, e.Name()))
		}
	}
}

// walk calls f with the directory of the group, and then with those of all below it, parents first.
func (g *Group) walk(f func(dir string)) {
	if stat, err := kernel.ReadFile(g.dir + "/cgroup.stat"); err == nil && kernel.Lines(stat)[0] == "nr_descendants 0" {
		f(g.dir) // as usual
		return
	}
	for next := []string{g.dir}; len(next) > 0; next = next[1:] {
		f(next[0])
		entries, err := os.ReadDir(next[0])
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() {
				next = append(next, path.Join(next[0], e.Name()))
			}
		}
	}
}

func (g *Group) write(file, value string) error {
	if g == nil {
		return os.ErrNotExist
	}
	f, err := os.OpenFile(g.dir+"/"+file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// groupOf returns the name of a process's group in the second version's hierarchy, empty if that is
// not known.
func groupOf(process string) string {
	content, err := kernel.ReadFile("/proc/" + process + "/cgroup")
	if err != nil {
		return ""
	}
	for _, line := range kernel.Lines(content) {
		if name, ok := kernel.CutPrefix(line, "0::"); ok {
			return name
		}
	}
	return ""
}

// current returns the name and the directory of this process's group. The second version's
// hierarchy is not always mounted where it is expected: next to those of the first version it is
// elsewhere.
func current() (name, dir string, err error) {
	root, mount, err := hierarchy()
	if err != nil {
		return "", "", err
	}
	if name = groupOf("self"); name == "" {
		return "", "", errors.New("not in a cgroup of the second version")
	}
	if root == "/" {
		return name, path.Join(mount, name), nil
	}
	below, ok := kernel.CutPrefix(name+"/", root+"/")
	if !ok {
		return "", "", errors.New("the group is not below what is mounted")
	}
	return name, path.Join(mount, below), nil
}

// hierarchy returns which part of the second version's hierarchy is mounted, and where.
func hierarchy() (root, mount string, err error) {
	content, err := kernel.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	return parseMounts(content)
}

func parseMounts(content string) (root, mount string, err error) {
	for _, line := range kernel.Lines(content) {
		// Optional fields end with a lone dash; the type of the file system follows.
		fields := kernel.Fields(line)
		if dash := slices.Index(fields, "-"); dash > 4 && dash+1 < len(fields) && fields[dash+1] == "cgroup2" {
			return unescape(fields[3]), unescape(fields[4]), nil
		}
	}
	return "", "", errors.New("no cgroup hierarchy of the second version is mounted")
}

// unescape undoes what mountinfo does to blanks: a backslash and three octal digits stand for them.
func unescape(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b = append(b, byte(n))
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
