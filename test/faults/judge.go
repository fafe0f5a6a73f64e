//go:build linux

package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// judge measures what came of the trial, and holds it against what is promised.
func (t *trial) judge() {
	t.wait = t.pressure.Wait()
	t.result.Overlap = t.overlap()
	t.judgeDeath()
	if !t.spec.Locker.ours {
		t.judgeTurn()
		return
	}
	t.judgeOverlap()
	t.judgeReader()
	t.judgeTokens()
	t.judgeSets()
	t.judgeHistories()
	if len(t.result.Problems) > 0 && t.tooBusy() {
		t.result.Unpromised, t.result.Problems = t.result.Problems, nil
		t.result.Starved = true
	} else if t.result.Starved = t.starved(); !t.result.Starved {
		t.judgeTurn()
		t.judgeLoss()
		t.judgeEnds()
	}
	t.judgeLeftovers()
}

func (t *trial) forced() bool { return t.result.Forced }

// tooBusy reports whether the machine was busier than the guard of an ordinary user, which goes
// before nobody, can always make up for: docs/guarantees.md bounds the waits for a processor. One
// of a hundred waits is too long on processors for which somebody always waits. What is so in each
// trial is a problem all the same.
func (t *trial) tooBusy() bool {
	const mostly = 50 * time.Millisecond // of the 100 that are counted where somebody always waits
	return t.spec.User == Ordinary && t.wait >= mostly
}

func (t *trial) any(is func(Fault) bool) bool { return slices.ContainsFunc(t.spec.Faults, is) }

// alone returns the fault, if there is just one.
func (t *trial) alone() (Fault, bool) { return t.spec.Faults[0], len(t.spec.Faults) == 1 }

// overlap returns for how long commands of two lockers have run at the same time.
func (t *trial) overlap() (longest time.Duration) {
	longest = max(t.crowded(), t.longest(func(a, b string) bool { return a != b && !t.share(a, b) }))
	if t.any(func(f Fault) bool { return f.frozen }) && longest > 0 && t.next != nil {
		// From the first to the last beat the old command stood still, but for what came after
		// that.
		longest = max(0, t.last(t.holder)-max(t.thawed, t.mending, t.next.First))
	}
	return longest
}

// longest returns for how long processes of two players' commands have run at the same time.
func (t *trial) longest(count func(a, b string) bool) (longest time.Duration) {
	lives := t.lives(nil)
	for _, a := range lives {
		for _, b := range lives {
			if count(a.Name, b.Name) {
				longest = max(longest, min(a.Last, b.Last)-max(a.First, b.First))
			}
		}
	}
	return longest
}

// forcedOverlap is how long two commands may run at once when the lock was taken by force.
const forcedOverlap = 50 * time.Millisecond

// reconnecting is how much later than another a locker may try to reach an etcd that is back: the
// time between two tries grows to 0.33 s while it starts, a fifth more or less.
const reconnecting = 400 * time.Millisecond

// waits returns how much longer what several processes do in turn may have taken, as the processors
// were busy: etcd, etcdlocker, its guard and a thread of that have to wake up.
func (t *trial) waits() time.Duration { return 4 * t.wait }

// judgeOverlap: no two commands at once, not even if one of them was stopped, and none whose place
// in line was gone.
func (t *trial) judgeOverlap() {
	if t.spec.exempt() {
		if most := thawedFor + t.waits() + t.suite.pace.stalled(t.thawed, t.now()); t.thawed != 0 && t.result.Overlap > most {
			if _, alone := t.alone(); alone {
				t.problem("overlap: what was frozen ran for %v when it went on, which is more than %v", t.result.Overlap, most)
			}
		}
		return
	}
	if t.forced() {
		// With another fault it may not even hear of it, and its command goes on until validity
		// ends.
		_, alone := t.alone()
		most := forcedOverlap + t.waits() + t.stalled(t.hitAt, t.hitAt+t.result.Death)
		if t.any(func(f Fault) bool { return f.anew }) {
			most += reconnecting
		}
		if alone && t.result.Overlap > most {
			t.problem("overlap: two commands ran at once for %v, which is more than %v", t.result.Overlap, most)
		}
		return
	}
	if t.result.Overlap > 0 {
		t.problem("overlap: two commands ran at once for %v", t.result.Overlap)
	}
	accused, err := os.ReadFile(filepath.Join(t.dir, "accused"))
	// That it stands still beside the next one is the fault.
	frozen := t.any(func(f Fault) bool { return f.frozen })
	if !errors.Is(err, os.ErrNotExist) && !frozen {
		t.require(err)
		t.problem("overlap: not dead yet: %s", strings.TrimSpace(string(accused)))
	}
	for _, l := range t.lines() {
		t.judgePlaces(l)
	}
}

