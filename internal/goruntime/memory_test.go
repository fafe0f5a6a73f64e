package goruntime

import (
	"math"
	"runtime/debug"
	"testing"
)

// TestDefaultMemory: what the variables say is taken back, and nothing else is changed.
func TestDefaultMemory(t *testing.T) {
	percent, limit := debug.SetGCPercent(50), debug.SetMemoryLimit(1<<40)
	defer func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}()
	for _, tt := range []struct {
		gogc, limit string
		wantPercent int
		wantLimit   int64
	}{
		{"", "", 50, 1 << 40},
		{"50", "", 100, 1 << 40},
		{"off", "1TiB", 100, math.MaxInt64},
	} {
		t.Setenv("GOGC", tt.gogc)
		t.Setenv("GOMEMLIMIT", tt.limit)
		DefaultMemory()
		percent, limit := debug.SetGCPercent(50), debug.SetMemoryLimit(1<<40)
		if percent != tt.wantPercent || limit != tt.wantLimit {
			t.Errorf("GOGC=%s GOMEMLIMIT=%s: %d %%, %d bytes", tt.gogc, tt.limit, percent, limit)
		}
	}
}
