package validity

import (
	"testing"
	"time"
)

func TestDefaultsLeaveRoom(t *testing.T) {
	for ttl := MinTTL; ttl <= 100*time.Second; ttl += time.Second {
		grace := DefaultGrace(ttl)
		if err := Check(ttl, DefaultRefresh(ttl, grace), grace); err != nil {
			t.Errorf("TTL %v: %v", ttl, err)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		ttl, refresh, grace time.Duration
		ok                  bool
	}{
		{15 * time.Second, 7500 * time.Millisecond, 3750 * time.Millisecond, true},
		{15 * time.Second, 11 * time.Second, 3750 * time.Millisecond, false},
		{2 * time.Second, time.Second, 500 * time.Millisecond, true},
		{2 * time.Second, 2 * time.Second, 0, false},
		{2 * time.Second, 1648 * time.Millisecond, 0, true},
		{2 * time.Second, 1648 * time.Millisecond, NoGrace, true},
		{2 * time.Second, 1648*time.Millisecond + 1, NoGrace, false},
		{2 * time.Second, 0, 0, false},
		{10 * time.Second, time.Second, 10 * time.Second, false},
		{10 * time.Second, time.Second, -time.Second, false},
	}
	for _, tt := range tests {
		if err := Check(tt.ttl, tt.refresh, tt.grace); (err == nil) != tt.ok {
			t.Errorf("Check(%v, %v, %v) = %v", tt.ttl, tt.refresh, tt.grace, err)
		}
	}
}

// TestExtraLeavesRoom: whatever the margin grows by, the next renewal is due with room before the
// grace, and before the work can be ended ahead of time.
func TestExtraLeavesRoom(t *testing.T) {
	if got := MaxExtra(2*time.Second, time.Second, 500*time.Millisecond); got != 250*time.Millisecond {
		t.Errorf("at most %v of a TTL of 2 s", got)
	}
	for ttl := MinTTL; ttl <= 20*time.Second; ttl += time.Second {
		for refresh := 50 * time.Millisecond; refresh < ttl; refresh += 50 * time.Millisecond {
			for grace := time.Duration(0); Check(ttl, refresh, grace) == nil; grace += 50 * time.Millisecond {
				extra := MaxExtra(ttl, refresh, grace)
				due := max(refresh-extra, refresh/2)
				if extra < 0 || due+room+grace+extra+Margin(ttl) > ttl {
					t.Fatalf("TTL %v, interval %v, grace %v: %v more leave no room after %v", ttl, refresh, grace, extra, due)
				}
				for _, extra := range []time.Duration{0, extra / 2, extra} {
					due := max(refresh-extra, refresh/2)
					if ahead := MaxAhead(ttl, refresh); due+room+ahead+extra+Margin(ttl) > ttl {
						t.Fatalf("TTL %v, interval %v, %v more: %v ahead leave no room after %v", ttl, refresh, extra, ahead, due)
					}
				}
			}
		}
	}
}
