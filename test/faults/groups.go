//go:build linux

package faults

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// groupsOf returns the directory of this process's control group in the hierarchy of the second
// version, empty if no group can be made there.
func groupsOf() string {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	own, _ := os.ReadFile("/proc/self/cgroup")
	name := ""
	for line := range strings.Lines(string(own)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			name = rest
		}
	}
	for line := range strings.Lines(string(mounts)) {
		about, _, second := strings.Cut(line, " - cgroup2 ")
		fields := strings.Fields(about)
		if !second || len(fields) < 5 || name == "" {
			continue
		}
		dir := filepath.Join(fields[4], name)
		try, err := os.MkdirTemp(dir, "faults-")
		if err != nil {
			continue
		}
		defer os.Remove(try)
		if _, err := os.Stat(filepath.Join(try, "cgroup.kill")); err == nil { // since Linux 5.14
			return dir
		}
	}
	return ""
}

// A group is a control group of a trial.
type group struct{ dir string }

// newGroup makes a group. If it is delegated to a user, he can make others in it.
func newGroup(dir string, delegate int) (group, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return group{}, err
	}
	g := group{dir}
	if delegate == 0 {
		return g, nil
	}
	err := os.Chown(dir, delegate, delegate)
	for _, file := range []string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		err = errors.Join(err, os.Chown(filepath.Join(dir, file), delegate, delegate))
	}
	return g, err
}

func (g group) write(file, value string) error {
	return os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0)
}

// below returns the groups in a group, the deepest ones last.
func (g group) below() (dirs []string) {
	if g.dir == "" {
		return nil
	}
	filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		// What has ended meanwhile is not there any more.
		if err == nil && d.IsDir() && path != g.dir {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// left returns the groups in a group that etcdlocker has made.
func (g group) left() (dirs []string) {
	for _, dir := range g.below() {
		if strings.HasPrefix(filepath.Base(dir), "etcdlocker-") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// remove kills what is in a group and removes it, with all groups in it.
func (g group) remove() error {
	g.write("cgroup.freeze", "0")
	g.write("cgroup.kill", "1")
	var err error
	for range 500 { // what was killed is dead when the kernel gets to it
		for _, dir := range slices.Backward(g.below()) {
			syscall.Rmdir(dir)
		}
		if err = syscall.Rmdir(g.dir); err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return &fs.PathError{Op: "rmdir", Path: g.dir, Err: err}
}
