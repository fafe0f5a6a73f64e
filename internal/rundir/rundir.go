//go:build unix

// Package rundir is the directory for what processes of one user on one machine tell each other
// until it is booted again.
package rundir

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// Dir returns the directory, which it creates with mode 0700 if it is not there: etcdlock in
// XDG_RUNTIME_DIR if that one, and this below it, are this user's alone, as they are not after su
// or sudo -E. Else it is one with the user's id in its name among the temporary files, and an error
// if that is not this user's alone.
func Dir() (string, error) {
	if xdg := os.Getenv("XDG_RUNTIME_DIR"); xdg != "" && xdg[0] == '/' && Private(xdg) == nil {
		if dir, err := private(xdg + "/etcdlock"); err == nil {
			return dir, nil
		}
	}
	return private(os.TempDir() + "/etcdlock-" + strconv.Itoa(os.Geteuid()))
}

func private(dir string) (string, error) {
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
		return errors.New(strconv.Quote(dir) + " is not a directory")
	case !ok || int(stat.Uid) != os.Geteuid():
		return errors.New(strconv.Quote(dir) + " belongs to another user")
	case info.Mode().Perm()&0o022 != 0:
		return errors.New(strconv.Quote(dir) + " can be written by others (mode 0" + strconv.FormatUint(uint64(info.Mode().Perm()), 8) + ")")
	}
	return nil
}
