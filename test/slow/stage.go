package slow

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// A stage is a testing.TB outside of a test, as far as etcdtest needs one.
type stage struct {
	testing.TB

	dir      string
	deadline time.Time

	mu       sync.Mutex
	cleanups []func()
	failures []error
}

// play runs a scene, which Fatal and its like break off, and returns what went wrong.
func (s *stage) play(scene func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		scene()
	}()
	<-done
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.failures...)
}

// end cleans up, the last thing first, and returns what went wrong.
func (s *stage) end() error {
	return s.play(func() {
		s.mu.Lock()
		cleanups := s.cleanups
		s.cleanups = nil
		s.mu.Unlock()
		for i := len(cleanups) - 1; i >= 0; i-- {
			cleanups[i]()
		}
	})
}

func (s *stage) Helper()                     {}
func (s *stage) Deadline() (time.Time, bool) { return s.deadline, true }

func (s *stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp(s.dir, "")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.Error(err)
		}
	})
	return dir
}

func (s *stage) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failures) > 0
}

func (s *stage) Error(args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, errors.New(fmt.Sprint(args...)))
}

// Log takes what is only said of failures.
func (s *stage) Log(args ...any) { s.Error(args...) }

func (s *stage) Fatal(args ...any) {
	s.Error(args...)
	runtime.Goexit()
}

func (s *stage) Errorf(format string, args ...any) { s.Error(fmt.Sprintf(format, args...)) }
func (s *stage) Logf(format string, args ...any)   { s.Log(fmt.Sprintf(format, args...)) }
func (s *stage) Fatalf(format string, args ...any) { s.Fatal(fmt.Sprintf(format, args...)) }
