package guard

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/rundir"
)

// A guard whose etcdlocker is gone attests, in a file named by the lease, that nothing of the
// command is left: the kernel has said so to it. So does an etcdlocker that could not tell etcd.
// Nothing else proves that: process ids, start times and boot ids are shared by a restored snapshot
// or another namespace. Whoever waits for the lock on this machine, as this user, may then end the
// lease.
//
// The file has one possible content, so half of it does not count, and one from before the last
// boot is not believed.
const (
	attestationPrefix = "dead-"
	unfinishedPrefix  = "new-"
)

// stale is how old an attestation is when the lease has surely run out: longer than the longest
// TTL.
const stale = 25 * time.Hour

func attestationPath(dir string, lease int64) string {
	return dir + "/" + attestationPrefix + hex(lease)
}

func hex(lease int64) string { return strconv.FormatInt(lease, 16) }

// attestation returns what the file says.
func attestation(lease int64) (string, error) {
	boot, err := kernel.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return "etcdlock 1: no process of the command under lease " + hex(lease) + " is left\n" +
		"user " + strconv.Itoa(os.Geteuid()) + "\nboot " + boot + "end\n", nil
}

// errNoLease says that a lock hangs on no lease, or on none that is known.
var errNoLease = errors.New("no lease to attest anything of")

// Attest writes the attestation, whole or not at all, and tells those who wait for one. Without a
// lease (0), which every key has that was put by hand, it fails.
func Attest(lease int64) error {
	if lease == 0 {
		return errNoLease
	}
	dir, err := rundir.Dir()
	if err != nil {
		return err
	}
	text, err := attestation(lease)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, unfinishedPrefix)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), attestationPath(dir, lease))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	ring(dir)
	sweep(dir)
	return nil
}

// Attested reports whether a guard has attested that nothing is left of the command whose lock hung
// on a lease.
func Attested(lease int64) bool {
	dir, err := rundir.Dir()
	if err != nil || lease == 0 {
		return false
	}
	want, err := attestation(lease)
	if err != nil {
		return false
	}
	f, err := os.OpenFile(attestationPath(dir, lease), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return false
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return false
	}
	got := make([]byte, len(want)+1)
	n, _ := f.Read(got)
	return string(got[:n]) == want
}

// Forget removes the attestation for a lease that is gone.
func Forget(lease int64) {
	dir, err := rundir.Dir()
	if err != nil {
		return
	}
	os.Remove(attestationPath(dir, lease))
	sweep(dir)
}

// sweep removes what is so old that it is of no use to anybody any more.
func sweep(dir string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, f := range files {
		_, whole := kernel.CutPrefix(f.Name(), attestationPrefix)
		_, unfinished := kernel.CutPrefix(f.Name(), unfinishedPrefix)
		if info, err := f.Info(); err == nil && (whole || unfinished) && time.Since(info.ModTime()) > stale {
			os.Remove(dir + "/" + f.Name())
		}
	}
}
