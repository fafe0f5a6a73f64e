package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// A cgroup is the control group of a command, below that of etcdlocker, where one may be made: then the kernel kills and
// stops everything in it at once. It is named after the guard, so that etcdlocker finds it, too. The zero value is none.
type cgroup struct {
	mu   sync.Mutex
	dir  string
	over bool // there will be none any more
}

const cgroupPrefix = "etcdlocker-"

// cgroupOf returns the directory of the group that a guard's command has, if it has one.
func cgroupOf(guard int) (string, error) {
	own, err := ownCgroup()
	if err != nil {
		return "", err
	}
	return own + "/" + cgroupPrefix + strconv.Itoa(guard), nil
}

// gather makes the group of this guard's command and puts everything into it. Where that is not possible there is the walk
// over descendants.
func (c *cgroup) gather() {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir, err := cgroupOf(os.Getpid())
	if err != nil || c.over {
		return
	}
	sweep(dir[:strings.LastIndexByte(dir, '/')])
	if err := os.Mkdir(dir, 0o755); err != nil {
		return
	}
	if _, err := os.Stat(dir + "/cgroup.kill"); err != nil { // since Linux 5.14
		os.Remove(dir)
		return
	}
	c.dir = dir
	// Children are born into their parent's group. Those that were born before it was moved are found the next time.
	moved := make(map[int]bool)
	for more := true; more; {
		more = false
		for _, p := range supervise.Descendants() {
			if !moved[p.PID] && c.write("cgroup.procs", strconv.Itoa(p.PID)) == nil {
				more = true
			}
			moved[p.PID] = true
		}
	}
}

// ownCgroup returns the directory of this process's group. The second version's hierarchy is not always mounted where it
// is expected: next to those of the first version it is elsewhere.
func ownCgroup() (string, error) {
	root, mount, err := cgroupMount()
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(content), "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			root = strings.TrimSuffix(root, "/")
			below, ok := strings.CutPrefix(path+"/", root+"/")
			if !ok {
				return "", fmt.Errorf("group %q is not below %q", path, root)
			}
			return strings.TrimSuffix(mount+"/"+below, "/"), nil
		}
	}
	return "", errors.New("not in a cgroup of the second version")
}

// cgroupMount returns which part of the hierarchy is mounted, and where.
func cgroupMount() (root, mount string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		about, kind, ok := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(about); ok && strings.HasPrefix(kind, "cgroup2 ") && len(fields) > 4 {
			return unescape(fields[3]), unescape(fields[4]), nil
		}
	}
	return "", "", errors.New("no cgroup hierarchy of the second version is mounted")
}

// unescape undoes what mountinfo does to blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// sweep removes groups whose guards were killed together with their etcdlockers. One that is still needed is in use, or
// its guard lives.
func sweep(parent string) {
	others, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, f := range others {
		name, ok := strings.CutPrefix(f.Name(), cgroupPrefix)
		if pid, err := strconv.Atoi(name); ok && err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			unix.Rmdir(parent + "/" + f.Name())
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

// freeze stops everything in the group, or lets it go on. It reports whether there is a group.
func (c *cgroup) freeze(stop bool) bool {
	value := "0"
	if stop {
		value = "1"
	}
	return c.write("cgroup.freeze", value) == nil
}

// remove removes the group. What the command has left in it goes back to where it would be without.
func (c *cgroup) remove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.dir == "" || unix.Rmdir(c.dir) != unix.EBUSY {
		return
	}
	c.freeze(false)
	content, err := os.ReadFile(c.dir + "/cgroup.procs")
	if err != nil {
		return
	}
	parent := cgroup{dir: c.dir[:strings.LastIndexByte(c.dir, '/')]}
	for _, pid := range strings.Fields(string(content)) {
		parent.write("cgroup.procs", pid)
	}
	unix.Rmdir(c.dir)
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
