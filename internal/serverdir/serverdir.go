// Package serverdir is the directory of an embedded etcd, as far as its server and those who look
// for it must agree: where it is, who may use it, which of several servers owns it, and where its
// socket is.
//
// Three files tell. DIR/lock is locked for as long as a server lives, by whoever starts it and then
// by itself: etcd removes a socket that is in its way and would steal a living server's, and of
// hundreds who need a server one alone is to start it. It holds the server's process id, for
// people. DIR/endpoint names the socket while the server answers. DIR/data is etcd's own.
package serverdir

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/rundir"
)

// ErrBusy says that another server has the directory.
var ErrBusy = errors.New("another server has this directory")

// errRemoved says that a server has lost its directory and goes on. Its locks and those of a new
// server would not exclude each other.
var errRemoved = errors.New("the directory was removed or renamed while its server ran; that server ends when its locks are released")

// Default returns the directory of this user: below XDG_STATE_HOME, else below .local/state in
// HOME, else, without HOME as in cron, in the home directory of the passwd entry.
func Default() (string, error) {
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "etcdlock", "etcd"), nil
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		u, err := user.Current()
		if err != nil {
			return "", fmt.Errorf("finding the home directory: %w", err)
		}
		home = u.HomeDir
	}
	return filepath.Join(home, ".local", "state", "etcdlock", "etcd"), nil
}

// prepare creates a directory that is ours alone, or checks that one is.
func prepare(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = rundir.Private(dir)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return dir, nil
}

// usable is prepare for who wants no server but one that runs: it creates nothing.
func usable(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = rundir.Private(dir)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("%w: %q", ErrNoServer, dir)
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return dir, nil
}

// An Owner has a directory to itself.
type Owner struct {
	dir  string
	lock *os.File
	name io.Closer // by which this process is known also without the directory

	trimming sync.Mutex
}

// Take locks a directory for the server that is to have it, and creates it with mode 0700 if it is
// not there. It stays locked for as long as this process, or one that inherits the file, has that
// open. If another server has it, or is being started, the error is an ErrBusy with a process id.
func Take(dir string) (*os.File, error) {
	dir, err := prepare(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lockPath(dir), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := readPID(f)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %q, process %s", ErrBusy, dir, pid)
		}
		return nil, fmt.Errorf("locking %q: %w", lockPath(dir), err)
	}
	return f, nil
}

// Own makes this process the owner of a directory with the file that Take has locked, here or in
// the process that has started this one. If it fails, the file is closed.
func Own(dir string, lock *os.File) (*Owner, error) {
	o := &Owner{dir: dir, lock: lock, name: io.NopCloser(nil)}
	err := o.check()
	if err == nil {
		var name io.Closer
		if name, err = claim(dir); err == nil {
			o.name = name
		}
	}
	if err == nil {
		err = errors.Join(o.Withdraw(), lock.Truncate(0), writePID(lock), o.TrimLog())
	}
	if err != nil {
		o.name.Close()
		lock.Close()
		return nil, err
	}
	return o, nil
}

// check returns an error unless the file that was inherited is the one that everybody else looks
// at.
func (o *Owner) check() error {
	inherited, err := o.lock.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(lockPath(o.dir))
	if err == nil && !os.SameFile(inherited, there) {
		err = fmt.Errorf("%q is not the file that was locked", lockPath(o.dir))
	}
	return err
}

// Removed reports whether the directory is not this server's any more: it was removed, renamed, or
// replaced.
func (o *Owner) Removed() bool { return o.check() != nil }

// Data returns where etcd's data is.
func (o *Owner) Data() string { return filepath.Join(o.dir, "data") }

// Socket returns where the server is to listen. A path that is too long for a socket is replaced by
// one in a runtime directory of this user's.
func (o *Owner) Socket() (string, error) {
	path := filepath.Join(o.dir, "etcd.sock")
	if len(path) <= maxSocketPath {
		return path, nil
	}
	run, err := rundir.Dir()
	if err != nil {
		return "", err
	}
	path = filepath.Join(run, fmt.Sprintf("%x.sock", sha256.Sum256([]byte(o.dir)))[:37])
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("the path of the socket %q is longer than %d bytes", path, maxSocketPath)
	}
	return path, nil
}

// maxSocketPath is the longest path that a unix socket can have on every system that we build for,
// less its final NUL.
const maxSocketPath = 103

// Endpoint returns the URL of a socket, as etcd's clients understand it. Nothing in it has a
// meaning of its own in a list of endpoints, in a URL, or in a message that must not show a
// password.
func Endpoint(socket string) string {
	return "unix://" + strings.NewReplacer("%2F", "/", "@", "%40").Replace(url.PathEscape(socket))
}

// socketOf is the reverse of Endpoint.
func socketOf(endpoint string) (socket string, ok bool) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "unix" || u.Path == "" {
		return "", false
	}
	return u.Path, true
}

// Publish says that the server answers at an endpoint.
func (o *Owner) Publish(endpoint string) error {
	path := endpointPath(o.dir)
	if err := os.WriteFile(path+".new", []byte(endpoint+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Published reports whether anybody can be told where the server answers.
func (o *Owner) Published() bool {
	_, err := os.Lstat(endpointPath(o.dir))
	return err == nil
}

// Withdraw says that the server does not answer, or not any more.
func (o *Owner) Withdraw() error {
	if o.Removed() { // another server's endpoint may be there
		return nil
	}
	if err := os.Remove(endpointPath(o.dir)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Close leaves the directory to others.
func (o *Owner) Close() error { return errors.Join(o.Withdraw(), o.name.Close(), o.lock.Close()) }

func lockPath(dir string) string     { return filepath.Join(dir, "lock") }
func endpointPath(dir string) string { return filepath.Join(dir, "endpoint") }

// LogPath returns where a server in the background writes what goes wrong.
func LogPath(dir string) string { return filepath.Join(dir, "log") }

// maxLog is how large the log may get.
const maxLog = 1 << 20

// TrimLog bounds the log: when it has become too large, the end of it moves to a file beside it, in
// the place of what was moved there before. Those who append to the log go on to do so.
func (o *Owner) TrimLog() error {
	o.trimming.Lock()
	defer o.trimming.Unlock()
	log, err := os.OpenFile(LogPath(o.dir), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil || info.Size() <= maxLog {
		return err
	}
	end := make([]byte, maxLog)
	n, err := log.ReadAt(end, info.Size()-maxLog)
	if err == nil {
		err = os.WriteFile(LogPath(o.dir)+".old", end[:n], 0o600)
	}
	return errors.Join(err, log.Truncate(0)) // also with a full disk
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func readPID(f *os.File) string {
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0)
	return strings.TrimSpace(string(buf[:n]))
}
