package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A blockedWriter takes nothing until open is closed.
type blockedWriter struct {
	open    chan struct{}
	written bytes.Buffer
}

func (w *blockedWriter) Write(p []byte) (int, error) {
	<-w.open
	return w.written.Write(p)
}

// TestVoiceKeepsTheOrder: all that is said is written once flush returns, in that order.
func TestVoiceKeepsTheOrder(t *testing.T) {
	var written bytes.Buffer
	v, want := &voice{w: &written}, ""
	v.flushWithin(time.Minute) // nothing
	for i := range 500 {
		v.notef("line %d", i)
		want += fmt.Sprintf("etcdlocker: line %d\n", i)
		if i%100 == 0 {
			v.flushWithin(time.Minute)
		}
	}
	v.flushWithin(time.Minute)
	if written.String() != want {
		t.Errorf("it wrote %q", &written)
	}
}

// TestVoiceDoesNotWait: who speaks goes on although nothing can be written, and what could not be
// kept is counted. An error is always kept.
func TestVoiceDoesNotWait(t *testing.T) {
	w := &blockedWriter{open: make(chan struct{})}
	v := &voice{w: w}
	v.notef("first")
	for { // until it is being written
		v.mu.Lock()
		taken := len(v.queue) == 0
		v.mu.Unlock()
		if taken {
			break
		}
		time.Sleep(time.Millisecond)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			log := v.logger(true)
			for range maxQueued {
				log.Debug("more")
			}
		})
	}
	wg.Wait()
	v.errorf("the end")
	v.setStatus("waiting")
	v.flushWithin(time.Millisecond)
	close(w.open)
	v.flushWithin(time.Minute)
	v.notef("last")
	v.setStatus("")
	v.flushWithin(time.Minute)
	said := w.written.String()
	if n := strings.Count(said, "debug: more\n"); n != maxQueued {
		t.Errorf("%d lines were kept", n)
	}
	const erase = "\r\x1b[K"
	end := "etcdlocker: warning: 3000 messages are missing here: stderr was blocked\netcdlocker: error: the end\nwaiting" + erase + "etcdlocker: last\nwaiting" + erase
	if !strings.HasSuffix(said, end) {
		t.Errorf("it ends with %q", said[max(0, len(said)-300):])
	}
}

// TestFlushIsShort: a stderr that takes nothing delays what comes next by a moment.
func TestFlushIsShort(t *testing.T) {
	takeFailedWrites() // its goroutine lasts for longer than the bubble
	synctest.Test(t, func(t *testing.T) {
		w := &blockedWriter{open: make(chan struct{})}
		defer close(w.open)
		v, begun := &voice{w: w}, time.Now()
		v.errorf("the end")
		v.takes = func() bool { return false }
		if v.flush(); time.Since(begun) != 100*time.Millisecond {
			t.Errorf("it takes %v", time.Since(begun))
		}
	})
}

// TestFlushWaitsForAProcessor: a stderr that takes lines gets them, also from a goroutine that has
// to wait for its turn; but not without end.
func TestFlushWaitsForAProcessor(t *testing.T) {
	takeFailedWrites()
	for after, most := range map[time.Duration]time.Duration{time.Second: time.Second, time.Minute: 6 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := &blockedWriter{open: make(chan struct{})}
			time.AfterFunc(after, func() { close(w.open) })
			v, begun := &voice{w: w, takes: func() bool { return true }}, time.Now()
			v.errorf("the end")
			if v.flush(); time.Since(begun) > most {
				t.Errorf("it takes %v", time.Since(begun))
			}
			if written := w.written.Len() > 0; after <= most && !written {
				t.Error("nothing is written")
			}
			<-w.open
			synctest.Wait()
		})
	}
}

// TestStatusLine: other lines are written above it.
func TestStatusLine(t *testing.T) {
	var written bytes.Buffer
	v := &voice{w: &written}
	for _, step := range []func(){
		func() { v.setStatus("one") },
		func() { v.setStatus("one") },
		func() { v.notef("line") },
		func() { v.setStatus("two") },
		func() { v.setStatus("") },
		func() { v.notef("end") },
	} {
		step()
		v.flushWithin(time.Minute)
	}
	const erase = "\r\x1b[K"
	if want := "one" + erase + "etcdlocker: line\none" + erase + "two" + erase + "etcdlocker: end\n"; written.String() != want {
		t.Errorf("it wrote %q, want %q", &written, want)
	}
}

// TestStatusLineInTheBackground: nothing is written over a prompt, and the line comes back.
func TestStatusLineInTheBackground(t *testing.T) {
	var written bytes.Buffer
	var front atomic.Bool
	v := &voice{w: &written, front: front.Load}
	for _, step := range []func(){
		func() { v.setStatus("none") },
		func() { front.Store(true) },
		func() { v.setStatus("one") },
		func() { front.Store(false) },
		func() { v.notef("line") },
		func() { v.setStatus("two") },
		func() { front.Store(true) },
		func() { v.setStatus("three") },
		func() { front.Store(false) },
		func() { v.setStatus("") },
	} {
		step()
		v.flushWithin(time.Minute)
	}
	if want := "oneetcdlocker: line\nthree"; written.String() != want {
		t.Errorf("it wrote %q, want %q", &written, want)
	}
}

// TestNothingControlsTheTerminal: what others have put into a message cannot.
func TestNothingControlsTheTerminal(t *testing.T) {
	var written bytes.Buffer
	v := &voice{w: &written}
	v.errorf("%s", "h\u009b31m\x9b31m\u202eevil\u2066\u200b\u2028\x1b]0;t\a\r\n鍵 é")
	v.flushWithin(time.Minute)
	if want := "etcdlocker: error: h 31m\ufffd31m evil    ]0;t   鍵 é\n"; written.String() != want {
		t.Errorf("it wrote %q, want %q", &written, want)
	}
}

// TestFit: a line fits into the columns that it has, wide characters and all.
func TestFit(t *testing.T) {
	for line, want := range map[string]string{
		"":                   "",
		"12345678":           "12345678",
		"123456789":          "12345...",
		"鍵鍵鍵鍵":               "鍵鍵鍵鍵",
		"鍵鍵鍵鍵鍵":              "鍵鍵...",
		"a鍵鍵鍵鍵":              "a鍵鍵...",
		"🚀🚀🚀🚀🚀":              "🚀🚀...",
		"e\u0301e\u0301":     "e\u0301e\u0301",
		"12345\u0301678":     "12345\u0301678",
		"1234e\u03016789abc": "1234e\u0301...",
	} {
		if got := fit(line, 8); got != want {
			t.Errorf("%q becomes %q, want %q", line, got, want)
		}
	}
}
