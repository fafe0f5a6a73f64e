package serverdir

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// Stop ends the server of a directory and waits until it is gone, a minute at most. Whoever needs a
// server may have started another one by then. It fails as Running does.
func Stop(ctx context.Context, dir string) error {
	dir, err := usable(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	server, err := find(ctx, dir)
	if err != nil {
		return err
	}
	defer server.Release()
	before := ownerOf(dir)
	if err := server.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending the server in %q, process %d: %w", dir, server.Pid, err)
	}
	for {
		if busy, err := owned(dir); err != nil || !busy || ownerOf(dir) != before {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("waiting for the server in %q to leave: %w", dir, err)
		}
	}
}

// find returns the server of a directory once it answers: the process that the kernel names at the
// other end of its socket. The process id in DIR/lock may be another process's by now, or here: it
// counts in the server's pid namespace, or on another machine that shares the directory.
func find(ctx context.Context, dir string) (*os.Process, error) {
	for {
		pid, err := peer(ctx, dir)
		if errors.Is(err, errElsewhere) {
			return nil, fmt.Errorf("the server in %q %w", dir, err)
		}
		if err == nil {
			process, err := os.FindProcess(pid)
			if err != nil {
				return nil, err
			}
			// FindProcess holds the very process, not its number: if the socket is still its own,
			// it is the server.
			if again, err := peer(ctx, dir); err == nil && again == pid {
				return process, nil
			}
			process.Release()
		}
		if err := again(ctx, dir); err != nil {
			return nil, err
		}
	}
}

// again waits until it is time to look again for the server of a directory, which has not answered.
func again(ctx context.Context, dir string) error {
	switch busy, err := owned(dir); {
	case err != nil:
		return fmt.Errorf("looking for a server in %q: %w", dir, err)
	case !busy:
		return fmt.Errorf("%w: %q", ErrNoServer, dir)
	}
	if err := pause(ctx); err != nil {
		return fmt.Errorf("waiting for the server in %q to answer (it may be on another machine): %w", dir, err)
	}
	return nil
}

// errElsewhere says that a process has no id here.
var errElsewhere = errors.New("runs in another pid namespace: end it from there")

// peer returns the id of the process that listens on the socket of a directory.
func peer(ctx context.Context, dir string) (pid int, err error) {
	conn, _, err := dial(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := raw.Control(func(fd uintptr) { pid, err = peerOf(int(fd)) }); failed != nil {
		return 0, failed
	}
	if err == nil && pid == 0 {
		err = errElsewhere
	}
	return pid, err
}

// ownerOf returns what the last owner of a directory has said of itself.
func ownerOf(dir string) string {
	f, err := os.Open(lockPath(dir))
	if err != nil {
		return ""
	}
	defer f.Close()
	return readPID(f)
}
