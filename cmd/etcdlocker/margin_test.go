package main

import (
	"strings"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/guard"
)

// measuredCommand is one that would take some time to end.
type measuredCommand struct {
	guard.Command
	measure guard.Measure
}

func (c *measuredCommand) Measured() (guard.Measure, bool) { return c.measure, true }

// TestMarginIsTight: that little is left of what the TTL has room for is said, and said once, and
// the margin is never more than that.
func TestMarginIsTight(t *testing.T) {
	const most = 500 * time.Millisecond // an eighth of the TTL
	for _, tt := range []struct {
		name   string
		wakeUp time.Duration
		margin time.Duration
		warns  bool
	}{
		{"little is needed", 100 * time.Millisecond, 310 * time.Millisecond, false},
		{"little is left", 150 * time.Millisecond, 460 * time.Millisecond, true},
		{"nothing is left", time.Second, most, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var said strings.Builder
			o := &options{keys: keys{"/k"}, ttl: 4 * time.Second, refresh: 2 * time.Second, grace: time.Second}
			h := &holder{locker: &locker{options: o, voice: &voice{w: &said}}, run: &command{path: "/bin/true"}}
			h.run.of(&measuredCommand{measure: guard.Measure{WakeUp: tt.wakeUp}})
			for range 3 {
				if got := h.margin(); got != tt.margin {
					t.Errorf("%v more, want %v", got, tt.margin)
				}
			}
			h.voice.flushWithin(time.Minute)
			want := 0
			if tt.warns {
				want = 1
			}
			if n := strings.Count(said.String(), "warning: "); n != want {
				t.Errorf("%d warnings, want %d: %s", n, want, &said)
			}
		})
	}
}