// judgePlaces: no command whose place in a line was gone.
func (t *trial) judgePlaces(l *line) {
	standings, holdings, err := l.seen()
	t.require(err)
	for _, h := range holdings {
		for _, s := range standings {
			if s.mod != h.token || s.gone == 0 || s.id != "" && s.id != h.id {
				continue // who is passed the right to be next is written with the slot
			}
			for _, p := range t.players() {
				if p.name == h.id && t.inVain(p, h, s, holdings) {
					continue
				}
				if last := t.last(p); p.name == h.id && last > s.gone {
					t.problem("overlap: the command of %s ran for %v after its place in line was gone", p.name, last-s.gone)
				}
			}
		}
	}
}

// unconfirmed is what a locker says whose release etcd did not answer in time.
const unconfirmed = "did not confirm the release"

// inVain reports whether a player had the lock and never started its command with it, but with
// another one that it got later.
func (t *trial) inVain(p *player, h holding, s standing, all []holding) bool {
	first := t.first(p)
	return first != nil && first.First > s.gone &&
		slices.ContainsFunc(all, func(later holding) bool { return later.id == p.name && later.token > h.token })
}

// judgeDeath: what was running when the fault hit was dead before its lease could run out. That is
// its whole TTL after the last counted renewal was sent, which was before the locker said so, and
// the margin after the end of validity where the locker says what that is.
func (t *trial) judgeDeath() {
	if t.result.Held {
		return
	}
	t.result.Death = max(0, t.last(t.holder)-t.hitAt)
	if !t.spec.Locker.ours {
		return
	}
	r := t.valid()
	freed := r.at + t.ttl
	if r.margin > 0 {
		freed = min(freed, r.valid+r.margin)
	}
	if t.shift > 0 && r.at < t.shiftedAt {
		r.valid, freed = max(t.shiftedAt, r.valid-t.shift), max(t.shiftedAt+leastMargin, freed-t.shift)
	}
	t.result.Late = t.last(t.holder) - r.valid
	if late := t.last(t.holder) - freed; late > 0 && !t.spec.exempt() {
		t.result.Overdue = true
		t.problem("death: the command died %v after the end of validity, %v after etcd could free the lock", t.result.Late, late)
	}
}

// judgeTurn: the next one started in time, and it was the next one.
func (t *trial) judgeTurn() {
	f, alone := t.alone()
	from := t.hitAt
	if f.settled {
		from = t.mended
	}
	from, within := t.afterReader(from, t.startsWithin())
	if t.next != nil {
		t.result.HandOver = max(0, t.next.First-from)
	}
	if !alone || !t.spec.Locker.ours {
		return
	}
	if f.outcome == loses {
		most := within + t.stalled(from, from+t.result.HandOver)
		switch {
		case t.next == nil:
			t.problem("turn: nobody started within %v", most)
		case t.result.HandOver > most:
			t.problem("turn: the next one started after %v, which is more than %v", t.result.HandOver, most)
		case f.settled && t.next.First < t.mending:
			t.problem("turn: %s started %v before it could", t.next.Name, t.mending-t.next.First)
		}
	}
	first, second := t.first(t.waiters[0]), t.first(t.waiters[1])
	if !f.anew && !f.waiters && (first == nil || second == nil || first.First > second.First && !t.together(first, second)) {
		t.problem("turn: the waiters did not run in turn")
	}
}

// ordinaryRenewal is what a renewal takes at most that nothing is in the way of.
const ordinaryRenewal = 250 * time.Millisecond

