//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/validity"
	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// A trial is one run of a Spec.
type trial struct {
	suite *suite
	spec  Spec
	rng   *rand.Rand
	ctx   context.Context // bounds what the trial itself asks of etcd

	dir, key string
	ttl      time.Duration
	grace    time.Duration // of the holder
	kind     string        // of the commands
	world    *world
	client   *clientv3.Client
	holder   *player
	waiters  []*player
	line     *line
	ledger   *ledger
	through  int // the member that the holder renews through, where it knows just one

	mends           []*mend
	hitAt, mendedAt time.Duration
	heldUntil       time.Duration // at the hit: when the lock would be doubtful without a renewal
	next            *beat.Life    // the command that started after the hit, if one did before the end
	result          Result
}

// settleWithin bounds what has to happen for a trial to be one at all.
const settleWithin = 90 * time.Second

// A failure ends a trial that cannot go on.
type failure struct{ err error }

// require ends the trial if err is not nil.
func (t *trial) require(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// problem notes that something is not as it should be.
func (t *trial) problem(format string, args ...any) {
	t.result.Problems = append(t.result.Problems, fmt.Sprintf(format, args...))
}

// now is the present instant, on the clock of the hearts.
func (t *trial) now() time.Duration { return beat.Now() }

// await calls done until it is true, at most for so long, and reports whether it was.
func (t *trial) await(most time.Duration, done func() bool) bool {
	for end := t.now() + most; ; time.Sleep(10 * time.Millisecond) {
		if done() {
			return true
		}
		if t.now() > end {
			return false
		}
	}
}

// run runs the trial, and leaves nothing of it behind whatever happens.
func (t *trial) run(tb testing.TB) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			t.problem("it could not go on: %v", p.err)
		default:
			panic(p)
		}
		t.clear()
	}()
	t.prepare(tb)
	t.begin()
	t.strike()
	t.observe()
	t.finish()
	t.judge()
}

// prepare makes what the players need.
func (t *trial) prepare(tb testing.TB) {
	h := fnv.New64a()
	h.Write([]byte(t.spec.Name()))
	t.rng = rand.New(rand.NewPCG(t.spec.Seed, h.Sum64()))
	t.ttl, t.kind = 5*time.Second, "plain"
	if len(t.spec.Faults) > 1 && !t.any(func(f Fault) bool { return f.bare }) && t.rng.IntN(2) == 0 {
		t.kind = kinds[t.rng.IntN(len(kinds))]
	}
	var err error
	t.dir, err = os.MkdirTemp("", "faults-") // short: there is a socket in it
	t.require(err)
	t.key = "/faults/" + filepath.Base(t.dir)
	t.client = etcdtest.Dial(tb, t.world.config)
	if !t.await(settleWithin, t.answers) {
		t.require(errors.New("etcd does not answer"))
	}
	t.holder = t.player(tb, "holder")
	t.waiters = []*player{t.player(tb, "first"), t.player(tb, "second")}
	for _, f := range t.spec.Faults {
		if f.kind != "" {
			t.kind = f.kind
		}
		if f.prepare != nil {
			f.prepare(t)
		}
	}
	if t.grace == 0 {
		t.grace = validity.DefaultGrace(t.ttl)
	}
	t.line, err = watch(t.ctx, t.client, t.key)
	t.require(err)
	if t.spec.Locker.ours {
		t.ledger, err = keep(t.ctx, t.client, t.key, filepath.Join(t.dir, "ledger"))
		t.require(err)
	}
}

// answers reports whether etcd, which may have been through another trial, is well.
func (t *trial) answers() bool {
	ctx, cancel := context.WithTimeout(t.ctx, ledgerLimit)
	defer cancel()
	_, err := t.client.Get(ctx, t.key)
	return err == nil
}

func (t *trial) player(tb testing.TB, name string) *player {
	p := &player{name: name}
	for _, m := range t.world.members {
		p.links = append(p.links, etcdtest.NewLink(tb, m.Endpoint()))
	}
	return p
}

