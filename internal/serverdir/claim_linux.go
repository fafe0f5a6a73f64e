package serverdir

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// claimWithin is how long a server that has just died is waited for.
const claimWithin = time.Second

// claim makes known, for as long as this process lives, that it serves a directory of that name.
// The directory's own lock goes with the directory, and who makes a new one in its place must not
// start another server beside this one. It fails if a server of this user's has the name. Other
// users may be in the way: then it does without.
func claim(dir string) (io.Closer, error) {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	// The kernel's own names for sockets, which are in no directory, are those of a network
	// namespace.
	name := fmt.Sprintf("@etcdlock-server-%d-%x", os.Geteuid(), sha256.Sum256([]byte(path)))
	for end := time.Now().Add(claimWithin); ; time.Sleep(lookEvery) {
		l, err := net.Listen("unix", name)
		switch {
		case err == nil:
			go answer(l)
			return l, nil
		case !errors.Is(err, unix.EADDRINUSE):
			return nil, fmt.Errorf("claiming %q: %w", dir, err)
		}
		if ours, err := isOurs(name); err == nil && !ours {
			return io.NopCloser(nil), nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%w: %w", ErrBusy, errRemoved)
		}
	}
}

// answer has who asks told who we are, which the kernel does.
func answer(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// isOurs reports whether a process of this user's listens under a name.
func isOurs(name string) (bool, error) {
	conn, err := net.DialTimeout("unix", name, claimWithin)
	if errors.Is(err, unix.ECONNREFUSED) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false, err
	}
	var peer *unix.Ucred
	if e := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		err = e
	}
	return err == nil && int(peer.Uid) == os.Geteuid(), err
}
