package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// releaseLimit bounds the release: when etcd does not answer, the lock frees itself after the TTL.
const releaseLimit = 1500 * time.Millisecond

// close releases the lock and leaves nothing in etcd.
func (h *holder) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), releaseLimit)
	defer cancel()
	defer h.endHeld(nil)
	return h.lock.Close(ctx)
}

// release releases the lock after the work and says what came of it. It reports whether the lock was lost.
func (h *holder) release() (lost bool) {
	err := h.close()
	var l *etcdlock.LostError
	switch {
	case errors.As(err, &l):
		h.sayLost(l)
		return true
	case errors.Is(err, etcdlock.ErrUnconfirmed):
		h.voice.warnf("lock %q: etcd did not confirm the release, it frees itself within %v: %v", h.key, h.ttl, err)
	case err != nil:
		h.voice.warnf("releasing lock %q: %v", h.key, err)
	}
	return false
}

func (h *holder) sayLost(lost *etcdlock.LostError) {
	h.voice.errorf("%v", lost)
	switch {
	case lost.Reason == etcdlock.Unrenewed:
		h.voice.hintf("etcd did not answer in time: see its log and the network; a longer --ttl rides out longer outages")
	case lost.Reason.Forced():
		h.voice.hintf("somebody revoked the lease or deleted keys below %q, or etcd lost its data: another holder may have started already", h.key+"/")
	default:
		h.voice.hintf("somebody changed the key %q to stop this holder; nothing else ran under the lock meanwhile", h.key)
	}
}

// holdOnly holds the lock without a command until a signal comes.
func (h *holder) holdOnly() int {
	fmt.Println(readable(h.key), h.lock.Token())
	sig := h.pause(nil)
	lost := h.release()
	switch {
	case lost:
		return exitLost
	case sig != 0:
		return exitSignal + int(sig)
	}
	return exitLost
}

// pause waits, holding the lock, until timer rings, the lock is lost, or a signal tells us to stop, which it returns.
func (h *holder) pause(timer <-chan time.Time) syscall.Signal {
	quit := make(chan struct{})
	stop := make(chan syscall.Signal, 1)
	go func() { stop <- waitForStop(quit, h.signals) }()
	select {
	case <-timer:
	case <-h.held.Done():
	case sig := <-stop:
		return sig
	}
	close(quit)
	return <-stop
}

// supervise runs the command to its end and releases the lock.
func (h *holder) supervise(path string) int {
	if h.held.Err() != nil || h.lock.Remaining() <= h.grace {
		// No time to stop it in time.
		if !h.release() {
			h.voice.errorf("lock %q: too little of its validity was left to start the command", h.key)
		}
		return exitLost
	}
	tree, err := supervise.Start(supervise.Command{Path: path, Args: h.command, Env: h.environment()})
	if err != nil {
		h.close()
		return h.voice.fail(h.explainStart(path, err), exitNoCommand)
	}
	h.voice.logger(h.verbose).Debug("command started", "pid", tree.PID())
	life := supervise.NewLife(tree)
	life.Grace, life.KillAfter, life.Orphans = h.grace, h.killAfter, h.orphans
	supervise.Drive(life, tree, h.held.Done(), h.lock.Expired(), h.signals, fromTerminal)
	tree.Close()
	return h.finish(life)
}

func (h *holder) explainStart(path string, err error) error {
	if errors.Is(err, unix.ENOEXEC) {
		return usagef("a script needs a first line such as #!/bin/sh; the lock was released", "cannot run %q: %w", path, err)
	}
	return usagef("the lock was released", "cannot run %q: %w", path, err)
}

// finish says how it ended, releases the lock unless the command may still run, and returns the exit code.
func (h *holder) finish(life *supervise.Life) int {
	if life.Undead {
		h.voice.errorf("lock %q: %s could not be killed, so the lock is not released; it frees itself within %v of the last renewal",
			h.key, names(supervise.Descendants()), h.ttl)
		h.voice.hintf("processes of another user, or stuck in the kernel: end them by hand before the lock is free")
		return exitNoCommand
	}
	if life.Left {
		h.voice.warnf("the command left %s running without the lock; --orphans=wait keeps the lock for them, --orphans=kill ends them",
			names(supervise.Descendants()))
	}
	stop := life.Stop
	if left := time.Until(h.since.Add(h.holdAtLeast)); left > 0 && stop == 0 && h.held.Err() == nil {
		timer := time.NewTimer(left)
		stop = h.pause(timer.C)
		timer.Stop()
	}
	switch {
	case h.release():
		return exitLost
	case stop != 0:
		h.voice.errorf("stopped by %s, and with it the command; lock %q is released", unix.SignalName(stop), h.key)
		return exitSignal + int(stop)
	case life.Status.Signaled():
		sig := life.Status.Signal()
		h.voice.errorf("the command died of %s; lock %q is released", unix.SignalName(sig), h.key)
		return exitSignal + int(sig)
	}
	return life.Status.ExitStatus()
}

// environment is ours, and what the command may want to know of the lock. Ours comes last and so wins.
func (h *holder) environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ETCD_LOCK_KEY=") && !strings.HasPrefix(kv, "ETCD_LOCK_ID=") &&
			!strings.HasPrefix(kv, "ETCD_LOCK_REV=") && !strings.HasPrefix(kv, "ETCD_LOCK_HOST=") {
			env = append(env, kv)
		}
	}
	return append(env,
		"ETCD_LOCK_KEY="+h.key,
		"ETCD_LOCK_ID="+h.id,
		"ETCD_LOCK_REV="+strconv.FormatInt(h.lock.Token(), 10),
		"ETCD_LOCK_HOST="+h.endpoint,
	)
}

// names lists processes for a message.
func names(processes []supervise.Process) string {
	var list []string
	for _, p := range processes {
		if p.Zombie {
			continue
		}
		if len(list) == 5 {
			list = append(list, "others")
			break
		}
		list = append(list, fmt.Sprintf("%s (pid %d)", p.Name, p.PID))
	}
	if len(list) == 0 {
		return "a process"
	}
	return strings.Join(list, ", ")
}
