package main

import (
	"slices"
	"time"
)

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile returns 0 for no values.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// spread returns the percentiles that are shown of what was measured in ms, and all of it.
func spread(all []float64) figures {
	return figures{"p50": {quantile(all, 0.5)}, "p95": {quantile(all, 0.95)}, "p99": {quantile(all, 0.99)}, times: all}
}
