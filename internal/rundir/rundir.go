//go:build unix

// Package rundir is the directory for what processes of one user on one machine tell each other until it is booted again.
package rundir

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Dir returns the directory, which it creates with mode 0700 if it is not there: etcdlock in XDG_RUNTIME_DIR, else one
// with the user's id in its name among the temporary files. It is an error if it is not this user's alone.
func Dir() (string, error) {
	dir := os.TempDir() + "/etcdlock-" + strconv.Itoa(os.Geteuid())
	if xdg := os.Getenv("XDG_RUNTIME_DIR"); strings.HasPrefix(xdg, "/") {
		dir = xdg + "/etcdlock"
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, Private(dir)
}

// Private returns an error unless a directory belongs to this user and nobody else may write to it.
func Private(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%q is not a directory", dir)
	case !ok || int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%q belongs to another user (uid %d)", dir, stat.Uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%q can be written by others (mode %#o)", dir, info.Mode().Perm())
	}
	return nil
}
