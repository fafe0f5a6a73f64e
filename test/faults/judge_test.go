//go:build linux

package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// TestRenewals: what a locker says of a renewal is understood, with and without the margin.
func TestRenewals(t *testing.T) {
	tests := []struct {
		line          string
		number        int
		valid, margin time.Duration
	}{
		{"etcdlocker: debug: lease renewed lease=7 valid_for=4.7s\n", 1, 4700 * time.Millisecond, 0},
		{"etcdlocker: debug: lease renewed lease=7 valid_for=4.2s margin=800ms took=3ms\n", 1, 4200 * time.Millisecond, 800 * time.Millisecond},
		{"etcdlocker: debug: lease renewed lease=7 valid_for=4.7s", 0, 0, 0}, // not complete
		{"etcdlocker: debug: lease renewed\n", 0, 0, 0},
		{"etcdlocker: debug: lease granted valid_for=4.7s\n", 0, 0, 0},
	}
	for _, tt := range tests {
		s := &stderr{}
		fmt.Fprint(s, tt.line)
		r := s.renewed()
		if r.number != tt.number || r.valid-r.at != tt.valid || r.margin != tt.margin {
			t.Errorf("%q: %+v", tt.line, r)
		}
	}
}

// TestDeath: what lives when etcd may free the lock is noticed, and what dies between the end of
// validity and then is measured.
func TestDeath(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name   string
		margin time.Duration
		last   time.Duration // from the renewal
		late   time.Duration
		due    bool
	}{
		{"before the end of validity", 0, 4000 * ms, -700 * ms, false},
		{"within the TTL", 0, 4990 * ms, 290 * ms, false},
		{"after the TTL", 0, 5001 * ms, 301 * ms, true},
		{"after the margin", 200 * ms, 4950 * ms, 250 * ms, true},
		{"after the TTL, whatever the margin is said to be", 800 * ms, 5001 * ms, 301 * ms, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const renewed = time.Hour
			trial := &trial{dir: t.TempDir(), ttl: 5 * time.Second, hitAt: renewed, spec: Spec{Locker: Locker{ours: true}, Faults: All()[:1]}}
			trial.holder = &player{name: "holder", stderr: &stderr{last: renewal{1, renewed, renewed + 4700*ms, tt.margin}}}
			beats := binary.LittleEndian.AppendUint64(nil, uint64(renewed-time.Second))
			beats = binary.LittleEndian.AppendUint64(beats, uint64(renewed+tt.last))
			if err := os.WriteFile(filepath.Join(trial.dir, "holder.7"), beats, 0o600); err != nil {
				t.Fatal(err)
			}
			trial.judgeDeath()
			if trial.result.Late != tt.late || trial.result.Overdue != tt.due || len(trial.result.Problems) > 0 != tt.due {
				t.Errorf("%+v", trial.result)
			}
		})
	}
}

