//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/sched"
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
	kind     string        // of the commands, or of the holder's alone if that is a crowd
	user     int           // whose lockers they are; 0: the suite's
	delegate int           // the user who can make control groups; 0: none but root
	group    group         // the trial's; none if there are none
	loads    []*exec.Cmd   // what keeps the machine busy
	world    *world
	logins   *pace                     // nil where nobody logs in
	other    func(name string) *player // makes another player
	client   *clientv3.Client
	holder   *player
	waiters  []*player
	line     *line
	reader   *player       // who has the lock together with the holder; nil without one
	slots    int           // that the lock has; 0: it is no semaphore
	told     time.Duration // when it was told to end; 0: it was not
	second   *line         // for another lock, which all take as well; nil without one
	ledger   *ledger
	shift    time.Duration // of the holder's clock, since shiftedAt
	through  int           // the member that the holder renews through, where it knows just one

	thawed          time.Duration // when the holder went on that had been frozen
	mends           []*mend
	hitAt           time.Duration
	shiftedAt       time.Duration
	mending, mended time.Duration // when what was mended last began to be, and was
	heldUntil       time.Duration // at the hit: when the lock would be doubtful without a renewal
	early           string        // that the holder ended, or was about to, before anything hit it
	pressure        sched.Pressure
	wait            time.Duration // that a thread may have had for a processor since the hit
	// The command that started after the hit, if one did before the end.
	next   *beat.Life
	result Result
}

// keys is what the keys of all locks are below.
const keys = "/faults"

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
			if t.result.Starved = t.early != "" && t.starved(); !t.result.Starved {
				t.problem("it could not go on: %v", p.err)
			}
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
	if t.suite.groups != "" {
		t.group, err = newGroup(filepath.Join(t.suite.groups, filepath.Base(t.dir)), 0)
		t.require(err)
	}
	if t.spec.User == Ordinary && isRoot() {
		t.user = ordinaryID
		if t.rng.IntN(3) == 0 {
			t.delegate = t.user
		}
	}
	t.result.Groups = t.group.dir != "" && (t.user == 0 || t.delegate != 0)
	t.own(t.dir)
	t.key = keys + "/" + filepath.Base(t.dir)
	t.client = t.world.access.Client(tb)
	if !t.await(settleWithin, t.answers) {
		t.require(errors.New("etcd does not answer"))
	}
	if t.world.users {
		t.logins = loginPace(t.client, players[3])
	}
	t.other = func(name string) *player { return t.player(tb, name) }
	t.holder = t.other(players[0])
	t.waiters = []*player{t.other(players[1]), t.other(players[2])}
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
		t.own(filepath.Join(t.dir, "ledger"))
	}
}

// own gives a file to the user of the lockers.
func (t *trial) own(file string) {
	if t.user != 0 {
		t.require(os.Chown(file, t.user, t.user))
	}
}

// answers reports whether etcd, which may have been through another trial, is well.
func (t *trial) answers() bool {
	return t.asking(func(ctx context.Context) error {
		_, err := t.client.Get(ctx, t.key)
		return err
	}) == nil
}

func (t *trial) player(tb testing.TB, name string) *player {
	p := &player{name: name}
	for _, m := range t.world.members {
		p.links = append(p.links, etcdtest.NewLink(tb, m.Endpoint()))
	}
	if t.world.users {
		p.vars = append(p.vars, login(name))
	}
	return p
}

func (t *trial) players() []*player {
	readers := slices.DeleteFunc([]*player{t.holder, t.reader}, func(p *player) bool { return p == nil })
	return append(readers, t.waiters...)
}

