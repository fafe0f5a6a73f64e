package guard

import (
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// A cgroup is the control group of a command, below that of etcdlocker, where one may be made: then the kernel kills and
// stops everything in it at once. It is named after the lease, so that etcdlocker finds it, too, and no other one does. The
// zero value is none.
type cgroup struct {
	mu   sync.Mutex
	dir  string
	name string // in the hierarchy
	over bool   // there will be none any more
}

const cgroupPrefix = "etcdlocker-"

// cgroupOf returns the group that the command under a lease has, if it has one.
func cgroupOf(lease int64) (*cgroup, error) {
	own, dir, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	name := cgroupPrefix + hex(lease)
	return &cgroup{dir: path.Join(dir, name), name: path.Join(own, name)}, nil
}

// gatherRounds bounds how often gather looks for processes that were born outside of the group meanwhile.
const gatherRounds = 20

// gather makes the group of this guard's command and puts everything into it that is where the guard is: what the command has
// put into groups of its own stays there. Where that is not possible there is the walk over descendants.
func (c *cgroup) gather(lease int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	made, err := cgroupOf(lease)
	if err != nil || c.over {
		return
	}
	sweep(path.Dir(made.dir))
	if err := os.Mkdir(made.dir, 0o755); err != nil {
		return
	}
	if _, err := os.Stat(made.dir + "/cgroup.kill"); err != nil { // since Linux 5.14
		os.Remove(made.dir)
		return
	}
	c.dir, c.name = made.dir, made.name
	// Children are born into their parent's group.
	for range gatherRounds {
		moved := false
		for _, p := range supervise.Descendants() {
			if groupOf(strconv.Itoa(p.PID)) == path.Dir(c.name) && c.write("cgroup.procs", strconv.Itoa(p.PID)) == nil {
				moved = true
			}
		}
		if !moved {
			return
		}
	}
}

// has reports whether a process is in the group, or in one below it.
func (c *cgroup) has(pid int) bool {
	_, in := kernel.CutPrefix(groupOf(strconv.Itoa(pid))+"/", c.name+"/")
	return in && c.dir != ""
}

// groupOf returns the name of a process's group in the second version's hierarchy, empty if that is not known.
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

// ownCgroup returns the name and the directory of this process's group. The second version's hierarchy is not always mounted
// where it is expected: next to those of the first version it is elsewhere.
func ownCgroup() (name, dir string, err error) {
	root, mount, err := cgroupMount()
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

// cgroupMount returns which part of the hierarchy is mounted, and where.
func cgroupMount() (root, mount string, err error) {
	content, err := kernel.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
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

// sweep removes groups whose guards were killed together with their etcdlockers. The kernel refuses to remove one that is in
// use; one that is new may be about to be.
func sweep(parent string) {
	others, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, f := range others {
		if _, ours := kernel.CutPrefix(f.Name(), cgroupPrefix); !ours {
			continue
		}
		if info, err := f.Info(); err == nil && time.Since(info.ModTime()) > time.Minute {
			syscall.Rmdir(parent + "/" + f.Name())
		}
	}
}

// kill kills everything in the group. What is not in it is left to the walk over descendants.
func (c *cgroup) kill() {
	// It may be about to be made: then the walk has to do.
	if c.mu.TryLock() {
		defer c.mu.Unlock()
		c.write("cgroup.kill", "1")
	}
}

// freeze stops everything in the group, or lets it go on.
func (c *cgroup) freeze(stop bool) {
	value := "0"
	if stop {
		value = "1"
	}
	c.write("cgroup.freeze", value)
}

// remove removes the group. What the command has left in it goes back to where it would be without.
func (c *cgroup) remove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.dir == "" || syscall.Rmdir(c.dir) != syscall.EBUSY {
		return
	}
	c.freeze(false)
	content, err := kernel.ReadFile(c.dir + "/cgroup.procs")
	if err != nil {
		return
	}
	parent := cgroup{dir: path.Dir(c.dir)}
	for _, pid := range kernel.Fields(content) {
		parent.write("cgroup.procs", pid)
	}
	syscall.Rmdir(c.dir)
}

func (c *cgroup) write(file, value string) error {
	if c.dir == "" {
		return os.ErrNotExist
	}
	f, err := os.OpenFile(c.dir+"/"+file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}
