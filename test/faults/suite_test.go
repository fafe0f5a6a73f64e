//go:build linux

package faults

import "testing"

// TestVerdict: what is not promised on a busy machine is wrong if it is so each time.
func TestVerdict(t *testing.T) {
	told, starved, unpromised := Result{}, Result{Starved: true}, Result{Starved: true, Unpromised: []string{"death"}}
	for _, tt := range []struct {
		name            string
		results         []Result
		wrong, isUntold bool
	}{
		{"told", []Result{told}, false, false},
		{"told in the end", []Result{unpromised, starved, told}, false, false},
		{"starved", []Result{starved, starved, starved}, false, true},
		{"each time", []Result{unpromised, unpromised, unpromised}, true, false},
		{"not each time", []Result{starved, unpromised, unpromised}, false, true},
		{"no time for more", []Result{unpromised}, false, true},
	} {
		why, isUntold := verdict(tt.results)
		if (why != "") != tt.wrong || isUntold != tt.isUntold {
			t.Errorf("%s: %q, untold: %v", tt.name, why, isUntold)
		}
	}
}
