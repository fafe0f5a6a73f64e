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
