//go:build linux

package taking

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/test/programs"
)

// inSlot is a command that says which slot it has, until it is told to stop.
var inSlot = []string{"--", "sh", "-c", `echo "runs $ETCDLOCK_HELD_MODE $ETCDLOCK_HELD_SLOT"; trap exit TERM; while :; do sleep 0.05; done`}

// slotOf waits until a command says which slot it has.
func slotOf(t *testing.T, p *programs.Run) string {
	t.Helper()
	p.Says(p.Stdout, "runs slots ")
	p.Says(p.Stdout, "\n")
	return strings.TrimSuffix(strings.TrimPrefix(p.Stdout.String(), "runs slots "), "\n")
}

// fill starts a command for each of some ids, which takes a slot, and returns them by their slots.
func fill(t *testing.T, s *etcdtest.Server, vars []string, ids string, options ...string) (all []*programs.Run, slots map[string]*programs.Run) {
	t.Helper()
	slots = make(map[string]*programs.Run)
	for _, id := range strings.Fields(ids) {
		p := programs.Start(t, vars, "etcdlocker", slices.Concat([]string{"-e", s.Endpoint(), "-i", id}, options, inSlot)...)
		slots[slotOf(t, p)] = p
		all = append(all, p)
	}
	return all, slots
}

// TestSlots: as many commands as there are slots run at once, each in another one, and who comes
// later waits in turn for one of them. Who waits, and who only tries, is told who has the slots.
func TestSlots(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	for _, keys := range [][]string{{"/slots/one"}, {"/slots/two-1", "/slots/two-2"}} {
		options := append(programs.Keys(keys...), "--slots", "4")
		inside, slots := fill(t, s, nil, "a b c d", options...)
		for i := range 4 {
			if slots[strconv.Itoa(i)] == nil {
				t.Errorf("nobody has slot %d: %v", i, slots)
			}
		}
		saysMode(t, s, keys[0]+"/", record.Record{Mode: "slots", Slots: 4}, 4)
		const who = `("a", "b", "c" and 1 more)`
		p := programs.Locker(t, s.Endpoint(), append(options, "--try", "--conflict-exit-code", "75", "true")...)
		if code := p.Code(); code != 75 || !strings.HasPrefix(p.Said(), `etcdlocker: error: no slot of lock "`+keys[0]+`" is free: 4 of 4 are taken `+who+"\netcdlocker: hint: ") || !strings.Contains(p.Said(), "; etcdlockctl show ") {
			t.Errorf("--try: exit code %d, %q", code, p.Stderr)
		}
		says := `waiting for lock "` + keys[0] + `": 4 of 4 slots are taken ` + who + ", place "
		if len(keys) > 1 {
			says = `waiting for locks "` + keys[0] + `" and "` + keys[1] + `": 4 of 4 slots of "` + keys[0] + `" are taken ` + who + ", place "
		}
		var waiting []*programs.Run
		for i, id := range []string{"first", "second"} {
			p := programs.Locker(t, s.Endpoint(), slices.Concat([]string{"-i", id}, options, inSlot)...)
			p.Says(p.Stderr, says)
			p.Says(p.Stderr, fmt.Sprintf(", place %d in line\n", i+1))
			waiting = append(waiting, p)
		}
		for i, p := range waiting {
			if p.Stdout.String() != "" {
				t.Error("one more than there are slots runs")
			}
			freed := slotOf(t, inside[i])
			inside[i].Stop()
			if got := slotOf(t, p); got != freed {
				t.Errorf("it runs in slot %s, and %s was free", got, freed)
			}
		}
		for _, p := range append(inside[2:], waiting...) {
			p.Stop()
		}
	}
	s.Empty(t)
}