// TestReaders: two who share the lock may run at once, and nobody beside either of them. The next
// start counts from when both are to be gone.
func TestReaders(t *testing.T) {
	const hit, told, ttl = time.Hour, time.Hour + 3*time.Second, 5 * time.Second
	for first, longest := range map[time.Duration]time.Duration{told - time.Second: time.Second, told + time.Second: 0} {
		trial := &trial{dir: t.TempDir(), ttl: ttl, hitAt: hit, told: told, holder: &player{name: "holder"}, reader: &player{name: "reader"}, spec: Spec{Faults: sharerFaults()[:1]}}
		for name, life := range map[string][2]time.Duration{"holder": {hit - 2, hit}, "reader": {hit - 1, told}, "first": {first, told + time.Minute}} {
			beats := binary.LittleEndian.AppendUint64(nil, uint64(life[0]))
			beats = binary.LittleEndian.AppendUint64(beats, uint64(life[1]))
			if err := os.WriteFile(filepath.Join(trial.dir, name+".7"), beats, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if d := trial.overlap(); d != longest {
			t.Errorf("overlap %v, want %v", d, longest)
		}
		if trial.judgeReader(); len(trial.result.Problems) > 0 != (longest > 0) {
			t.Errorf("problems: %q", trial.result.Problems)
		}
		for ended, want := range map[time.Duration][2]time.Duration{0: {hit, 7}, told: {told, 4}, hit + 9*time.Second: {hit + 9*time.Second, 2}} {
			trial.told = ended
			if from, within := trial.afterReader(hit, ttl+2*time.Second); from != want[0] || within != want[1]*time.Second {
				t.Errorf("told to end %v after the hit: from %v, within %v", ended-hit, from, within)
			}
		}
	}
}

// TestSlots: two who have different slots may run at once, and no third one beside them, nor two in
// one slot.
func TestSlots(t *testing.T) {
	const begin = time.Hour
	for _, tt := range []struct {
		first   time.Duration // when the third one starts; the first one ends after 3 s
		slot    string        // that it has
		overlap time.Duration
	}{
		{begin + 4*time.Second, "0", 0},
		{begin + 2*time.Second, "0", time.Second},
		{begin + 2*time.Second, "2", time.Second},
		{begin + 4*time.Second, "1", 6 * time.Second},
	} {
		trial := &trial{dir: t.TempDir(), slots: slots, holder: &player{name: "holder"}, reader: &player{name: "reader"}, spec: Spec{Faults: sharerFaults()[:1]}}
		for name, life := range map[string]struct {
			slot        string
			first, last time.Duration
		}{"holder": {"0", begin, begin + 3*time.Second}, "reader": {"1", begin, begin + 10*time.Second}, "first": {tt.slot, tt.first, begin + time.Minute}} {
			beats := binary.LittleEndian.AppendUint64(nil, uint64(life.first))
			beats = binary.LittleEndian.AppendUint64(beats, uint64(life.last))
			for file, content := range map[string][]byte{name + ".7": beats, "slot." + name: []byte(life.slot)} {
				if err := os.WriteFile(filepath.Join(trial.dir, file), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if d := trial.overlap(); d != tt.overlap {
			t.Errorf("slot %s from %v on: overlap %v, want %v", tt.slot, tt.first-begin, d, tt.overlap)
		}
	}
}

// TestTokens: tokens that do not grow against those who wait for a reader, or for a slot, are
// noticed.
func TestTokens(t *testing.T) {
	for _, tt := range []struct {
		slots                 int
		holder, reader, first string // the token of each, and its slot
		problems              int
	}{
		{0, "7", "7", "9", 0}, {0, "7", "9", "9", 1}, {0, "9", "8", "7", 2}, {0, "7", "7", "", 0},
		{slots, "7 0", "9 1", "8 0", 0}, {slots, "7 0", "9 1", "7 0", 1}, {slots, "7 0", "6 1", "5 1", 1}, {slots, "7 0", "6 1", "9 1", 0},
	} {
		first := &player{name: "first"}
		trial := &trial{dir: t.TempDir(), slots: tt.slots, holder: &player{name: "holder"}, reader: &player{name: "reader"}, waiters: []*player{first}}
		for name, found := range map[string]string{"holder": tt.holder, "reader": tt.reader, "first": tt.first} {
			begin := time.Hour
			if name == first.name {
				begin += time.Second
			}
			beats := binary.LittleEndian.AppendUint64(nil, uint64(begin))
			beats = binary.LittleEndian.AppendUint64(beats, uint64(begin+time.Minute))
			token, slot, _ := strings.Cut(found, " ")
			for file, content := range map[string]string{name + ".7": string(beats), "slot." + name: slot, "token." + name: token} {
				if err := os.WriteFile(filepath.Join(trial.dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if trial.judgeTokens(); len(trial.result.Problems) != tt.problems {
			t.Errorf("%+v: %q", tt, trial.result.Problems)
		}
	}
}

// TestStarved: a loss tells nothing where there was no time to renew, and something where there
// was.
func TestStarved(t *testing.T) {
	const ttl = 5 * time.Second
	second := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	tests := []struct {
		name    string
		fault   Fault
		says    string
		stall   stall // counted from the renewal
		starved bool
	}{
		{"etcd stood still", Fault{outcome: keeps}, "lost: " + unrenewed, stall{second(1), second(4)}, true},
		{"for a moment", Fault{outcome: keeps}, "lost: " + unrenewed, stall{second(3), second(3.4)}, false},
		{"for a moment, and a member is silent", Fault{outcome: keeps, need: need{size: 3}}, "lost: " + unrenewed, stall{second(3), second(3.4)}, true},
		{"before a renewal was due", Fault{outcome: keeps}, "lost: " + unrenewed, stall{second(-3), second(2)}, false},
		{"that is the fault", Fault{outcome: loses, need: need{alone: true}}, "lost: " + unrenewed, stall{second(1), second(4)}, false},
		{"it loses anyway", Fault{outcome: loses}, "lost: " + unrenewed, stall{second(1), second(4)}, false},
		{"a waiter's place", Fault{outcome: keeps}, placeLost, stall{second(1), second(4)}, true},
		{"a waiter's place, by the fault", Fault{outcome: keeps, waiters: true}, placeLost, stall{second(1), second(4)}, false},
		{"lost for another reason", Fault{outcome: keeps}, "lost: its key was deleted", stall{second(1), second(4)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &player{stderr: &stderr{}}
			fmt.Fprintf(p.stderr, "etcdlocker: debug: lease renewed valid_for=4.7s\netcdlocker: debug: lock lost\n")
			renewed := p.stderr.beforeLoss().at
			fmt.Fprintf(p.stderr, "etcdlocker: debug: lease renewed valid_for=4.6s\netcdlocker: error: lock %s\n", tt.says)
			if r := p.stderr.beforeLoss(); r.number != 1 || r.at != renewed {
				t.Errorf("before the loss: %+v", r)
			}
			trial := &trial{line: &line{}, suite: &suite{pace: &pace{last: forever}}, world: &world{pace: &pace{last: forever}}, ttl: ttl, holder: p, spec: Spec{Faults: []Fault{tt.fault}}}
			trial.world.pace.stalls = []stall{{renewed + tt.stall.from, renewed + tt.stall.to}}
			if trial.starved() != tt.starved {
				t.Errorf("starved: %v", !tt.starved)
			}
			trial.world.pace.slow = []stall{{renewed + second(3), renewed + second(3.2)}}
			if !trial.starved() && strings.Contains(tt.says, unrenewed) && tt.fault.outcome != loses {
				t.Error("an etcd that is slow makes no difference")
			}
			trial.world.pace.slow, trial.logins = nil, &pace{last: forever, slow: []stall{{renewed + second(3), renewed + second(3.5)}}}
			if !trial.starved() && strings.Contains(tt.says, unrenewed) && tt.fault.outcome != loses {
				t.Error("logins that are slow make no difference")
			}
			trial.logins, p.delay = nil, &runDelay{notes: []delayNote{{renewed + second(2), 0}, {renewed + second(3), second(1)}}}
			if !trial.starved() && strings.Contains(tt.says, unrenewed) && tt.fault.outcome != loses {
				t.Error("a locker that waits for a processor makes no difference")
			}
		})
	}
}

// TestStarvedAfterTheFault: where the fault is that etcd does not answer, it is to blame for what
// was lost until it was mended, and not for what was lost after that.
func TestStarvedAfterTheFault(t *testing.T) {
	p := &player{stderr: &stderr{}}
	fmt.Fprintf(p.stderr, "etcdlocker: debug: lease renewed valid_for=4.7s\netcdlocker: debug: lock lost\netcdlocker: error: lock lost: "+unrenewed)
	renewed := p.stderr.beforeLoss().at
	trial := &trial{line: &line{}, suite: &suite{pace: &pace{last: forever}}, world: &world{pace: &pace{last: forever}}, ttl: 5 * time.Second, holder: p,
		spec: Spec{Faults: []Fault{{need: need{alone: true}}}}}
	trial.world.pace.stalls = []stall{{renewed + time.Second, renewed + 4*time.Second}}
	for mended, starved := range map[time.Duration]bool{0: false, renewed + 4*time.Second: false, renewed + time.Second: true} {
		if trial.mended = mended; trial.starved() != starved {
			t.Errorf("mended %v after the renewal, starved: %v", mended-renewed, !starved)
		}
	}
}

// TestStarvedWaiter: a waiter keeps its place if it can renew its lease within a TTL after etcd is
// back, whenever that is. Where logins take too long for that, its loss tells nothing.
func TestStarvedWaiter(t *testing.T) {
	p := &player{stderr: &stderr{}}
	fmt.Fprintf(p.stderr, "etcdlocker: debug: lease renewed valid_for=4.7s\netcdlocker: warning: %s\n", placeLost)
	renewed := p.stderr.beforeLoss().at
	trial := &trial{line: &line{}, suite: &suite{pace: &pace{last: forever}}, world: &world{pace: &pace{last: forever}}, ttl: 5 * time.Second, waiters: []*player{p},
		spec: Spec{Faults: []Fault{{need: need{alone: true}}}}}
	for _, mended := range []time.Duration{0, renewed + 3*time.Second, renewed + 6*time.Second} {
		for login, starved := range map[time.Duration]bool{time.Second: false, 3 * time.Second: mended != 0} {
			trial.mended, trial.logins = mended, &pace{last: forever, slow: []stall{{mended + time.Second, mended + time.Second + login}}}
			if trial.starved() != starved {
				t.Errorf("mended %v after the renewal, a login takes %v: starved: %v", mended-renewed, login, !starved)
			}
		}
	}
}

// TestNeverRenewed: a lease that was never renewed was granted before its contender stood in line.
func TestNeverRenewed(t *testing.T) {
	const started, stood, ttl = time.Hour, time.Hour + time.Second, 5 * time.Second
	trial := &trial{dir: t.TempDir(), ttl: ttl, line: &line{all: []*standing{{id: "first", since: started}, {id: "first", since: stood}}}}
	for name, at := range map[string]time.Duration{"first": stood, "second": started} {
		if r := trial.lastOf(&player{name: name, started: started}, renewal{}); r.at != at || r.valid != at+ttl-leastMargin {
			t.Errorf("%s: at %v, until %v, want %v", name, r.at, r.valid, at)
		}
	}
}

// TestPace: what shows no sign is noticed, also while that lasts.
func TestPace(t *testing.T) {
	asleep := make(chan struct{})
	p := newPace(time.Millisecond, 20*time.Millisecond, func(ctx context.Context) error {
		select {
		case <-asleep:
			<-ctx.Done()
			return ctx.Err()
		default:
			return nil
		}
	})
	t.Cleanup(p.close)
	begun := beat.Now()
	close(asleep)
	for p.stalled(begun, forever) < 50*time.Millisecond {
		if beat.Now()-begun > time.Minute {
			t.Fatal("a stall is not noticed")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestPlan: a short plan has one of all faults that are alike, and nothing heavy; a heavy one has
// all rows, also in pairs.
func TestPlan(t *testing.T) {
	for _, heavy := range []bool{false, true} {
		plan, err := Plan(Options{Heavy: heavy, Trials: map[bool]int{true: 4000}[heavy]}, programs.Etcdlocker)
		if err != nil {
			t.Fatal(err)
		}
		rows, paired := map[string]int{}, map[string]int{}
		for _, spec := range plan {
			if len(spec.Faults) == 1 {
				rows[spec.Faults[0].among(!heavy)]++
			}
			for _, f := range spec.Faults {
				if len(spec.Faults) > 1 {
					paired[f.inRow()]++
				}
				if f.heavy && !heavy {
					t.Errorf("%q is heavy", f.Name)
				}
			}
		}
		for _, f := range All() {
			least := 1
			if heavy {
				least = 20
			}
			if row := f.among(!heavy); rows[row] < least && (heavy || !f.heavy) {
				t.Errorf("row %q has %d trials", row, rows[row])
			}
			if row := f.inRow(); heavy && paired[row] == 0 && slices.ContainsFunc(All(), f.goesWith) {
				t.Errorf("row %q has no pair", row)
			}
		}
	}
}
