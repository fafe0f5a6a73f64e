//go:build linux

package faults

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"time"
)

// clockFaults are suspends of the machine, as far as its processes can tell: the clock that goes on
// in suspend is ahead all at once. What etcd does meanwhile they leave out: the lock does not go to
// anybody before it is released.
func clockFaults() []Fault {
	return with([]Fault{
		{Name: "suspended past the lease", outcome: loses, code: 2, says: unrenewed, hit: sleeps(func(t *trial) time.Duration {
			return t.ttl + time.Duration(t.rng.Int64N(int64(time.Hour)))
		})},
		{Name: "suspended, not for long", outcome: keeps, prepare: renewsOften, hit: sleeps(leavesTime)},
		{Name: "suspended, for some time", hit: sleeps(atRandom)},
	}, func(f *Fault) {
		before := f.prepare
		f.what, f.prepare = "the clock", func(t *trial) {
			hasClock(t)
			if before != nil {
				before(t)
			}
		}
	})
}

// hasClock gives the holder a clock that can be put forward.
func hasClock(t *trial) {
	t.holder.file = t.suite.programs.shifted()
	t.holder.vars = append(t.holder.vars, "ETCDLOCK_SHIFTED_CLOCK="+t.clock())
	t.require(os.WriteFile(t.clock(), make([]byte, 8), 0o600))
	t.own(t.clock())
}

func (t *trial) clock() string { return filepath.Join(t.dir, "clock") }

func sleeps(long func(*trial) time.Duration) func(*trial) func() {
	return func(t *trial) func() {
		f, err := os.OpenFile(t.clock(), os.O_WRONLY, 0)
		t.require(err)
		defer f.Close()
		var b [8]byte
		t.shift, t.shiftedAt = long(t), t.now()
		binary.LittleEndian.PutUint64(b[:], uint64(t.shift))
		_, err = f.WriteAt(b[:], 0)
		t.require(err)
		return nil
	}
}