// TestSlotsAtOnce: of many that come and go no two are ever in one slot, and all get their turns.
func TestSlotsAtOnce(t *testing.T) {
	t.Parallel()
	s, dir := etcdtest.Shared(t), t.TempDir()
	const script = `mkdir "$0/$ETCDLOCK_HELD_SLOT" || exit 9; [ "$ETCDLOCK_HELD_SLOT" -lt 3 ] || exit 8; sleep 0.02; rmdir "$0/$ETCDLOCK_HELD_SLOT"`
	var all []*programs.Run
	for range 15 {
		all = append(all, programs.Locker(t, s.Endpoint(), "-k", "/slots/at-once", "--slots", "3", "-t", "60", "--", "sh", "-c", script, dir))
	}
	for _, p := range all {
		if code := p.Code(); code != 0 {
			t.Errorf("exit code %d, %q", code, p.Stderr)
		}
	}
	programs.CheckFree(t, s.Client(t), "/slots/at-once")
}

// TestSlotsKilled: the slot of a holder that was killed together with its guard, or without it, is
// free when its lease runs out, and no sooner. The other holder keeps its own.
func TestSlotsKilled(t *testing.T) {
	t.Parallel()
	for name, alsoGuard := range map[string]bool{"alone": false, "with-its-guard": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, key := etcdtest.Shared(t), "/slots/killed-"+name
			options := []string{"-k", key, "--slots", "2", "-t", "4"}
			words := slices.Concat([]string{"-e", s.Endpoint()}, options, []string{"--", "sh", "-c", `echo "runs slots $ETCDLOCK_HELD_SLOT"; echo $$ > "$0"; trap '' TERM; while :; do sleep 0.05; done`})
			file := filepath.Join(t.TempDir(), "pid")
			killed := programs.Start(t, []string{"XDG_RUNTIME_DIR=" + t.TempDir()}, "etcdlocker", append(words, file)...)
			slot, command := slotOf(t, killed), programs.AwaitFile(t, file)
			other, _ := fill(t, s, nil, "other", options...)
			lease := etcdtest.Keys(t, s.Client(t), key+"/=2#"+slot)[0].Lease
			next := programs.Locker(t, s.Endpoint(), slices.Concat(options, inSlot)...)
			next.Says(next.Stderr, "place 1 in line\n")
			if alsoGuard {
				killed.Signal(syscall.SIGSTOP) // so that it cannot act between the two
				syscall.Kill(programs.GuardOf(t, killed), syscall.SIGKILL)
			}
			killed.Signal(syscall.SIGKILL)
			if got := slotOf(t, next); got != slot || programs.HasLease(t, s.Client(t), lease) {
				t.Errorf("the next one runs in slot %s, that of the killed one is %s, and has a lease: %v", got, slot, programs.HasLease(t, s.Client(t), lease))
			}
			if _, err := os.Stat("/proc/" + command); err == nil {
				t.Error("the next one runs beside the one whose slot it has")
			}
			select {
			case <-other[0].Done:
				t.Errorf("the other holder has ended: %q", other[0].Stderr)
			default:
			}
			other[0].Stop()
			next.Stop()
			programs.CheckFree(t, s.Client(t), key)
		})
	}
}

// TestSlotsOnATerminal: there the line is kept up to date.
func TestSlotsOnATerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/slots/terminal"
	inside, _ := fill(t, s, nil, "a b", "-k", key, "--slots", "2")
	later := slices.Concat([]string{"-i", "c", "-k", key, "--slots", "2"}, inSlot)
	c := programs.Locker(t, s.Endpoint(), later...)
	c.Says(c.Stderr, "place 1 in line")
	waiter := programs.OnTerminal(t, 200, s.Endpoint(), "-k", key, "--slots", "2", "echo", "ran")
	const says = `etcdlocker: waiting for lock "/slots/terminal": 2 of 2 slots are taken `
	waiter.Says(waiter.Stdout, says+`("a", "b"), place 2 in line`)
	inside[0].Stop()
	waiter.Says(waiter.Stdout, says+`("b", "c"), place 1 in line`)
	inside[1].Stop()
	code, shown := waiter.Code(), waiter.Shown()
	if code != 0 || !strings.HasSuffix(shown, "\r\x1b[Kran\r\n") || strings.Count(shown, "\n") != 1 {
		t.Errorf("exit code %d, it shows %q", code, shown)
	}
	c.Stop()
}

