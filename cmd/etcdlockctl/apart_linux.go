package main

import (
	"os"
	"runtime"

	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/sched"
)

// standApart has the server that is started next not share what was given to the one for whom it is
// started: the control group of a command, which is frozen and killed with it, and etcdlocker's own
// way to the processor. It goes by the thread that starts it.
func standApart() {
	cgroup.Leave()
	runtime.LockOSThread()
	if given, _ := sched.Inherited(); given.RealTime() {
		sched.Ordinary.SetThread()
	} else {
		sched.UsualSlice()
	}
}

// nameSelf gives this process the name that ps and killall show. It is called after the file that
// it was executed from, /proc/self/exe.
func nameSelf() { os.WriteFile("/proc/self/comm", []byte(program), 0) }
