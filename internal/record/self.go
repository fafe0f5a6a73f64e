package record

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Program is what the running program says of itself: its kind, its user, why it wants locks, and
// under which ones it runs. It is written before there are locks.
var Program struct {
	Kind, User, Why string
	Under           []Under
}

// Self returns the record of the running process, all but Since.
func Self(id string) Record {
	r := Record{
		Version: version,
		Kind:    Program.Kind,
		User:    Program.User,
		Why:     Program.Why,
		Under:   Program.Under,
		ID:      id,
		PID:     os.Getpid(),
	}
	if len(os.Args) > 0 {
		r.Command = filepath.Base(os.Args[0])
	}
	us := process()
	r.Host, r.Boot, r.PIDNS, r.Start = us.Host, us.Boot, us.PIDNS, us.Start
	return r
}

// process is what there is to say of the running process, whatever lock it wants. It does not
// change, and takes a while to find out.
var process = sync.OnceValue(func() (r Record) {
	r.Host, _ = os.Hostname()
	r.readProc()
	return r
})

func (r *Record) readProc() {
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		r.Boot = strings.TrimSpace(string(boot))
	}
	r.PIDNS, _ = os.Readlink("/proc/self/ns/pid")
	_, r.Start, _ = stat("self")
}

// stat returns the parent of a process, and when the process started.
func stat(process string) (parent int, start uint64, ok bool) {
	content, err := os.ReadFile("/proc/" + process + "/stat")
	if err != nil {
		return 0, 0, false
	}
	return parseStat(string(content))
}

func parseStat(content string) (parent int, start uint64, ok bool) {
	// The name in parentheses may hold blanks and parentheses; 20 fields follow it up to the start
	// time.
	fields := strings.Fields(content[strings.LastIndexByte(content, ')')+1:])
	if len(fields) < 20 {
		return 0, 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	return parent, start, err == nil && err2 == nil
}

// IsOf reports whether a record is of a process of this host. The number of one that is gone may be
// another one's by now, which is known of this process alone.
func (r Record) IsOf(pid int) bool {
	us := process()
	return r.PID == pid && r.Host == us.Host && r.Boot == us.Boot && r.PIDNS == us.PIDNS && (pid != os.Getpid() || r.Start == us.Start)
}

// Below returns the child of the record's process from which this one descends, 0 if it does not,
// or that cannot be seen.
func (r Record) Below() (child int) {
	us := process()
	if r.PID <= 0 || r.Start == 0 || r.Boot != us.Boot || r.PIDNS != us.PIDNS {
		return 0
	}
	for pid := os.Getpid(); pid > 0; {
		parent, _, ok := stat(strconv.Itoa(pid))
		if !ok {
			return 0
		}
		if parent == r.PID {
			if _, start, ok := stat(strconv.Itoa(parent)); ok && start == r.Start {
				return pid
			}
			return 0
		}
		pid = parent
	}
	return 0
}
