//go:build linux

package faults

import "syscall"

// kinds are the commands that do not want to end: see package heart.
var kinds = []string{
	"ignores TERM", "has a child in a session of its own", "double forks", "forks while it is killed", "closes everything", "is stopped", "has a child with another name",
	"has a child that is traced", "has a child that changes its title", "has a child that outlives its main thread",
}

// stubbornFaults are some of the other faults, each with every kind of command that does not want to end.
func stubbornFaults() (all []Fault) {
	for _, kind := range kinds {
		hands := with([]Fault{
			{Name: "network silent", what: "the holder's network", code: 2, says: unrenewed, hit: breaks(silent, holders)},
			{Name: "etcdlocker killed", what: "the holder's processes", code: 137, hit: signals(syscall.SIGKILL, theLocker)},
			{Name: "etcdlocker stopped", what: "the holder's processes", code: 2, says: leaseOver, hit: signals(syscall.SIGSTOP, theLocker)},
			{Name: "etcdlocker and guard stopped", what: "the holder's processes", code: 2, says: leaseOver, hit: signals(syscall.SIGSTOP, theLocker, theGuard)},
			{Name: "key deleted", what: "the key", code: 2, says: keyDeleted, hit: deletesKey},
		}, func(f *Fault) {
			f.Name, f.row, f.kind = f.Name+"; the command "+kind, "a command that "+kind, kind
			f.anyone, f.outcome = true, loses
		})
		all = append(all, hands...)
	}
	return all
}