func (t *trial) players() []*player { return append([]*player{t.holder}, t.waiters...) }

// begin lets the holder get the lock, and the waiters stand in line one after the other.
func (t *trial) begin() {
	oneMachine := t.rng.IntN(2) == 0
	for i, p := range t.players() {
		machine := filepath.Join(t.dir, "run")
		if !oneMachine { // each is by itself, as far as files tell
			machine = filepath.Join(t.dir, "run-"+p.name)
		}
		if err := os.Mkdir(machine, 0o700); !errors.Is(err, os.ErrExist) {
			t.require(err)
		}
		job := Job{Endpoints: p.endpoints(), Key: t.key, ID: p.name, TTL: t.ttl, Options: append([]string{"--orphans", "kill"}, p.options...),
			Command: []string{t.suite.programs.heart(), t.dir, p.name, t.kind}}
		t.require(p.start(t.spec.Locker.Command(job), t.environment("XDG_RUNTIME_DIR="+machine)))
		if i == 0 && !t.await(settleWithin, func() bool { return t.first(p) != nil }) {
			t.require(fmt.Errorf("the holder did not get the lock: %s", p.stderr))
		}
		if !t.await(settleWithin, func() bool { return t.line.waiting() > i }) {
			t.require(fmt.Errorf("%s does not stand in line: %s", p.name, p.stderr))
		}
	}
	if t.kind != "plain" {
		time.Sleep(200 * time.Millisecond) // for the rest of the tree; that it is complete is not part of the trial
	}
	time.Sleep(time.Duration(t.rng.Float64() * float64(t.ttl) / 2)) // any moment between two renewals
}

// mark is in the environment of everything that the trial has started.
func (t *trial) mark() string { return "ETCDLOCK_FAULTS=" + t.dir }

