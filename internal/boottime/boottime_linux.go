//go:build !etcdlock_shifted_clock

package boottime

import (
	"container/heap"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// Now returns the present instant.
func Now() Instant {
	now, err := kernel.BootTime()
	if err != nil {
		panic("boottime: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return Instant(now)
}

// An entry is an alarm that rests on the timer that all of a process share.
type entry struct {
	c    chan<- struct{}
	at   Instant
	seat int // in the heap, -1 if it is not set
}

// kernelTimer is the timer of the kernel's, as long as there are alarms, and those that are set: a
// process may have thousands of leases, and few descriptors.
var kernelTimer struct {
	sync.Mutex
	alarms int
	file   *os.File
	fd     int
	set    entries
}

// entries is a heap: the first one is due first.
type entries []*entry

func (e entries) Len() int           { return len(e) }
func (e entries) Less(i, j int) bool { return e[i].at < e[j].at }
func (e entries) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].seat, e[j].seat = i, j
}

// Push and Pop are for container/heap.
func (e *entries) Push(x any) {
	one := x.(*entry)
	one.seat = len(*e)
	*e = append(*e, one)
}

// Pop returns the last one.
func (e *entries) Pop() any {
	last := len(*e) - 1
	one := (*e)[last]
	(*e)[last] = nil
	*e, one.seat = (*e)[:last], -1
	return one
}

func newAlarm(c chan<- struct{}) alarm {
	k := &kernelTimer
	k.Lock()
	defer k.Unlock()
	if k.alarms == 0 {
		fd, err := kernel.NewTimerFD()
		if err != nil {
			// Out of descriptors: the deadline must be kept all the same.
			return newPoller(c, pollEvery)
		}
		k.fd, k.file = fd, os.NewFile(uintptr(fd), "timerfd")
		go ringing(k.file)
	}
	k.alarms++
	return &entry{c: c, seat: -1}
}

// ringing rings for what is due each time that the timer does, until that is closed. If the timer
// cannot be read it looks at the clock.
func ringing(file *os.File) {
	buf := make([]byte, 8)
	for {
		_, err := file.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(pollEvery)
		}
		ringDue()
	}
}

func ringDue() {
	k := &kernelTimer
	k.Lock()
	defer k.Unlock()
	for now := Now(); len(k.set) > 0 && k.set[0].at <= now; {
		ring(heap.Pop(&k.set).(*entry).c)
	}
	setFirst()
}

// setFirst sets the kernel's timer to what is due first. It is called with the mutex locked.
func setFirst() {
	k := &kernelTimer
	if len(k.set) == 0 {
		return
	}
	// A value of zero would stop it.
	if err := kernel.SetTimerFD(k.fd, max(time.Duration(k.set[0].at), 1)); err != nil {
		panic("boottime: " + err.Error()) // only a wrong argument is refused
	}
}

func (e *entry) set(at Instant) {
	k := &kernelTimer
	k.Lock()
	defer k.Unlock()
	wasFirst := e.seat == 0
	e.at = at
	if e.seat < 0 {
		heap.Push(&k.set, e)
	} else {
		heap.Fix(&k.set, e.seat)
	}
	if wasFirst || e.seat == 0 {
		setFirst()
	}
}

func (e *entry) close() {
	k := &kernelTimer
	k.Lock()
	defer k.Unlock()
	if e.seat >= 0 {
		heap.Remove(&k.set, e.seat)
	}
	if k.alarms--; k.alarms == 0 {
		k.file.Close()
	}
}
