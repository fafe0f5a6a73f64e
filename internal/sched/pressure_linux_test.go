package sched

import (
	"os"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestParsePressure(t *testing.T) {
	for _, tt := range []struct {
		content string
		average float64
		total   time.Duration
	}{
		{"some avg10=12.50 avg60=1.00 avg300=2.00 total=1500000\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=7\n", 0.125, 1500 * time.Millisecond},
		{"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0, 0},
		{"", 0, 0},
		{"nothing like it", 0, 0},
	} {
		if average, total := parsePressure(tt.content); average != tt.average || total != tt.total {
			t.Errorf("%q: %v, %v, want %v, %v", tt.content, average, total, tt.average, tt.total)
		}
	}
}

// TestPressure: where all processors are busy, a thread is said to wait.
func TestPressure(t *testing.T) {
	if _, err := os.Stat("/proc/pressure/cpu"); err != nil {
		etcdtest.Skip(t, "the kernel does not account for how busy it is (CONFIG_PSI)")
	}
	etcdtest.KeepBusy(t)
	var p Pressure
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		wait := p.Wait()
		if wait < 0 || wait > longestWait {
			t.Fatalf("a thread may have to wait for %v", wait)
		}
		if wait > longestWait/2 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("on busy processors a thread may have to wait for %v", wait)
		}
	}
}
