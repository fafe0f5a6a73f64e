//go:build linux

// Package beat is how a process of a command shows that it runs: a file that says when it did so
// first and last.
package beat

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the present instant on the machine's monotonic clock, which is the same for all
// processes.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// A Heart is what beats.
type Heart struct {
	file  *os.File
	first time.Duration
}

// New begins a heart's file in dir, for this process of the command under a locker that is called
// name.
func New(dir, name string) (*Heart, error) {
	file, err := os.Create(filepath.Join(dir, name+"."+strconv.Itoa(os.Getpid())))
	if err != nil {
		return nil, err
	}
	h := &Heart{file, Now()}
	return h, h.Beat()
}

// Beat says that the process runs now.
func (h *Heart) Beat() error {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(h.first))
	binary.LittleEndian.PutUint64(b[8:], uint64(Now()))
	_, err := h.file.WriteAt(b[:], 0)
	return err
}

// A Life is what a file says.
type Life struct {
	Name        string // of the locker
	PID         int
	First, Last time.Duration
}

// Lives returns what all files in dir say that are complete.
func Lives(dir string) ([]Life, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var lives []Life
	for _, e := range entries {
		name, number, ok := strings.Cut(e.Name(), ".")
		pid, err := strconv.Atoi(number)
		if !ok || err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if len(b) == 16 {
			lives = append(lives, Life{name, pid, time.Duration(binary.LittleEndian.Uint64(b)), time.Duration(binary.LittleEndian.Uint64(b[8:]))})
		}
	}
	return lives, nil
}