// answersWanted is how many answers of etcd's a renewal can cost: it is followed by a read, and
// each of them can be asked for again, as the answer takes longer than a sixteenth of the TTL.
const answersWanted = 6

// silencesMet is how often it can be sent to a member that is silent, the renewal and the read:
// each time that is found out after a sixteenth of the TTL.
const silencesMet = 2

// loginsWanted is how many logins it can cost where etcd has forgotten the tokens: the member that
// is asked with a new token may not have heard of it yet.
const loginsWanted = 2

// starved reports whether somebody has lost the lock, or its place in line, as etcd, its locker or
// the whole machine stood still, and not by a fault: there was no time for a renewal from when it
// was due, or etcd was back, until validity ended, or a waiter's lease. Such a trial tells nothing
// of losses, turns and ends.
func (t *trial) starved() bool {
	// Until it is mended, that etcd does not answer is the fault.
	silenced := t.early == "" && t.outcome() != keeps && t.any(func(f Fault) bool { return f.need.alone && f.what != "the users" })
	byFault := t.any(func(f Fault) bool { return f.waiters })
	for _, p := range t.players() {
		if p.stderr == nil || p == t.holder && t.outcome() == loses && t.early == "" {
			continue // of the one that was hit it is the fault
		}
		said := p.stderr.String()
		if !strings.Contains(said, unrenewed) && (byFault || !strings.Contains(said, placeLost)) {
			continue
		}
		r := t.lastOf(p, p.stderr.beforeLoss())
		due, until := r.valid-(t.ttl/2-leastMargin), r.valid
		if silenced && due < t.mended {
			if !slices.Contains(t.waiters, p) {
				continue
			}
			// A place does not go with validity, but with the lease, which an etcd that is back
			// gives its whole TTL again.
			due, until = t.mended, max(until, t.mended+t.ttl)
		}
		if (!silenced || t.mended != 0) && due+t.renewalTakes(p, due, until) > until {
			return true
		}
	}
	return false
}

// renewalTakes returns what a renewal of a player's may have taken that was due in a time, with the
// grace, which begins with the loss.
func (t *trial) renewalTakes(p *player, from, to time.Duration) time.Duration {
	takes := max(renewalTime, t.grace+ordinaryRenewal) + answersWanted*t.world.pace.slowest(from, to) + t.stalled(from, to) + p.delay.in(from, to)
	if t.logins != nil {
		takes += loginsWanted * t.logins.slowest(from, to)
	}
	if t.any(func(f Fault) bool { return f.need.size == 3 }) {
		takes += silencesMet * t.ttl / 16
	}
	return takes
}

// stalled returns for how long the machine, or etcd, stood still in a time.
func (t *trial) stalled(from, to time.Duration) time.Duration {
	stalled := max(t.suite.pace.stalled(from, to), t.world.pace.stalled(from, to))
	if t.logins != nil {
		stalled = max(stalled, t.logins.stalled(from, to))
	}
	return stalled
}

// judgeLoss: a lock is not lost that could be kept.
func (t *trial) judgeLoss() {
	if t.early != "" {
		t.problem("loss: %s", t.early)
	}
	f, alone := t.alone()
	inTime := f.outcome == either && f.lasts != nil && t.mended != 0 && t.mended+renewalTime+t.stalled(t.hitAt, t.heldUntil) < t.heldUntil
	if alone && !t.result.Held && (f.outcome == keeps || inTime) {
		t.result.FalseLoss = true
		t.problem("loss: the holder lost its lock, and could have kept it")
	}
}

// judgeEnds: exit codes and messages.
func (t *trial) judgeEnds() {
	f, alone := t.alone()
	codes := map[int]bool{0: true}
	switch {
	case alone && f.outcome == loses:
		codes = map[int]bool{f.code: true, cmp.Or(f.also, f.code): true}
		if !strings.Contains(t.holder.stderr.String(), f.says) {
			t.problem("end: the holder's locker did not say %q", f.says)
		}
	case !t.result.Held:
		// 3: with two faults, on a busy machine, what is dead may not be proved dead in time. Then
		// the lock is not released.
		codes[2], codes[3] = true, !alone
		for _, f := range t.spec.Faults {
			codes[f.code], codes[cmp.Or(f.also, f.code)] = true, true
		}
	}
	for _, p := range t.players() {
		if !p.hasEnded() {
			continue // said already
		}
		if status := p.status(); !codes[status] {
			t.problem("end: the exit code of %s is %d", p.name, status)
		}
		codes = map[int]bool{0: true, 2: !alone || f.waiters && f.forced, 3: !alone}
	}
}

