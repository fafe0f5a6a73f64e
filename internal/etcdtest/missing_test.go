package etcdtest

import (
	"strings"
	"testing"
)

// ended is a test that notes what ends it first: unlike a real one it goes on.
type ended struct {
	testing.TB
	how string
}

func (e *ended) Helper()               {}
func (e *ended) Skip(...any)           { e.note("skipped") }
func (e *ended) Fatalf(string, ...any) { e.note("failed") }

func (e *ended) note(how string) {
	if e.how == "" {
		e.how = how
	}
}

func TestMissing(t *testing.T) {
	for ci, want := range map[string]string{"": "skipped", "true": "failed"} {
		t.Setenv("CI", ci)
		e := &ended{}
		const what = "nothing, in a test of this"
		Missing(e, what)
		if e.how != want {
			t.Errorf("with CI=%q it is %q", ci, e.how)
		}
		skips.mu.Lock()
		if n := skips.counts["missing: "+what]; ci == "" && n != 1 {
			t.Errorf("counted %d times", n)
		}
		delete(skips.counts, "missing: "+what)
		skips.mu.Unlock()
	}
}

func TestTally(t *testing.T) {
	var s tally
	for _, reason := range []string{"b", "c", "a", "b"} {
		s.add(reason)
	}
	var said strings.Builder
	s.print(&said)
	if want := "etcdtest: 2 skipped: b\netcdtest: 1 skipped: a\netcdtest: 1 skipped: c\n"; said.String() != want {
		t.Errorf("%q", said.String())
	}
}