// TestSlotsInTheEnvironment: the command finds the mode and its slot, of each key, and so does what
// looks after it. None is there of another lock.
func TestSlotsInTheEnvironment(t *testing.T) {
	t.Parallel()
	s, again := etcdtest.Start(t), programs.Path("etcdlocker")
	client := s.Client(t)
	file, check := filepath.Join(t.TempDir(), "go"), filepath.Join(t.TempDir(), "check")
	keys := []string{"/a", "/b"}
	p := programs.Locker(t, s.Endpoint(), append(programs.Keys(keys...), "--slots", "7", "-r", "0.1", "--pulse-cmd", `echo "$ETCDLOCK_HELD_SLOT $ETCDLOCK_HELD" > `+check, "--", "sh", "-c",
		`echo "$ETCDLOCK_HELD_SLOT $ETCDLOCK_HELD"; echo "$ETCDLOCK_HELD_REV $ETCDLOCK_HELD_MODE $ETCD_LOCK_REV"; while [ ! -e "$0" ]; do sleep 0.05; done`, file)...)
	p.Says(p.Stdout, " slots ")
	p.Says(p.Stdout, "\n")
	lines := strings.Split(p.Stdout.String(), "\n")
	first, list, _ := strings.Cut(lines[0], " ")
	var found []heldLock
	if err := json.Unmarshal([]byte(list), &found); err != nil || len(found) != len(keys) {
		t.Fatalf("%q: %v", list, err)
	}
	for i, key := range keys {
		slots := etcdtest.Keys(t, client, key+"/=7#")
		if one := found[i]; one.Key != key || one.Mode != "slots" || one.Slot == nil || len(slots) != 1 ||
			string(slots[0].Key) != fmt.Sprint(key, "/=7#", *one.Slot) || slots[0].ModRevision != one.Token {
			t.Errorf("it finds %+v of %q, and in etcd is %q", one, key, slots)
		}
	}
	if rev := strconv.FormatInt(found[0].Token, 10); first != strconv.Itoa(*found[0].Slot) || lines[1] != rev+" slots "+rev {
		t.Errorf("it finds %q and %q of the first", first, lines[1])
	}
	if got := programs.AwaitFile(t, check); got != lines[0] {
		t.Errorf("the check finds %q, and the command %q", got, lines[0])
	}
	programs.Create(t, file)
	if code := p.Code(); code != 0 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	says := []string{"sh", "-c", `echo "$ETCDLOCK_HELD_MODE ${ETCDLOCK_HELD_SLOT-none} $ETCDLOCK_HELD" | sed 's/"token":[0-9]*/T/'`}
	for name, one := range map[string]struct{ options, want string }{
		"exclusive": {"", `exclusive none [{"key":"/k",T,"mode":"exclusive"}]`},
		"shared":    {"-s", `shared none [{"key":"/k",T,"mode":"shared"}]`},
		"one slot":  {"--slots 1", `exclusive none [{"key":"/k",T,"mode":"exclusive"}]`},
		"below":     {"--slots 2 -- " + again + " -k /k/2", `exclusive none [{"key":"/k/2",T,"mode":"exclusive"}]`},
	} {
		p := programs.Locker(t, s.Endpoint(), slices.Concat([]string{"-k", "/k"}, strings.Fields(one.options), says)...)
		if code := p.Code(); code != 0 || p.Stdout.String() != one.want+"\n" {
			t.Errorf("%s: exit code %d, %q, %q", name, code, p.Stdout, p.Stderr)
		}
	}
	s.Empty(t)
}

