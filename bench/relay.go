package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// A runner stands in line for a key, runs stamp when it is its turn, and gives the key back.
type runner interface {
	start() error
	end() (said string, err error) // blocks until it is over, and returns what stamp has said
}

// A relay is a line of runners, each of which has its turn once.
type relay struct {
	dir     string // has the programs, and what stamp writes
	etcd    etcd
	key     string
	waiters int
	hold    time.Duration
}

// stamps returns how stamp is called by the i-th runner. The first one waits until it is told.
func (r relay) stamps(i int) []string {
	hold := r.pipe()
	if i > 0 {
		hold = fmt.Sprint(r.hold.Milliseconds())
	}
	return []string{filepath.Join(r.dir, "stamp"), hold}
}

func (r relay) pipe() string { return filepath.Join(r.dir, "go-ahead") }

// A handing is what one command handed to the next one took, in ms: from the end of the one until
// another client had heard from etcd that it is over, and from there to the start of the next.
type handing struct{ ended, started float64 }

func (h handing) whole() float64 { return h.ended + h.started }

// run has all runners stand in line before the first one goes, and returns what each command took
// to come after another.
func (r relay) run(ctx context.Context, runners []runner) (all []handing, err error) {
	client, err := r.etcd.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	heard, err := r.hear(ctx, client)
	if err != nil {
		return nil, err
	}
	if err := syscall.Mkfifo(r.pipe(), 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(r.pipe())
	for i, one := range runners {
		if err := one.start(); err != nil {
			return nil, err
		}
		defer one.end()
		if err := r.awaitLine(ctx, client, i+1); err != nil {
			return nil, err
		}
	}
	sleep(ctx, 200*time.Millisecond) // until each knows the one behind it, and is ready
	goAhead, err := os.OpenFile(r.pipe(), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	goAhead.Close()
	type turn struct{ began, ended int64 }
	var turns []turn
	for _, one := range runners {
		var t turn
		said, err := one.end()
		if err == nil {
			_, err = fmt.Sscan(said, &t.began, &t.ended)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %q", err, said)
		}
		turns = append(turns, t)
	}
	slices.SortFunc(turns, func(a, b turn) int { return int(a.began - b.began) })
	events := heard()
	for i := range turns[1:] {
		ended, began := turns[i].ended, turns[i+1].began
		told := began // at the latest: the successor may hear it first
		if i, _ := slices.BinarySearch(events, ended); i < len(events) {
			told = min(told, events[i])
		}
		all = append(all, handing{milliseconds(time.Duration(told - ended)), milliseconds(time.Duration(began - told))})
	}
	return all, nil
}

// hear watches all keys of the line. What it returns ends that, and returns when there was news, on
// the clock of stamp.
func (r relay) hear(ctx context.Context, client *clientv3.Client) (heard func() []int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	events := client.Watch(ctx, r.key, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if err := created(events); err != nil {
		cancel()
		return nil, err
	}
	all := make(chan []int64, 1)
	go func() {
		var times []int64
		for range events {
			var now unix.Timespec
			if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
				times = append(times, now.Nano())
			}
		}
		all <- times
	}()
	return func() []int64 {
		cancel()
		return <-all
	}, nil
}

// awaitLine waits until so many stand in line.
func (r relay) awaitLine(ctx context.Context, client *clientv3.Client, n int) error {
	for {
		resp, err := client.Get(ctx, r.key+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || resp.Count >= int64(n) {
			return err
		}
		if !sleep(ctx, time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// A process is a runner that is a program, as etcdlocker.
type process struct {
	*exec.Cmd
	stdout *strings.Builder
}

func (p process) start() error { return p.Start() }

func (p process) end() (string, error) {
	if p.Process == nil || p.ProcessState != nil {
		return "", nil
	}
	err := p.Wait()
	return p.stdout.String(), err
}

// programs has a line of one program.
func (r relay) programs(ctx context.Context, make program) ([]handing, error) {
	var runners []runner
	for i := range r.waiters + 1 {
		cmd, stdout := make(ctx, r.stamps(i)...), new(strings.Builder)
		cmd.Stdout = stdout
		runners = append(runners, process{cmd, stdout})
	}
	return r.run(ctx, runners)
}

// A bare runner is what none of them can be faster than: it has a watch on the key of the one
// before it, executes stamp when that is deleted, waits for its end and deletes its own key.
type bare struct {
	relay
	i      int
	stdout *os.File // stamp's end
	said   *os.File
	client *clientv3.Client
	done   chan error
}

func (b *bare) ofKey(i int) string { return fmt.Sprintf("%s/%d", b.key, i) }

func (b *bare) start() (err error) {
	if b.said, b.stdout, err = os.Pipe(); err != nil {
		return err
	}
	if b.client, err = b.etcd.client(); err != nil {
		return err
	}
	ctx := context.Background()
	events := b.client.Watch(ctx, b.ofKey(b.i-1), clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
	if err := created(events); err != nil {
		return err
	}
	b.done = make(chan error, 1)
	if _, err := b.client.Put(ctx, b.ofKey(b.i), ""); err != nil {
		return err
	}
	go func() {
		if b.i > 0 {
			<-events
		}
		words := b.stamps(b.i)
		pid, err := syscall.ForkExec(words[0], words, &syscall.ProcAttr{Files: []uintptr{0, b.stdout.Fd(), 2}})
		if err == nil {
			_, err = syscall.Wait4(pid, nil, 0, nil)
		}
		_, failed := b.client.Delete(ctx, b.ofKey(b.i))
		b.stdout.Close()
		b.done <- errors.Join(err, failed, b.client.Close())
		close(b.done)
	}()
	return nil
}

func (b *bare) end() (string, error) {
	if b.done == nil {
		return "", nil
	}
	if err := <-b.done; err != nil {
		return "", err
	}
	defer b.said.Close()
	said, _ := io.ReadAll(b.said) // closed: it was read before
	return string(said), nil
}

// bares has a line of bare runners.
func (r relay) bares(ctx context.Context) ([]handing, error) {
	var runners []runner
	for i := range r.waiters + 1 {
		runners = append(runners, &bare{relay: r, i: i})
	}
	return r.run(ctx, runners)
}