// judgeHistories: what the three did is what a mutex, a source of tokens and a counter do.
func (t *trial) judgeHistories() {
	if t.spec.exempt() || t.any(func(f Fault) bool { return f.anew }) {
		return
	}
	var tokens []porcupine.Operation
	mutexes := make(map[string][]porcupine.Operation) // by slot, if there are any
	for i, p := range t.players() {
		first := t.first(p)
		if first == nil {
			continue
		}
		if slot := t.slotOf(p.name); p != t.reader || slot != "" { // so has the holder
			mutexes[slot] = append(mutexes[slot],
				porcupine.Operation{ClientId: i, Input: true, Call: int64(p.started), Return: int64(first.First)},
				porcupine.Operation{ClientId: i, Input: false, Call: int64(t.last(p)), Return: int64(t.now())})
		}
		if token := t.ledger.tokenOf(p.name); token != 0 {
			since := first.First - 1 // one began after the other
			if t.forced() {
				since = p.started
			}
			tokens = append(tokens, porcupine.Operation{ClientId: i, Call: int64(since), Output: token, Return: int64(first.First)})
		}
	}
	errs := []error{linearizable("source of tokens", tokenModel, tokens), linearizable("counter", counterModel, t.ledger.history())}
	for _, mutex := range mutexes {
		if !t.forced() {
			errs = append(errs, linearizable("mutex", mutexModel, mutex))
		}
	}
	for _, err := range errs {
		if err != nil {
			t.problem("history: %v", err)
		}
	}
	var refused int
	t.result.Work, refused = t.ledger.sum(func(by string) (last time.Duration) {
		for _, p := range t.players() {
			if p.name == by {
				last = t.last(p)
			}
		}
		return last
	})
	if t.result.Work == 0 && t.reader == nil { // who shares the lock does not work
		t.problem("history: the holder could not work")
	}
	if refused > 0 && !t.forced() && !t.any(func(f Fault) bool { return f.what == "the key" }) {
		t.problem("history: a token was refused %d times while its holder ran", refused)
	}
}

// judgeLeftovers: nothing is left of anybody.
func (t *trial) judgeLeftovers() {
	// A guard that had many processes to end goes some time after them on a busy machine.
	t.await(30*time.Second, func() bool { return len(t.marked()) == 0 })
	for pid, dir := range t.marked() {
		words, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		t.problem("left: process %d, %q", pid, words)
	}
	var standings []standing
	for _, l := range t.lines() {
		some, _, err := l.seen()
		t.require(err)
		standings = append(standings, some...)
	}
	within := 2 * time.Second
	if slices.ContainsFunc(t.players(), func(p *player) bool {
		return !p.hasEnded() || p.status() != 0 || strings.Contains(p.stderr.String(), unconfirmed)
	}) {
		within += t.startsWithin() // what could not be taken away runs out
	}
	var left []string
	if !t.await(within, func() bool { left = t.leftInEtcd(standings); return len(left) == 0 }) {
		t.problem("left: %s", strings.Join(left, ", "))
	}
	// Who kills both leaves an empty group; a later guard removes it.
	if !t.any(func(f Fault) bool { return f.bare }) {
		for _, dir := range t.group.left() {
			t.problem("left: %s", dir)
		}
	}
}

func (t *trial) leftInEtcd(standings []standing) (left []string) {
	err := t.asking(func(ctx context.Context) error {
		resp, err := t.client.Get(ctx, t.key, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			left = append(left, fmt.Sprintf("key %q", kv.Key))
		}
		for _, s := range standings {
			if resp, err := t.client.TimeToLive(ctx, s.lease); err != nil || resp.TTL >= 0 {
				left = append(left, fmt.Sprintf("lease %x", s.lease))
			}
		}
		return nil
	})
	if err != nil {
		return []string{err.Error()}
	}
	return left
}
