//go:build linux

package faults

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// A player is one contender: a locker, its command, and its own ways to the members.
type player struct {
	name     string
	links    []*etcdtest.Link // by member
	knows    []int            // the members that it is told of; nil: all
	options  []string         // more of them, for this one
	file     string           // another etcdlocker than the suite's
	vars     []string         // more of them
	launched []string         // options of launch

	outer func(*exec.Cmd) *exec.Cmd // nil, or what its locker is started by

	cmd     *exec.Cmd
	stderr  *stderr
	started time.Duration
	delay   *runDelay     // of the locker
	done    chan struct{} // closed when it has ended
}

// endpoints returns where the player finds the members.
func (p *player) endpoints() (all []string) {
	for i, l := range p.links {
		if p.knows == nil || slices.Contains(p.knows, i) {
			all = append(all, l.Endpoint())
		}
	}
	return all
}

// start runs the locker as a user, in a control group of its own if there are any.
func (t *trial) start(p *player, cmd *exec.Cmd, env []string) error {
	if p.file != "" {
		cmd.Path = p.file
	}
	cmd = exec.Command(t.suite.programs.launch(), append(append(slices.Clone(p.launched), cmd.Path), cmd.Args[1:]...)...)
	p.cmd, p.stderr, p.done = cmd, &stderr{}, make(chan struct{})
	cmd.Env = append(env, p.vars...)
	cmd.Stdout, cmd.Stderr = p.stderr, p.stderr
	cmd.WaitDelay = 100 * time.Millisecond // what is left behind may have it open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if t.user != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(t.user), Gid: uint32(t.user)}
	}
	p.started = beat.Now()
	if err := t.startIn(p.name, t.delegate, cmd); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	p.delay = newRunDelay(cmd.Process.Pid, p.done)
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return nil
}

func (p *player) hasEnded() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// status is how it ended, as a shell would say it.
func (p *player) status() int {
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// stderr is what a locker has written, and what it has said of its renewals.
type stderr struct {
	mu    sync.Mutex
	all   bytes.Buffer
	begun int // where the line begins that is not complete
	last  renewal
	// The last one before the lock was lost; the lease is renewed until its command is dead.
	kept renewal
	lost bool
}

// A renewal is what a locker has said of one.
type renewal struct {
	number int           // how many there were
	at     time.Duration // when it said so
	// Until when the lock was valid. That is a little late: by the time until the line arrived.
	valid  time.Duration
	margin time.Duration // from then until etcd may free the lock; 0: it did not say
}

func (s *stderr) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.Write(p)
	for {
		line, _, complete := bytes.Cut(s.all.Bytes()[s.begun:], []byte("\n"))
		if !complete {
			return len(p), nil
		}
		s.begun += len(line) + 1
		s.lost = s.lost || strings.Contains(string(line), "lock lost") || strings.Contains(string(line), placeLost)
		if _, rest, ok := strings.Cut(string(line), "lease renewed"); ok {
			if valid, ok := attribute(rest, "valid_for"); ok {
				margin, _ := attribute(rest, "margin")
				now := beat.Now()
				s.last = renewal{s.last.number + 1, now, now + valid, margin}
				if !s.lost {
					s.kept = s.last
				}
			}
		}
	}
}

// attribute returns a duration that a line has under a name.
func attribute(line, name string) (time.Duration, bool) {
	for word := range strings.FieldsSeq(line) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			d, err := time.ParseDuration(value)
			return d, err == nil
		}
	}
	return 0, false
}

func (s *stderr) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// beforeLoss returns the last renewal that the locker has counted before it lost the lock.
func (s *stderr) beforeLoss() renewal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

// waits reports whether the locker knows that it stands in line.
func (s *stderr) waits() bool { return strings.Contains(s.String(), "waiting ") }

// renewed returns the last renewal that the locker has counted.
func (s *stderr) renewed() renewal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
