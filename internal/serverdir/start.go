package serverdir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// BusyExit is the exit code by which a server says ErrBusy to its starter (EX_TEMPFAIL).
const BusyExit = 75

// Time between two looks at a directory, and the longest that a start or a stop may take.
const (
	lookEvery = 20 * time.Millisecond
	limit     = 60 * time.Second
)

var (
	// ErrNoServer says that no server has the directory.
	ErrNoServer = errors.New("no server runs in this directory")

	// ErrUnusable says that a directory is not one that a server of this user can have.
	ErrUnusable = errors.New("the embedded etcd cannot have this directory")

	// ErrNoControl says that there is no etcdlockctl to start a server with.
	ErrNoControl = errors.New("etcdlockctl is neither beside etcdlocker nor in PATH")
)

// Start returns the endpoint of the server of a directory. If none answers it starts one, which leaves after idleExit
// without clients and leases, and reports that it did. Any number of processes may do so at the same time: one server
// comes of it. It blocks until the server answers, a minute at most.
func Start(ctx context.Context, dir string, idleExit time.Duration) (endpoint string, started bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("it took too long"))
	defer cancel()
	if dir, err = prepare(dir); err != nil {
		return "", false, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	for {
		if endpoint, ok := lookUp(ctx, dir); ok {
			return endpoint, started, nil
		}
		busy, err := owned(dir)
		if err == nil && !busy {
			started, err = start(ctx, dir, idleExit)
		}
		if err != nil {
			return "", false, fmt.Errorf("starting the embedded etcd in %q: %w", dir, err)
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return "", false, fmt.Errorf("waiting for the embedded etcd in %q (see its log there): %w", dir, context.Cause(ctx))
		}
	}
}

// lookUp returns the endpoint of a server that answers.
func lookUp(ctx context.Context, dir string) (string, bool) {
	content, err := os.ReadFile(endpointPath(dir))
	if err != nil {
		return "", false
	}
	endpoint := strings.TrimSpace(string(content))
	socket, ok := socketOf(endpoint)
	if !ok {
		return "", false
	}
	// The server publishes its endpoint when it is ready; that it still accepts means that it still lives.
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", false
	}
	conn.Close()
	return endpoint, true
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

// start runs a server in the background. It returns false if another starter was faster.
func start(ctx context.Context, dir string, idleExit time.Duration) (bool, error) {
	program, err := findControl()
	if err != nil {
		return false, err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "serve", "--background", "--dir", dir, "--idle-exit", idleExit.String())
	cmd.Env = Environment()
	cmd.Stderr = &said
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &exit) && exit.ExitCode() == BusyExit:
		return false, nil
	}
	return false, fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(said.String()))
}

// Environment is what a server needs of ours: nothing that could change etcd's settings, and no secrets.
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

// Stop ends the server of a directory and waits until it is gone, a minute at most.
func Stop(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("it took too long"))
	defer cancel()
	if err := terminate(dir); err != nil {
		return err
	}
	for {
		if busy, err := owned(dir); err != nil || !busy {
			return err
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server in %q to leave: %w", dir, context.Cause(ctx))
		}
	}
}

// terminate sends SIGTERM to the owner of the directory.
func terminate(dir string) error {
	f, err := os.Open(lockPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %q", ErrNoServer, dir)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	pid, err := strconv.Atoi(readPID(f))
	if busy, lockErr := owned(dir); lockErr != nil || !busy {
		return errors.Join(lockErr, fmt.Errorf("%w: %q", ErrNoServer, dir))
	}
	if err != nil {
		return fmt.Errorf("%q does not say who has it: %w", lockPath(dir), err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer process.Release()
	// FindProcess holds the very process, not its number: if that still owns the directory, it is the server.
	if strconv.Itoa(pid) != readPID(f) {
		return fmt.Errorf("%w: it has just changed hands: %q", ErrNoServer, dir)
	}
	return process.Signal(syscall.SIGTERM)
}
