package pulse

import (
	"log/slog"
	"testing"
	"time"
)

// TestSilenceOfACheck: a check that never went well is silent only if one run takes as long as the
// limit. One that happens to run when the limit is over has failed like those before it.
func TestSilenceOfACheck(t *testing.T) {
	const limit = time.Minute
	now := time.Now()
	long := now.Add(-limit)
	for name, tt := range map[string]struct {
		began  *time.Time
		silent bool
	}{
		"between two runs":   {nil, false},
		"run has just begun": {&now, false},
		"run hangs":          {&long, true},
	} {
		c := NewCommand(nil, slog.New(slog.DiscardHandler))
		how := "ended with exit code 1"
		c.last.Store(&how)
		c.began.Store(tt.began)
		if got := c.Silence(limit); got.Silent != tt.silent {
			t.Errorf("%s: silent: %v, %v", name, got.Silent, got.Why)
		}
	}
}