// begin lets the holder get the lock, and the waiters stand in line one after the other.
func (t *trial) begin() {
	oneMachine := t.rng.IntN(2) == 0
	for i, p := range t.inLine() {
		machine := filepath.Join(t.dir, "run")
		if !oneMachine { // each is by itself, as far as files tell
			machine = filepath.Join(t.dir, "run-"+p.name)
		}
		if err := os.Mkdir(machine, 0o700); !errors.Is(err, os.ErrExist) {
			t.require(err)
		}
		t.own(machine)
		kind := t.kind
		if p == t.reader || p != t.holder && isCrowd(kind) {
			kind = "plain"
		}
		job := Job{Endpoints: p.endpoints(), Key: t.key, ID: p.name, TTL: t.ttl, Options: append([]string{"--orphans", "kill", "--wait", "300"}, p.options...),
			Command: []string{t.heart(p), t.dir, p.name, kind}}
		if p.outer != nil {
			job.Endpoints = nil
			for _, m := range t.world.members {
				job.Endpoints = append(job.Endpoints, m.Endpoint())
			}
		}
		cmd := t.spec.Locker.Command(job)
		if p.outer != nil {
			cmd = p.outer(cmd)
		}
		t.require(t.start(p, cmd, t.environment("XDG_RUNTIME_DIR="+machine, "ETCDLOCK_FAULTS_PLAYER="+p.name)))
		first := p == t.holder || p == t.reader
		if first && (!t.await(settleWithin, func() bool { return t.first(p) != nil || p.hasEnded() }) || t.first(p) == nil) {
			t.early = "the " + p.name + " did not get the lock"
			t.require(fmt.Errorf("%s: %s", t.early, p.stderr))
		}
		inLine := func() bool { return t.line.waiting() > i && (first || !t.spec.Locker.flags || p.stderr.waits()) }
		if !t.await(settleWithin, func() bool { return inLine() || t.holder.hasEnded() }) {
			t.require(fmt.Errorf("%s does not stand in line: %s", p.name, p.stderr))
		}
	}
	if t.kind != "plain" {
		// For the rest of the tree; that it is complete is not part of the trial.
		time.Sleep(200 * time.Millisecond)
	}
	if isCrowd(t.kind) {
		t.awaitReady(t.holder.name)
	}
	for _, f := range t.spec.Faults {
		t.bear(f.load)
	}
	// Any moment between two renewals.
	time.Sleep(time.Duration(t.rng.Float64() * float64(t.ttl) / 2))
	if t.holder.hasEnded() && t.spec.Locker.ours {
		t.early = fmt.Sprintf("the holder has ended before anything hit it, with exit code %d", t.holder.status())
	}
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
	in := t.line
	if p == t.holder {
		in = t.struck()
	}
	s, ok := in.of(p.name, slices.Index(t.players(), p))
	if _, alone := t.alone(); alone && !ok {
		t.problem("%s is not in line", p.name) // in a pair the other fault can have seen to that
	}
	return s, ok
}

// first returns the first process of a player's command, which is the command itself; nil if it has
// not started.
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
func (t *trial) doubt() time.Duration { return t.valid().valid - t.grace }

// valid returns the last renewal of the holder's.
func (t *trial) valid() renewal { return t.lastOf(t.holder, t.holder.stderr.renewed()) }

// lastOf returns a renewal of a player's. Where there was none it is as its locker would have said
// it when it stood in line, or started its command where no line is seen: the lease was granted
// before that.
func (t *trial) lastOf(p *player, r renewal) renewal {
	if r.number == 0 {
		r.at = p.started
		if since, ok := t.line.since(p.name); ok {
			r.at = since
		} else if first := t.first(p); first != nil {
			r.at = first.First
		}
		r.valid = r.at + t.ttl - leastMargin
	}
	return r
}

// leastMargin is what lies at least between the end of validity and the moment when etcd may free
// the lock.
const leastMargin = 250 * time.Millisecond

// finish lets everybody end who is left.
func (t *trial) finish() {
	t.result.Held = t.next == nil && !t.holder.hasEnded()
	if t.next != nil { // what ends now would not be seen
		t.await(t.suite.patience, func() bool { return exists(filepath.Join(t.dir, "looked."+t.next.Name)) })
	}
	t.require(os.WriteFile(filepath.Join(t.dir, "finish"), nil, 0o600))
	if t.kind == "is stopped" {
		for pid := range t.marked() {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.unload()
	for _, p := range t.players() {
		if !t.await(3*t.startsWithin()+t.suite.patience, p.hasEnded) && t.spec.Locker.ours {
			t.problem("%s did not end", p.name)
		}
	}
}

// marked returns the processes of the trial that are there.
func (t *trial) marked() map[int]string { return etcdtest.Processes(t.mark()) }

// clear ends whatever is left.
func (t *trial) clear() {
	// What cannot be killed fast enough ends by that.
	os.WriteFile(filepath.Join(t.dir, "finish"), nil, 0o600)
	t.mendAll()
	t.unload()
	if t.group.dir != "" {
		if err := t.group.remove(); err != nil {
			t.problem("left: %v", err)
		}
	}
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
	for _, l := range t.lines() {
		l.close()
	}
	if t.logins != nil {
		t.logins.close()
	}
	os.RemoveAll(t.dir)
}
