package guard

import (
	"errors"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
)

// An aside is a shell that runs beside the command for a moment, to look after it. It belongs to what the guard kills, and it
// ends when the command has ended, before anybody looks at what the command has left.
type aside struct {
	mu    sync.Mutex // held while one is started, so that its end is not known before its process id
	pid   int        // also that of its process group; 0: none runs
	over  bool       // none is started any more
	ready bool       // for the first one
}

// errAside says that another one runs, or that it is too late for one.
const errAside = syscall.EBUSY

// beside starts one, which writes to a descriptor.
func (w *warden) beside(script string, output int) {
	defer syscall.Close(output)
	w.aside.mu.Lock()
	defer w.aside.mu.Unlock()
	err := error(errAside)
	if w.aside.pid == 0 && !w.aside.over {
		err = w.startAside(script, output)
	}
	if err != nil {
		errno := errAside
		errors.As(err, &errno)
		sendTo(w.socket, numbers(beside, 0, uint64(errno)), -1)
	}
}

func (w *warden) startAside(script string, output int) error {
	if !w.aside.ready {
		w.aside.ready = true
		signal.Notify(make(chan os.Signal, 1), others...) // what is ignored would be inherited
	}
	null, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(null)
	w.aside.pid, err = syscall.ForkExec(shell, []string{"sh", "-c", script}, &syscall.ProcAttr{
		Env:   environment(w.env, []string{"ETCD_LOCK_PID=" + strconv.Itoa(w.pid)}),
		Files: []uintptr{uintptr(null), uintptr(output), uintptr(output)},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		w.aside.pid = 0
	}
	return err
}

const shell = "/bin/sh"

// asideEnded is told of every process that has ended.
func (w *warden) asideEnded(pid int, status syscall.WaitStatus) {
	w.aside.mu.Lock()
	defer w.aside.mu.Unlock()
	if pid > 0 && pid == w.aside.pid {
		w.aside.pid = 0
		sendTo(w.socket, numbers(beside, uint64(status), 0), -1)
	}
}

// endAside ends the one that runs, with its process group, and waits until the kernel says so.
func (w *warden) endAside() {
	w.aside.mu.Lock()
	w.aside.over = true
	group := w.aside.pid
	w.aside.pid = 0
	w.aside.mu.Unlock()
	if group == 0 {
		return
	}
	// It has not been waited for, so the number is its own.
	syscall.Kill(-group, syscall.SIGKILL)
	for err := error(nil); err == nil || err == syscall.EINTR; {
		_, err = syscall.Wait4(-group, nil, 0, nil)
	}
}
