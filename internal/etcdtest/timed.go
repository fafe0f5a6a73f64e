package etcdtest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// turnFile is the file that packages about time lock one after the other, in the temporary
// directory. All users share it: a lock needs no right to write.
const turnFile = "etcdlock-timed-tests.lock"

// A turn is the right of a package about time to run its tests. It ends with the process at the
// latest.
type turn struct {
	file *os.File
	got  chan error // receives once, when the file is locked
}

// askForTurn opens the file and asks the kernel for its lock. The kernel serves those who ask in
// their order.
func askForTurn(dir string) (*turn, error) {
	file, err := openTurnFile(filepath.Join(dir, turnFile))
	if err != nil {
		return nil, err
	}
	t := &turn{file: file, got: make(chan error, 1)}
	fd := int(file.Fd())
	go func() {
		for {
			err := unix.Flock(fd, unix.LOCK_EX)
			if !errors.Is(err, unix.EINTR) {
				t.got <- err
				return
			}
		}
	}()
	return t, nil
}

// await waits for the turn, and reports whether it came within the limit. Without a limit (0) it
// waits on. A turn that comes later still keeps others out until end.
func (t *turn) await(limit time.Duration) (bool, error) {
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case err := <-t.got:
		return err == nil, err
	case <-late:
		return false, nil
	}
}

// end gives the turn to the next package. The lock belongs to the open file, so closing it is
// enough: no child has it.
func (t *turn) end() { t.file.Close() }

// openTurnFile opens the file, and makes it if it does not exist. It never opens with O_CREAT: in a
// directory with the sticky bit the kernel refuses that for files of other users, even to root
// (fs.protected_regular).
func openTurnFile(name string) (*os.File, error) {
	// O_NONBLOCK, as opening a named pipe would block.
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Open(name, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := makeTurnFile(name); err != nil {
			return nil, err
		}
		fd, err = unix.Open(name, flags, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	file := os.NewFile(uintptr(fd), name)
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// makeTurnFile makes the file with its final mode, whatever the umask is. It succeeds if somebody
// else was faster.
func makeTurnFile(name string) error {
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := file.Chmod(0o444); err != nil {
		return err
	}
	if err := os.Link(file.Name(), name); !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// inTurn runs tests when it is this package's turn, and returns what they return. It waits for half
// of the tests' time limit, and then runs them beside others: a late turn is not worth a failure.
func inTurn(run func() int) int {
	timeout := flag.Lookup("test.timeout")
	limit := timeout.Value.(flag.Getter).Get().(time.Duration)
	asked := time.Now()
	turn, err := askForTurn(os.TempDir())
	if err == nil {
		defer turn.end()
		var came bool
		if came, err = turn.await(limit / 2); err == nil && !came {
			err = errors.New("other tests have kept it for too long")
		}
	}
	waited := time.Since(asked)
	if err != nil {
		fmt.Fprintf(os.Stderr, "etcdtest: running beside other tests about time: %v\n", err)
	} else if waited > time.Second {
		fmt.Fprintf(os.Stderr, "etcdtest: waited %v for other tests about time\n", waited.Round(time.Second))
	}
	// The go command counts from the start of the process, and the tests should know their true
	// deadline.
	if limit > 0 {
		timeout.Value.Set(max(limit-waited, time.Second).String())
	}
	return run()
}