func (t *trial) environment(vars ...string) []string {
	return append([]string{t.mark(), "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, vars...)
}

// lives returns what the processes of one player's commands have shown, or those of all for nil.
func (t *trial) lives(p *player) (lives []beat.Life) {
	all, err := beat.Lives(t.dir)
	t.require(err)
	for _, life := range all {
		if p == nil || life.Name == p.name {
			lives = append(lives, life)
		}
	}
	return lives
}

// standingOf returns a player's place in line.
func (t *trial) standingOf(p *player) (standing, bool) {
	s, ok := t.line.of(p.name, slices.Index(t.players(), p))
	if _, alone := t.alone(); alone && !ok {
		t.problem("%s is not in line", p.name) // in a pair the other fault can have seen to that
	}
	return s, ok
}

// first returns the first process of a player's command, which is the command itself; nil if it has not started.
func (t *trial) first(p *player) *beat.Life {
	var first *beat.Life
	for _, life := range t.lives(p) {
		if first == nil || life.First < first.First {
			first = &life
		}
	}
	return first
}

// last returns when a player's command has shown last that it runs.
func (t *trial) last(p *player) (last time.Duration) {
	for _, life := range t.lives(p) {
		last = max(last, life.Last)
	}
	return last
}

// doubt is when the holder asks its command to end unless it can renew the lock before.
func (t *trial) doubt() time.Duration {
	_, valid := t.holder.stderr.renewed()
	if valid == 0 { // not renewed yet
		valid = t.holder.started + t.ttl - validity.Margin(t.ttl)
	}
	return valid - t.grace
}

// strike lets the faults hit, the second one some time after the first.
func (t *trial) strike() {
	for i, f := range t.spec.Faults {
		if i > 0 {
			time.Sleep(time.Duration(t.rng.Float64() * float64(t.ttl)))
		}
		if i == 0 {
			t.heldUntil = t.doubt()
		}
		undo := f.hit(t)
		now := t.now()
		if i == 0 {
			t.hitAt = now
		}
		lasts := f.lasts
		if len(t.spec.Faults) > 1 {
			lasts = atRandom // or the two would never be there at the same time
		}
		m := &mend{do: undo}
		t.mends = append(t.mends, m)
		if lasts != nil {
			m.at = now + lasts(t)
		}
	}
}

// A mend is how and when a fault ends. Without an instant it is when the next holder has started.
type mend struct {
	do   func()
	at   time.Duration
	done bool
}

// mendTimed mends what has an instant, when it comes.
func (t *trial) mendTimed() {
	slices.SortFunc(t.mends, func(a, b *mend) int { return int(a.at - b.at) })
	for _, m := range t.mends {
		if m.at != 0 {
			time.Sleep(m.at - t.now())
			t.mend(m)
		}
	}
}

// mendAll mends what is left.
func (t *trial) mendAll() {
	for _, m := range t.mends {
		t.mend(m)
	}
}

func (t *trial) mend(m *mend) {
	if m.done {
		return
	}
	m.done = true
	if m.do != nil {
		m.do()
	}
	t.mendedAt = t.now()
}

// outcome is what is to become of the holder.
func (t *trial) outcome() outcome {
	if len(t.spec.Faults) > 1 {
		return either
	}
	return t.spec.Faults[0].outcome
}

// nextStarted reports whether somebody else has started, and notes who was the first.
func (t *trial) nextStarted() bool {
	for _, w := range t.waiters {
		if life := t.first(w); life != nil && (t.next == nil || life.First < t.next.First) {
			t.next = life
		}
	}
	return t.next != nil
}

// observe waits for what becomes of the holder, and mends what was broken.
func (t *trial) observe() {
	t.mendTimed()
	renewals, _ := t.holder.stderr.renewed()
	kept := func(times int) bool {
		n, _ := t.holder.stderr.renewed()
		return n >= renewals+times
	}
	switch {
	case t.outcome() == loses:
		t.await(t.startsWithin()+t.suite.patience, t.nextStarted)
	case !t.spec.Locker.ours:
		t.await(t.ttl, t.nextStarted) // it does not say what it does
	case t.outcome() == keeps:
		t.await(2*t.ttl+t.suite.patience, func() bool { return kept(2) || t.holder.hasEnded() })
	default:
		// As long as a renewal lasts that should not have been counted.
		end := t.now() + t.ttl
		t.await(2*t.ttl+t.suite.patience, func() bool { return t.nextStarted() || kept(1) && t.now() > end || t.holder.hasEnded() })
	}
	if t.next != nil && !t.spec.Locker.ours {
		// How long does the one before go on?
		t.result.Endless = !t.await(longEnough, func() bool { return t.now()-t.last(t.holder) > 300*time.Millisecond })
	}
	t.mendAll()
	if t.outcome() == loses && t.spec.Locker.ours && !t.await(t.suite.patience, t.holder.hasEnded) {
		t.problem("the holder's locker did not end")
	}
}

// longEnough is for how long two commands are watched that run at once.
const longEnough = 10 * time.Second

// startsWithin is the time from the hit, or from the mending where nobody can start before, within which the next one in line has to start.
func (t *trial) startsWithin() time.Duration {
	within := t.ttl + 2*time.Second
	for _, f := range t.spec.Faults {
		within += f.slower
	}
	return within
}

// finish lets everybody end who is left.
func (t *trial) finish() {
	t.result.Held = t.next == nil && !t.holder.hasEnded()
	t.require(os.WriteFile(filepath.Join(t.dir, "finish"), nil, 0o600))
	if t.kind == "is stopped" {
		for pid := range t.marked() {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	for _, p := range t.players() {
		if !t.await(3*t.startsWithin()+t.suite.patience, p.hasEnded) {
			t.problem("%s did not end", p.name)
		}
	}
}

// marked returns the processes of the trial that are there.
func (t *trial) marked() map[int]string { return etcdtest.Processes(t.mark()) }

// clear ends whatever is left.
func (t *trial) clear() {
	t.mendAll()
	for range 100 {
		left := t.marked()
		if len(left) == 0 {
			break
		}
		for pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if t.ledger != nil {
		t.ledger.close()
	}
	if t.line != nil {
		t.line.close()
	}
	os.RemoveAll(t.dir)
}
