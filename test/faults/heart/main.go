//go:build linux

// Command heart is what runs under a lock while faults hit: it shows that it runs, every few
// milliseconds, and so does all that it starts. It works on a counter that the lock guards, and
// notes whoever runs when it starts and should not.
//
//	heart DIR NAME KIND
//
// NAME is that of its locker, and KIND what it does against being ended.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/test/alive"
	"github.com/etcdlock/etcdlock/test/faults/beat"
	"github.com/etcdlock/etcdlock/test/stubborn"
)

func main() {
	dir, name, kind := os.Args[1], os.Args[2], os.Args[3]
	os.Exit(exitCode(run(dir, name, kind)))
}

func exitCode(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "heart:", err)
		return 99
	}
	return 0
}

// What the command starts is of one of these kinds. A leaf beats, ignores TERM, and may play a
// part; what is in the middle starts leaves and ends.
const (
	leaf   = "leaf"
	middle = "middle"
)

func run(dir, name, kind string) error {
	t := tree{dir, name}
	part, playing := strings.CutPrefix(kind, leaf+" ")
	switch {
	case playing:
		stubborn.Play(part, func(err error) {
			if err == nil {
				err = t.live()
			}
			os.Exit(exitCode(err))
		})
		return fmt.Errorf("the part %q is over", part)
	case kind == middle:
		return errors.Join(t.start(leaf), t.start(leaf))
	case kind == leaf:
		signal.Ignore(syscall.SIGTERM)
		return t.live()
	}
	heart, err := beat.New(t.dir, t.name) // it runs from here on
	if err != nil {
		return err
	}
	slot, token, mode := os.Getenv("ETCDLOCK_HELD_SLOT"), os.Getenv("ETCD_LOCK_REV"), os.Getenv("ETCDLOCK_HELD_MODE")
	for what, found := range map[string]string{"slot": slot, "token": token} {
		if found == "" {
			continue
		}
		if err := os.WriteFile(t.file(what, name), []byte(found), 0o666); err != nil {
			return err
		}
	}
	// Others who share the lock may run, and nobody writes, nor where it has slots.
	if mode != "shared" {
		if err := t.accuse(slot); err != nil {
			return err
		}
		if token != "" && slot == "" {
			go work(filepath.Join(dir, "ledger"), name, token)
		}
	}
	if kind != "plain" {
		signal.Ignore(syscall.SIGTERM)
		if err := t.resist(kind); err != nil {
			return err
		}
	}
	return t.beatWith(heart)
}

// pause is the time between two beats.
const pause = 4 * time.Millisecond

// live beats until the end of the trial.
func (t tree) live() error {
	heart, err := beat.New(t.dir, t.name)
	if err != nil {
		return err
	}
	return t.beatWith(heart)
}

func (t tree) beatWith(heart *beat.Heart) error {
	for n := 0; ; n++ {
		if err := heart.Beat(); err != nil {
			return err
		}
		if n%10 == 9 && t.over() && !t.leads() {
			return nil
		}
		time.Sleep(pause)
	}
}

// leads reports whether this process is not the last one of its command, but has started it: then
// it goes on until it is.
func (t tree) leads() bool {
	lives, err := beat.Lives(t.dir)
	if err != nil || len(lives) == 0 {
		return false
	}
	others, first := false, lives[0]
	for _, life := range lives {
		if life.Name != t.name {
			continue
		}
		others = others || life.PID != os.Getpid() && alive.Process(life.PID)
		if life.First < first.First || first.Name != t.name {
			first = life
		}
	}
	return others && first.PID == os.Getpid()
}

// file names the file that says what a command has found in its environment.
func (t tree) file(what, name string) string { return filepath.Join(t.dir, what+"."+name) }

// accuse notes all processes of other commands that are not dead, also those that are stopped and
// show it by nothing else, and then that it has looked. Of those that have slots it is about those
// that have the same one.
func (t tree) accuse(slot string) error {
	lives, err := beat.Lives(t.dir)
	if err != nil {
		return err
	}
	members := crowd(t.dir)
	for _, life := range lives {
		if life.Name != t.name && alive.Process(life.PID) && !isStranger(life.PID, t.dir) {
			members[life.PID] = life.Name
		}
	}
	for pid, name := range members {
		if name == t.name || !alive.Process(pid) {
			continue
		}
		if other, err := os.ReadFile(t.file("slot", name)); slot != "" && (err != nil || string(other) != slot) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(t.dir, "accused"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		fmt.Fprintf(f, "process %d of %s when %s started\n", pid, name, t.name)
		f.Close()
	}
	return os.WriteFile(filepath.Join(t.dir, "looked."+t.name), nil, 0o666)
}