// TestSlotsByVariable: it is about the key that comes from the environment, and no other, and is
// not handed on.
func TestSlotsByVariable(t *testing.T) {
	t.Parallel()
	s, again := etcdtest.Shared(t), programs.Path("etcdlocker")
	says := []string{"sh", "-c", `echo "$ETCDLOCK_HELD_MODE${ETCD_LOCK_SLOTS-}"`}
	for name, one := range map[string]struct {
		args []string
		want string
	}{
		"its key":                      {nil, "slots"},
		"its key, and -s":              {[]string{"-s"}, "shared"},
		"its key, and -x":              {[]string{"-x"}, "exclusive"},
		"its key, and another size":    {[]string{"--slots", "1"}, "exclusive"},
		"another key":                  {[]string{"-k", "/slots/another"}, "exclusive"},
		"another one below":            {[]string{"--", again, "-k", "/slots/below"}, "exclusive"},
		"a key in the variable, below": {[]string{"--", "env", "ETCD_LOCK_KEY=/slots/in-variable", again}, "exclusive"},
	} {
		key := "/slots/by-variable/" + strings.ReplaceAll(name, " ", "-")
		vars := []string{"ETCD_LOCK_KEY=" + key, "ETCD_LOCK_SLOTS=3", "ETCD_LOCK_HOST=" + s.Endpoint()}
		p := programs.Start(t, vars, "etcdlocker", append(one.args, says...)...)
		if code := p.Code(); code != 0 || p.Stdout.String() != one.want+"\n" {
			t.Errorf("%s: exit code %d, %q, %q", name, code, p.Stdout, p.Stderr)
		}
	}
}

// TestSlotsAndNested: who asks for a slot below the holder of another one gets it if one is free.
// If none is, it would wait for itself, and is told so.
func TestSlotsAndNested(t *testing.T) {
	t.Parallel()
	s, again := etcdtest.Shared(t), programs.Path("etcdlocker")
	const key, nested = "/slots/nested", "is already held by the command that asks for it"
	options := []string{"-k", key, "--slots", "2"}
	below := func(outer []string, words ...string) *programs.Run {
		return programs.Locker(t, s.Endpoint(), slices.Concat(outer, []string{"--", again}, words)...)
	}
	if p := below(options, append(options, "echo", "ran")...); p.Code() != 0 || p.Stdout.String() != "ran\n" {
		t.Errorf("another one is free: %q, %q", p.Stdout, p.Stderr)
	}
	if p := below(options, append(options, slices.Concat([]string{"--", again}, options, []string{"echo", "ran"})...)...); p.Code() != 1 || p.Stdout.String() != "" || !strings.Contains(p.Stderr.String(), nested) {
		t.Errorf("none is free: %q, %q", p.Stdout, p.Stderr)
	}
	other, _ := fill(t, s, nil, "other", options...)
	if p := below(options, append(options, "--conflict-exit-code", "75", "echo", "ran")...); p.Code() != 75 || p.Stdout.String() != "" || !strings.Contains(p.Stderr.String(), nested) {
		t.Errorf("another command has the other one: %q, %q", p.Stdout, p.Stderr)
	}
	// Also where it does not run below, as in a session of its own.
	outer := programs.Locker(t, s.Endpoint(), append(options, "--", "sh", "-c", `env | grep '^ETCD'; echo .; exec sleep 1000`)...)
	outer.Says(outer.Stdout, "\n.\n")
	env := strings.Split(strings.TrimSuffix(outer.Stdout.String(), "\n.\n"), "\n")
	if p := programs.Start(t, env, "etcdlocker", append(options, "echo", "ran")...); p.Code() != 1 || !strings.Contains(p.Stderr.String(), nested) {
		t.Errorf("by its environment: %q, %q", p.Stdout, p.Stderr)
	}
	outer.Stop()
	if p := below(options, "-k", key, "echo", "ran"); p.Code() != 1 || !strings.Contains(p.Stderr.String(), "asked for as an exclusive lock") {
		t.Errorf("in another mode: %q, %q", p.Stdout, p.Stderr)
	}
	other[0].Stop()
	programs.CheckFree(t, s.Client(t), key)
}

