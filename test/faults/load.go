//go:build linux

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// A load is what keeps the machine busy during a trial and is not the lockers'.
type load struct {
	busy int // processes that never sleep, for each processor
	idle int // processes that do nothing
}

// bear starts the load, and waits until all of it is there.
func (t *trial) bear(l load) {
	t.beside("busy", l.busy*runtime.NumCPU())
	t.beside("idle", l.idle)
}

func (t *trial) beside(kind string, n int) {
	if n == 0 {
		return
	}
	name := "load-" + kind
	cmd := exec.Command(t.suite.programs.launch(), t.suite.programs.crowd(), kind, strconv.Itoa(n), t.dir, name)
	cmd.Env = t.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	t.require(t.startIn(name, 0, cmd))
	t.loads = append(t.loads, cmd)
	t.awaitReady(name)
}

// awaitReady waits until a crowd is complete, or the holder has ended before that.
func (t *trial) awaitReady(name string) {
	ready := filepath.Join(t.dir, "ready."+name)
	if !t.await(settleWithin, func() bool { return exists(ready) || t.holder.hasEnded() }) {
		t.require(fmt.Errorf("the crowd of %s is not complete", name))
	}
	time.Sleep(100 * time.Millisecond)
}

// unload ends the load.
func (t *trial) unload() {
	for _, cmd := range t.loads {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	}
	t.loads = nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// startIn starts a program in a control group of the trial's, if there are any. A user to whom it
// is delegated may make more in it.
func (t *trial) startIn(name string, delegate int, cmd *exec.Cmd) error {
	if t.group.dir == "" {
		return cmd.Start()
	}
	g, err := newGroup(filepath.Join(t.group.dir, name), delegate)
	if err != nil {
		return err
	}
	dir, err := os.Open(g.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	return cmd.Start()
}
