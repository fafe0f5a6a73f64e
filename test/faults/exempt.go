//go:build linux

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// unbound is the kind of command that the kernel does not end when its guard is killed.
const unbound = "has no death signal"

// exemptFaults are what docs/guarantees.md lists as not guaranteed, and what is next to that and is
// guaranteed.
func exemptFaults() []Fault {
	all := with(append(hands()[:3],
		Fault{Name: "guard killed", what: "the guard", outcome: loses, code: 137, says: guardKilled, hit: signals(syscall.SIGKILL, theGuard)},
	), func(f *Fault) { f.row = "a command that " + unbound })
	all = append(all, with([]Fault{
		{Name: "etcdlocker and guard killed", outcome: loses, code: 137, hit: signals(syscall.SIGKILL, theLocker, theGuard)},
		{Name: "etcdlocker stopped, guard killed", outcome: loses, code: 2, hit: func(t *trial) func() {
			undo := signals(syscall.SIGSTOP, theLocker)(t)
			forget := signals(syscall.SIGKILL, theGuard)(t)
			return func() {
				forget()
				undo()
			}
		}},
	}, func(f *Fault) {
		f.row, f.what, f.bare, f.exempt = "a command that "+unbound+", both killed (exempt)", "the holder's processes", true, true
		f.also = 137
	})...)
	all = with(all, func(f *Fault) { f.Name, f.kind = f.Name+"; the command "+unbound, unbound })
	return append(all,
		Fault{Name: "frozen with its control group", row: "frozen with its control group (exempt)", what: "the holder's processes", exempt: true, frozen: true, demand: demand{groups: true},
			outcome: loses, code: 2, also: 137, hit: freezes},
		Fault{Name: "etcdlocker stopped; no kernel timers", row: "no kernel timers", what: "the holder's processes", demand: demand{ordinary: true}, prepare: refusesTimers,
			outcome: loses, code: 2, says: leaseOver, hit: signals(syscall.SIGSTOP, theLocker)},
		Fault{Name: "network silent; no kernel timers", row: "no kernel timers", what: "the holder's network", demand: demand{ordinary: true}, prepare: refusesTimers,
			outcome: loses, code: 2, says: unrenewed, hit: breaks(silent, holders)},
		Fault{Name: "etcdlocker killed; no kernel timers", row: "no kernel timers", what: "the holder's processes", demand: demand{ordinary: true}, prepare: refusesTimers,
			outcome: loses, code: 137, hit: signals(syscall.SIGKILL, theLocker)},
		Fault{Name: "frozen by an outer etcdlocker", what: "the holder's processes", frozen: true, open: true, prepare: nests, slower: nestedTime,
			outcome: loses, code: 2, also: 137, hit: breaks(silent, holders)},
		Fault{Name: "frozen by an outer etcdlocker that is killed", row: "frozen by an outer etcdlocker", what: "the holder's processes", frozen: true, open: true, prepare: nests, slower: nestedTime,
			outcome: loses, code: 137, hit: func(t *trial) func() {
				mend := breaks(silent, holders)(t)
				if !t.await(2*nestedTime, func() bool { return t.now()-t.last(t.holder) > 300*time.Millisecond }) {
					t.problem("the outer etcdlocker did not stop the inner one's command")
				}
				forget := signals(syscall.SIGKILL, theLocker)(t)
				return func() {
					forget()
					mend()
				}
			}},
	)
}

// freezes stops the holder's control group, and with it all that the holder has started.
func freezes(t *trial) func() {
	g := group{filepath.Join(t.group.dir, t.holder.name)}
	t.require(g.write("cgroup.freeze", "1"))
	return func() {
		// Any moment of the next holder's.
		time.Sleep(time.Duration(t.rng.Int64N(int64(time.Second))))
		t.thawed = t.now()
		t.require(g.write("cgroup.freeze", "0"))
	}
}

// thawedFor is how long a command that was frozen with its guard may run when it goes on.
const thawedFor = 250 * time.Millisecond

// refusesTimers lets the holder run where the kernel has no timers for it, as it says it wants to.
// Without that word it is refused.
func refusesTimers(t *trial) {
	t.holder.launched = []string{"-sigpending", "0"}
	p := t.other("refused")
	p.launched = t.holder.launched
	job := Job{Endpoints: p.endpoints(), Key: t.key + "-refused", ID: p.name, TTL: t.ttl, Command: []string{"/bin/true"}}
	t.require(t.start(p, t.spec.Locker.Command(job), t.environment("XDG_RUNTIME_DIR="+t.dir)))
	if !t.await(settleWithin, p.hasEnded) {
		t.require(fmt.Errorf("%s does not end: %s", p.name, p.stderr))
	}
	const limit = "RLIMIT_SIGPENDING"
	if status := p.status(); status != 3 || !strings.Contains(p.stderr.String(), limit) {
		t.problem("refusal: without kernel timers the exit code is %d; 3 and a word about %s were expected: %s", status, limit, p.stderr)
	}
	if t.spec.Locker.flags {
		t.holder.options = append(t.holder.options, "--no-kernel-timers")
	}
}

// nestedTime is what it takes until an outer etcdlocker is in doubt.
const nestedTime = 6 * time.Second

// nests starts the holder as the command of another etcdlocker, which stops it when its own etcd is
// away.
func nests(t *trial) {
	t.holder.outer = func(inner *exec.Cmd) *exec.Cmd {
		options := []string{"-e", strings.Join(t.holder.endpoints(), ","), "-k", outerKey(t.key), "-i", "outer", "-t", "20", "--grace", "15s", "--on-doubt=freeze", "--orphans", "kill", "--"}
		return exec.Command(filepath.Join(t.suite.programs.dir, "etcdlocker"), append(append(options, inner.Path), inner.Args[1:]...)...)
	}
}

// outerKey is that of the lock of an outer etcdlocker.
func outerKey(key string) string { return "/outer" + key }

// heart returns the program of a player's command. One that is to have no death signal is setgid,
// where a file can be made so for another user than its own: else it clears the signal.
func (t *trial) heart(p *player) string {
	if t.kind != unbound || t.user == 0 {
		return t.suite.programs.heart()
	}
	program, err := os.ReadFile(t.suite.programs.heart())
	t.require(err)
	file := filepath.Join(t.dir, "heart-"+p.name)
	t.require(os.WriteFile(file, program, 0o755))
	t.require(os.Chown(file, 0, setgidID))
	t.require(os.Chmod(file, os.ModeSetgid|0o755))
	return file
}

// setgidID is the group that a setgid command gets.
const setgidID = ordinaryID + 1