// TestSlotsTakeover: what a killed holder had is taken at once by who waits for a slot on the same
// machine, or tries to get one. The holder of another slot keeps it.
func TestSlotsTakeover(t *testing.T) {
	t.Parallel()
	for _, keys := range [][]string{{"/slots/takeover"}, {"/slots/takeover-1", "/slots/takeover-2"}} {
		for _, try := range []bool{false, true} {
			s, runDir := etcdtest.Shared(t), t.TempDir()
			vars := []string{"XDG_RUNTIME_DIR=" + runDir}
			options := append(programs.Keys(keys...), "--slots", "2", "-t", "300")
			inside, _ := fill(t, s, vars, "stays crashes", options...)
			words := slices.Concat([]string{"-e", s.Endpoint()}, options, []string{"echo", "ran"})
			if try {
				inside[1].Signal(syscall.SIGKILL)
				etcdtest.Await(t, "the attestation", func(context.Context) error { return attestations(runDir, 1) })
				words = slices.Insert(words, 0, "--try")
			}
			next := programs.Start(t, vars, "etcdlocker", words...)
			if !try {
				next.Says(next.Stderr, "place 1 in line")
				inside[1].Signal(syscall.SIGKILL)
			}
			begun := time.Now()
			if code := next.Code(); code != 0 || next.Stdout.String() != "ran\n" || !strings.Contains(next.Stderr.String(), tookOver) {
				t.Errorf("exit code %d, %q", code, next.Stderr)
			}
			if took := time.Since(begun); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			inside[0].Stop()
			if said := inside[0].Stderr.String(); !strings.Contains(said, "SIGTERM") {
				t.Errorf("the other one said %q", said)
			}
			programs.CheckFree(t, s.Client(t), keys...)
		}
	}
}

// TestSlotsInAnotherMode: who wants the lock otherwise than those who use it is told so, with the
// exit code 1, and leaves nothing.
func TestSlotsInAnotherMode(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client := s.Client(t)
	modes := []struct{ options, as string }{
		{"", "as an exclusive lock"},
		{"-s", "as a shared lock"},
		{"--slots 3", "as a semaphore of 3"},
		{"--slots 12", "as a semaphore of 12"},
	}
	for _, keys := range [][]string{{"/m"}, {"/m", "/n"}} {
		for i, have := range modes {
			holder := programs.Locker(t, s.Endpoint(), slices.Concat(programs.Keys(keys...), []string{"-i", "host-a"}, strings.Fields(have.options), untilStopped)...)
			holder.Says(holder.Stdout, "runs ")
			there := len(etcdtest.Keys(t, client, ""))
			for j, want := range modes {
				if i == j || i < 2 && j < 2 {
					continue
				}
				for _, how := range []string{"--conflict-exit-code=75", "--try"} {
					p := programs.Locker(t, s.Endpoint(), slices.Concat(programs.Keys(keys...), []string{how}, strings.Fields(want.options), []string{"echo", "ran"})...)
					says := fmt.Sprintf("etcdlocker: error: lock %q is used %s, by \"host-a\"; it was asked for %s\netcdlocker: hint: give all its users the same --slots, or use another key; etcdlockctl show -e %s /m says who is there\n", "/m", have.as, want.as, s.Endpoint())
					if code := p.Code(); code != 1 || p.Said() != says || p.Stdout.String() != "" {
						t.Errorf("%q, %s: exit code %d, %q, want %q", keys, how, code, p.Stderr, says)
					}
				}
			}
			if left := len(etcdtest.Keys(t, client, "")); left != there {
				t.Errorf("%d keys are there, and were %d", left, there)
			}
			holder.Stop()
		}
	}
	s.Empty(t)
}

