package guard

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/rundir"
)

// Each waiter has a socket in the directory of the attestations, and a guard that has attested
// sends a byte to all of them. Of what watches directories, inotify, a user may have 128 only, for
// all programs.
const bellPrefix = "wait-"

// OnAttestation calls f at the beginning, and whenever an attestation may have appeared, until ctx
// is done.
func OnAttestation(ctx context.Context, f func()) {
	bell, err := newBell()
	f() // what was there before the bell
	if err != nil {
		return
	}
	defer os.Remove(bell.Name())
	defer bell.Close()
	defer context.AfterFunc(ctx, func() { bell.Close() })()
	for buf := make([]byte, 1); ; {
		if _, err := bell.Read(buf); err != nil {
			return
		}
		f()
	}
}

// newBell returns a socket from which a byte can be read after each attestation.
func newBell() (*os.File, error) {
	dir, err := rundir.Dir()
	if err != nil {
		return nil, err
	}
	// The process id may be another waiter's, in another pid namespace.
	name := "/" + bellPrefix + strconv.Itoa(os.Getpid()) + "-" + hex(int64(rand.Uint32()))
	short, done := shortened(dir)
	defer done()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	bell := os.NewFile(uintptr(fd), dir+name)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: short + name}); err != nil {
		bell.Close()
		return nil, err
	}
	return bell, nil
}

// ring tells all waiters, and removes the sockets of those that have gone.
func ring(dir string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	short, done := shortened(dir)
	defer done()
	for _, f := range files {
		if _, waits := kernel.CutPrefix(f.Name(), bellPrefix); !waits {
			continue
		}
		// A socket that is full has been rung often enough.
		if syscall.Sendto(fd, []byte{1}, 0, &syscall.SockaddrUnix{Name: short + "/" + f.Name()}) == syscall.ECONNREFUSED {
			os.Remove(dir + "/" + f.Name())
		}
	}
}

// shortened returns a path of a directory that leaves room for a name in the path of a socket,
// which the kernel bounds, as long as done is not called.
func shortened(dir string) (path string, done func()) {
	const most, longestName = 107, 32
	if len(dir)+longestName <= most {
		return dir, func() {}
	}
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return dir, func() {}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd), func() { syscall.Close(fd) }
}
