package sched

import (
	"strconv"
	"time"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// Pressure tells how busy the machine is, where the kernel accounts for that (CONFIG_PSI). The zero
// value is ready to use.
type Pressure struct {
	at    time.Time
	total time.Duration // for which somebody had to wait for a processor, at that time
}

// longestWait is what a thread without a real-time priority may have to wait for a processor on a
// machine on which somebody always has to. What such a thread waits is short nearly always, and so
// says little of the longest: beside two busy processes, nine trials of the fault suite, and thus a
// hundred sessions on two processors, a thread with ShortSlices in a session of its own waited for
// more than 100 ms in 33 of 1,100 times (Linux 6.18; 447 ms at most), and for more than 20 ms in
// nine of ten times not at all. The margin allows for three of these, see guard.Measure.
const longestWait = 100 * time.Millisecond

// Wait returns how long a thread without a real-time priority may have to wait for a processor,
// from how busy the machine has been since the last call, the first time in the last seconds. It is
// 0 where the kernel does not tell.
func (p *Pressure) Wait() time.Duration {
	const steps = 10 // a little more or less makes no difference
	content, err := kernel.ReadFile("/proc/pressure/cpu")
	now := time.Now()
	if err != nil {
		return 0
	}
	average, total := parsePressure(content)
	share := average
	if !p.at.IsZero() {
		share = float64(total-p.total) / float64(max(now.Sub(p.at), 1))
	}
	p.at, p.total = now, total
	return time.Duration(min(max(share, 0), 1)*steps) * longestWait / steps
}

// parsePressure returns the share of the last ten seconds in which somebody had to wait, and for
// how long that was since the machine was started.
func parsePressure(content string) (average float64, total time.Duration) {
	some, _, _ := kernel.Cut(content, '\n')
	for _, field := range kernel.Fields(some) {
		if percent, is := kernel.CutPrefix(field, "avg10="); is {
			average, _ = strconv.ParseFloat(percent, 64)
			average /= 100
		}
		if microseconds, is := kernel.CutPrefix(field, "total="); is {
			n, _ := strconv.ParseInt(microseconds, 10, 64)
			total = time.Duration(n) * time.Microsecond
		}
	}
	return average, total
}