// TestSlotsBesideAMutex: etcdctl lock, which is a Mutex of etcd's, waits for all who are in line
// for a slot, and they wait for it.
func TestSlotsBesideAMutex(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	const key = "/slots/mutex"
	session, err := concurrency.NewSession(s.Client(t), concurrency.WithTTL(60))
	if err != nil {
		t.Fatal(err)
	}
	mutex := concurrency.NewMutex(session, key)
	inside, _ := fill(t, s, nil, "a b", "-k", key, "--slots", "3")
	if err := mutex.TryLock(etcdtest.Context(t)); !errors.Is(err, concurrency.ErrLocked) {
		t.Errorf("the Mutex beside holders of slots: %v", err)
	}
	got := make(chan error, 1)
	go func() { got <- mutex.Lock(etcdtest.Context(t)) }()
	awaitStrangers(t, s.Client(t), key, 1)
	later := programs.Locker(t, s.Endpoint(), slices.Concat([]string{"-k", key, "--slots", "3"}, inSlot)...)
	later.Says(later.Stderr, `2 of 3 slots are taken ("a", "b"), place `)
	later.Says(later.Stderr, "place 2 in line\n")
	if p := programs.Locker(t, s.Endpoint(), "-k", key, "--slots", "3", "--try", "true"); p.Code() != 1 || !strings.Contains(p.Stderr.String(), "somebody stands in line for it, or has it in another way, and 2 of 3 slots are taken") {
		t.Errorf("--try: %q", p.Stderr)
	}
	for _, p := range inside {
		select {
		case err := <-got:
			t.Fatalf("the Mutex is held beside a slot: %v", err)
		default:
		}
		p.Stop()
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if later.Stdout.String() != "" {
		t.Error("a slot is held beside the Mutex")
	}
	if err := mutex.Unlock(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	slotOf(t, later)
	later.Stop()
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	s.Empty(t)
}

// awaitStrangers waits until there are so many places of others than ours in line.
func awaitStrangers(t *testing.T, client *clientv3.Client, key string, want int) {
	t.Helper()
	etcdtest.Await(t, "the places of others", func(context.Context) error {
		n := 0
		for _, kv := range etcdtest.Keys(t, client, key+"/") {
			if !strings.ContainsAny(strings.TrimPrefix(string(kv.Key), key+"/"), "=~-") {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}

// TestSlotsLost: whoever loses a slot is stopped, with its command, and says how it was lost. The
// others go on.
func TestSlotsLost(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	const key = "/slots/lost"
	for _, what := range []struct{ end, says string }{{"#", "its slot was deleted"}, {".", "its place in line was deleted"}} {
		inside, _ := fill(t, s, nil, "a b", "-k", key, "--slots", "2")
		kv := etcdtest.Keys(t, s.Client(t), key+"/=2"+what.end)[0]
		if _, err := s.Client(t).Delete(etcdtest.Context(t), string(kv.Key)); err != nil {
			t.Fatal(err)
		}
		lost, other := inside[0], inside[1]
		if id := string(kv.Value); id != "a" && !strings.Contains(id, `"id":"a"`) {
			lost, other = other, lost
		}
		if code := lost.Code(); code != 2 || !strings.Contains(lost.Stderr.String(), what.says) {
			t.Errorf("exit code %d, %q", code, lost.Stderr)
		}
		select {
		case <-other.Done:
			t.Errorf("the other has ended: %q", other.Stderr)
		default:
		}
		other.Stop()
		s.Empty(t)
	}
}

// TestSlotOverwritten: who is stopped because somebody has overwritten its slot names that key.
func TestSlotOverwritten(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	inside, _ := fill(t, s, nil, "a b", "-k", "/one", "-k", "/two", "--slots", "2")
	slot := etcdtest.Keys(t, s.Client(t), "/two/=2#")[0]
	if _, err := s.Client(t).Put(etcdtest.Context(t), string(slot.Key), "by hand", clientv3.WithIgnoreLease()); err != nil {
		t.Fatal(err)
	}
	lost, other := inside[0], inside[1]
	if string(slot.Value) != "a" {
		lost, other = other, lost
	}
	says := fmt.Sprintf("hint: somebody changed the key %q to stop this holder; ", slot.Key)
	if code := lost.Code(); code != 2 || !strings.Contains(lost.Stderr.String(), says) {
		t.Errorf("exit code %d, %q", code, lost.Stderr)
	}
	other.Stop()
	s.Empty(t)
}

// TestSlotWithoutACommand: what holds a slot, and has no command, prints which one.
func TestSlotWithoutACommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	p := programs.Locker(t, s.Endpoint(), "-k", "/one", "-k", "/two", "--slots", "3")
	p.Says(p.Stdout, "\n/two ")
	var want strings.Builder
	for _, key := range []string{"/one", "/two"} {
		slot := etcdtest.Keys(t, s.Client(t), key+"/=3#")[0]
		fmt.Fprintf(&want, "%s %d %s\n", key, slot.ModRevision, strings.TrimPrefix(string(slot.Key), key+"/=3#"))
	}
	if p.Stop(); p.Stdout.String() != want.String() {
		t.Errorf("it prints %q, want %q", p.Stdout, want.String())
	}
	s.Empty(t)
}
