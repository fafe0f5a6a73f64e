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
	name    string
	links   []*etcdtest.Link // by member
	knows   []int            // the members that it is told of; nil: all
	options []string         // more of them, for this one
	file    string           // another etcdlocker than the suite's
	vars    []string         // more of them

	cmd     *exec.Cmd
	stderr  *stderr
	started time.Duration
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

// start runs the locker.
func (p *player) start(cmd *exec.Cmd, env []string) error {
	if p.file != "" {
		cmd.Path = p.file
	}
	p.cmd, p.stderr, p.done = cmd, &stderr{}, make(chan struct{})
	cmd.Env = append(env, p.vars...)
	cmd.Stdout, cmd.Stderr = p.stderr, p.stderr
	cmd.WaitDelay = 100 * time.Millisecond // what is left behind may have it open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.started = beat.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
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
	mu       sync.Mutex
	all      bytes.Buffer
	begun    int // where the line begins that is not complete
	renewals int
	validity time.Duration // when the lock was valid until, at the last renewal
	at       time.Duration // when that was
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
		if _, rest, ok := strings.Cut(string(line), "lease renewed"); ok {
			_, valid, _ := strings.Cut(rest, "valid_for=")
			if d, err := time.ParseDuration(valid); err == nil {
				s.renewals++
				s.at = beat.Now()
				s.validity = s.at + d
			}
		}
	}
}

func (s *stderr) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// renewed returns how often the lock was renewed, and until when it is valid by that. That is a little late: by the time until the line arrived.
func (s *stderr) renewed() (int, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewals, s.validity
}

// lastRenewed returns when it was renewed last.
func (s *stderr) lastRenewed() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}
