package goruntime

import (
	"math"
	"os"
	_ "unsafe" // for go:linkname
)

// DefaultMemory has the garbage collector work as it does without GOGC and GOMEMLIMIT.
func DefaultMemory() {
	if os.Getenv("GOGC") != "" {
		setGCPercent(100)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		setMemoryLimit(math.MaxInt64)
	}
}

//go:linkname setGCPercent runtime/debug.setGCPercent
func setGCPercent(percent int32) (before int32)

//go:linkname setMemoryLimit runtime/debug.setMemoryLimit
func setMemoryLimit(bytes int64) (before int64)
