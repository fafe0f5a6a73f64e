package serverdir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BusyExit is the exit code that says ErrBusy (EX_TEMPFAIL).
const BusyExit = 75

// Time between two looks at a directory, and the longest that a start or a stop may take.
const (
	lookEvery = 20 * time.Millisecond
	limit     = 60 * time.Second
)

var errTooLong = errors.New("it took too long")

var (
	// ErrNoServer says that no server has the directory.
	ErrNoServer = errors.New("no server runs in this directory")

	// ErrUnusable says that a directory is not one that a server of this user can have.
	ErrUnusable = errors.New("the embedded etcd cannot have this directory")

	// ErrNoControl says that there is no etcdlockctl to start a server with.
	ErrNoControl = errors.New("etcdlockctl is neither beside etcdlocker nor in PATH")
)

// Hints of what to do about ErrUnusable, and about a server that does not answer.
const (
	NameAnother = "name a directory that is yours alone, or is not there yet"
	LookAtIt    = "the server stands still or is slow: its process id is in the file lock in its directory (kill -CONT continues it), and the file log says what went wrong"
)

// Start returns the endpoint of the server of a directory. If none answers it starts one, which
// leaves after idleExit without clients and leases, and reports that it did. Any number of
// processes may do so at the same time: one of them starts a server. It blocks until the server
// answers, a minute at most.
func Start(ctx context.Context, dir string, idleExit time.Duration) (endpoint string, started bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	if dir, err = prepare(dir); err != nil {
		return "", false, err
	}
	for {
		if conn, endpoint, err := dial(ctx, dir); err == nil {
			conn.Close()
			return endpoint, started, nil
		}
		lock, err := Take(dir)
		if err == nil {
			err, started = start(ctx, dir, lock, idleExit), true
		}
		if err != nil && !errors.Is(err, ErrBusy) {
			return "", false, fmt.Errorf("starting the embedded etcd in %q: %w", dir, err)
		}
		if err := pause(ctx); err != nil { // it is coming up, or shutting down
			return "", false, fmt.Errorf("waiting for the embedded etcd in %q (see its log there): %w", dir, err)
		}
	}
}

// Running returns the endpoint of the server of a directory, and starts none: without one it fails
// with ErrNoServer, and with ErrUnusable where Start does. It waits for one that is coming up, a
// minute at most.
func Running(ctx context.Context, dir string) (endpoint string, err error) {
	if dir, err = usable(dir); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	for {
		if conn, endpoint, err := dial(ctx, dir); err == nil {
			conn.Close()
			return endpoint, nil
		}
		if err := again(ctx, dir); err != nil {
			return "", err
		}
	}
}

// dial connects to the server of a directory. It publishes its endpoint when it is ready; that it
// still accepts means that it still lives.
func dial(ctx context.Context, dir string) (conn net.Conn, endpoint string, err error) {
	content, err := os.ReadFile(endpointPath(dir))
	if err != nil {
		return nil, "", err
	}
	endpoint = strings.TrimSpace(string(content))
	socket, ok := socketOf(endpoint)
	if !ok {
		return nil, "", fmt.Errorf("%q names no socket", endpoint)
	}
	conn, err = new(net.Dialer).DialContext(ctx, "unix", socket)
	return conn, endpoint, err
}

// owned reports whether a server has the directory: it may be coming up, or shutting down.
func owned(dir string) (bool, error) {
	f, err := os.OpenFile(lockPath(dir), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	// A shared lock, so that two who look do not take each other for a server.
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// pause waits until it is time for another look.
func pause(ctx context.Context) error {
	select {
	case <-time.After(lookEvery):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// start runs a server in the background, which inherits the lock, and waits until it answers or has
// said why it does not. Here the lock is closed as soon as that is possible: this process may be
// stopped at any time.
func start(ctx context.Context, dir string, lock *os.File, idleExit time.Duration) error {
	defer lock.Close()
	program, err := findControl()
	if err != nil {
		return err
	}
	sys, err := aside()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(program, "serve", "--background", "--dir", dir, "--idle-exit", idleExit.String(), "--lock-fd", "3")
	cmd.Env, cmd.Stderr, cmd.ExtraFiles, cmd.SysProcAttr = Environment(), w, []*os.File{lock}, sys
	err = cmd.Start()
	w.Close()
	lock.Close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		cmd.Process.Kill()
		r.SetReadDeadline(time.Now())
	})()
	said, _ := io.ReadAll(r) // it has the pipe open for as long as it lives
	cmd.Wait()               // or our parent does
	if text := strings.TrimSpace(string(said)); text != "" {
		return fmt.Errorf("%s: %s", program, text)
	}
	return context.Cause(ctx)
}

// Environment is what a server needs of ours: nothing that could change etcd's settings, and no
// secrets.
func Environment() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "TZ"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// findControl finds etcdlockctl: beside the running program, else in PATH.
func findControl() (string, error) {
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), "etcdlockctl")
			if path, err := exec.LookPath(beside); err == nil {
				return path, nil
			}
		}
	}
	path, err := exec.LookPath("etcdlockctl")
	if err != nil {
		return "", ErrNoControl
	}
	return path, nil
}
