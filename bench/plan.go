package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Sides that are no library.
const (
	rawFloor  = "raw floor"
	guarded   = "etcdlocker"
	unguarded = "etcdlocker --unguarded"
	etcdctl   = "etcdctl lock"
	busy      = "etcdlock beside writes"

	commandFloor = "floor of a command"
	oneProcess   = "one process for each"
	twoProcesses = "two processes for each"
)

// An extent says how much is measured.
type extent struct {
	alone, floor, commands int
	tenTurns, twoTurns     int // of each of so many contenders that hold 20 ms
	quickTurns             int // of each of ten that hold 0; five rounds have 5,000 hand-overs
	settle, watched        time.Duration
	locks, refreshes       int
	sharing                int // who share a lock beside one
	woken, wakes           int // who are woken at once, and how often
	together               int // turns of many at once
	relayTurns             int // lines of commands
	growth                 growth
}

var (
	full = extent{
		alone: 1000, floor: 200, commands: 15, tenTurns: 101, twoTurns: 505, quickTurns: 105,
		settle: time.Second, watched: 4 * time.Second, locks: 10_000, refreshes: 3,
		sharing: 1000, woken: 100, wakes: 20, together: 10_000, relayTurns: 6,
		growth: growth{sizes: []int{10, 100, 1000, 4000, 10_000}, rushes: 5, arrivals: 40, handOvers: 200, hold: 5 * time.Millisecond},
	}
	quick = extent{
		alone: 20, floor: 10, commands: 2, tenTurns: 2, twoTurns: 3, quickTurns: 6,
		settle: 400 * time.Millisecond, watched: 400 * time.Millisecond, locks: 50, refreshes: 1,
		sharing: 20, woken: 10, wakes: 2, together: 200, relayTurns: 1,
		growth: growth{sizes: []int{5, 20, 40}, rushes: 2, arrivals: 2, handOvers: 60, hold: time.Millisecond},
	}
)

// An arena is an etcd that is there when it is needed.
type arena struct {
	prefix string // of the names of what is measured there
	open   func() (etcd, error)
}

// in returns a side's turn in an arena.
func (a arena) in(turn func(context.Context, etcd) (figures, error)) func(context.Context) (figures, error) {
	return func(ctx context.Context) (figures, error) {
		e, err := a.open()
		if err != nil {
			return nil, err
		}
		return turn(ctx, e)
	}
}

// libraries returns a side for each of two libraries.
func (a arena) libraries(ours, peer library, turn func(context.Context, etcd, library) (figures, error)) (sides []side) {
	for _, lib := range []library{ours, peer} {
		sides = append(sides, side{lib.name, a.in(func(ctx context.Context, e etcd) (figures, error) { return turn(ctx, e, lib) })})
	}
	return sides
}

// against is a row that compares with Mutex.
func against(what, unit, figure string, t target) row {
	return row{what, unit, figure, ours.name, mutex.name, t}
}

func (x extent) uncontended(a arena, t target) measurement {
	const name = "uncontended lock and unlock, ready session"
	return measurement{a.prefix + name, a.libraries(ours, mutex, func(ctx context.Context, e etcd, lib library) (figures, error) {
		return uncontended(ctx, e, lib, x.alone)
	}), []row{against(name, "/s", "rate", t)}}
}

// set compares four keys taken at once with one, and with four Mutexes.
func (x extent) set(a arena, t target) measurement {
	const name = "set of 4 free keys, lock and unlock"
	turn := func(ctx context.Context, e etcd, lib library) (figures, error) {
		return uncontended(ctx, e, lib, x.alone)
	}
	sides := append(a.libraries(oursOfFour, ours, turn), a.libraries(oursOfFour, mutexesOfFour, turn)[1])
	return measurement{a.prefix + name, sides, []row{
		{name, "/s", "rate", oursOfFour.name, mutexesOfFour.name, target{}},
		{"the same against one key", "/s", "rate", oursOfFour.name, ours.name, t},
	}}
}

// withFloor adds the floor as a side, with n deletions.
func withFloor(a arena, n int, hold time.Duration, sides []side) []side {
	return append(sides, side{rawFloor, a.in(func(ctx context.Context, e etcd) (figures, error) {
		return floor(ctx, e, n, hold)
	})})
}

// tails are the rows of what takes longest among the hand-overs of all rounds.
func tails() []row {
	return []row{
		against("p99.9 of all rounds", "ms", "p99.9", target{}),
		{"the same", "ms", "p99.9 / all p50", ours.name, ours.name, atMost(5)},
		against("worst of all rounds", "ms", "worst", target{}),
		{"the same", "ms", "worst / all p99", ours.name, rawFloor, atMost(5)},
	}
}

// ten compares with Mutex and with the floor, which has as many deletions as there are hand-overs.
func (x extent) ten(a arena, t, ofFloor target) measurement {
	const name, hold = "hand-over, 10 contenders holding 20 ms", 20 * time.Millisecond
	sides := a.libraries(ours, mutex, func(ctx context.Context, e etcd, lib library) (figures, error) {
		return handOvers(ctx, e, lib, 10, x.tenTurns, hold)
	})
	return measurement{a.prefix + name, withFloor(a, 10*x.tenTurns, hold, sides), append([]row{
		against(name+", p50", "ms", "p50", t),
		{"the same", "ms", "p50", ours.name, rawFloor, ofFloor},
		against("p95", "ms", "p95", target{}),
		against("p99", "ms", "p99", target{}),
	}, tails()...)}
}

func (x extent) two(a arena, p50, p99 target) measurement {
	const name, hold = "hand-over, 2 contenders holding 20 ms", 20 * time.Millisecond
	sides := a.libraries(ours, mutex, func(ctx context.Context, e etcd, lib library) (figures, error) {
		return handOvers(ctx, e, lib, 2, x.twoTurns, hold)
	})
	return measurement{a.prefix + name, withFloor(a, x.floor, hold, sides), append([]row{
		against(name+", p50", "ms", "p50", p50),
		against("p95", "ms", "p95", target{}),
		against("p99", "ms", "p99", p99),
	}, tails()...)}
}

func (x extent) rate(ctx context.Context, e etcd, lib library) (figures, error) {
	return handOvers(ctx, e, lib, 10, x.quickTurns, 0)
}

func (x extent) rates(a arena, t target) measurement {
	const name = "hand-overs per second, 10 contenders holding 0"
	return measurement{a.prefix + name, withFloor(a, x.floor, 0, a.libraries(ours, mutex, x.rate)), append([]row{
		against(name, "/s", "rate", t),
		against("time of one, p50", "ms", "p50", target{}),
		against("p95", "ms", "p95", target{}),
		against("p99", "ms", "p99", target{}),
	}, tails()...)}
}

// besideWrites compares with the same in peace.
func (x extent) besideWrites(a arena) measurement {
	name := fmt.Sprintf("the same while another client writes %d keys/s", writes)
	quiet := func(ctx context.Context, e etcd) (figures, error) { return x.rate(ctx, e, ours) }
	return measurement{a.prefix + name, []side{
		{busy, a.in(func(ctx context.Context, e etcd) (figures, error) {
			return besideWrites(ctx, e, func(ctx context.Context) (figures, error) { return quiet(ctx, e) })
		})},
		{ours.name, a.in(quiet)},
	}, []row{
		{name + ", time of one, p50", "ms", "p50", busy, ours.name, target{}},
		{"p95", "ms", "p95", busy, ours.name, target{}},
		{"p99", "ms", "p99", busy, ours.name, atMost(2)},
		{"p99.9 of all rounds", "ms", "p99.9", busy, ours.name, target{}},
		{"worst of all rounds", "ms", "worst", busy, ours.name, target{}},
		{"hand-overs per second beside the writes", "/s", "rate", busy, ours.name, target{}},
		{"writes that were answered", "/s", "writes", busy, "", target{}},
	}}
}

func (x extent) held(a arena) measurement {
	name := fmt.Sprintf("%s locks held in one session", thousands(x.locks))
	return measurement{a.prefix + name, a.libraries(ours, oneSession, func(ctx context.Context, e etcd, lib library) (figures, error) {
		return held(ctx, e, lib, x.locks, x.refreshes)
	}), []row{
		against(name+": heap for each", "KiB", "heap", below(4, "KiB")),
		against("goroutines for all", "", "goroutines", target{}),
		against("messages sent per refresh, for all", "", "messages", target{}),
	}}
}

// command is a side that runs true under the lock.
func (x extent) command(name string, make program) side {
	return side{name, func(ctx context.Context) (figures, error) { return running(ctx, make, x.commands) }}
}

func (x extent) running(p programs) measurement {
	const name = "etcdlocker -- true"
	return measurement{name, []side{x.command(guarded, p.locker), x.command(unguarded, p.unguarded), x.command(etcdctl, p.etcdctl)}, []row{
		{"`" + name + "`, wall", "ms", "wall", guarded, etcdctl, atMost(0.93)},
		{"`" + name + "`, CPU", "ms", "cpu", guarded, etcdctl, atMost(0.93)},
		{"without its guard, wall", "ms", "wall", unguarded, etcdctl, atMost(1)},
		{"without its guard, CPU", "ms", "cpu", unguarded, etcdctl, atMost(0.8)},
		{"with and without its guard, wall", "ms", "wall", guarded, unguarded, atMost(1.05)},
	}}
}

func (x extent) runningAsUser(dir string, a arena) measurement {
	const name = "etcdlocker -- true"
	as := func(name string, of func(p programs) program) side {
		return side{name, a.in(func(ctx context.Context, e etcd) (figures, error) {
			return running(ctx, of(programs{dir, e}), x.commands)
		})}
	}
	return measurement{a.prefix + name, []side{
		as(guarded, func(p programs) program { return p.locker }),
		as(etcdctl, func(p programs) program { return p.etcdctl }),
	}, []row{
		{"`" + name + "`, wall", "ms", "wall", guarded, etcdctl, atMost(1)},
		{"`" + name + "`, CPU", "ms", "cpu", guarded, etcdctl, atMost(1)},
	}}
}

func (x extent) memory(p programs) measurement {
	const name = "resident memory while holding (Pss)"
	of := func(name string, make program) side {
		return side{name, func(ctx context.Context) (figures, error) { return memory(ctx, make) }}
	}
	return measurement{name, []side{of(guarded, p.locker), of(etcdctl, p.etcdctl)}, []row{
		{name, "MiB", "pss", guarded, etcdctl, atMost(0.85)},
	}}
}

func (x extent) guard(p programs) measurement {
	const name = "the guard"
	return measurement{name, []side{{guarded, func(ctx context.Context) (figures, error) {
		return p.guard(ctx, x.settle, x.watched)
	}}}, []row{
		{name + ": anonymous memory", "MiB", "guard", guarded, "", below(1.5, "MiB")},
		{"etcdlocker beside it: anonymous memory", "MiB", "locker", guarded, "", below(4.5, "MiB")},
		{name + ": wake-ups for each renewal", "", "wake-ups", guarded, "", below(1, "")},
	}}
}

// waiters names the side of a library with so many waiters.
func waiters(lib library, n int) string { return fmt.Sprintf("%s, %s waiting", lib.name, thousands(n)) }

func (x extent) lines(p programs) measurement {
	sizes := x.growth.sizes
	few, many, most := sizes[0], sizes[len(sizes)-2], sizes[len(sizes)-1]
	var sides []side
	add := func(lib library, sizes ...int) {
		for _, n := range sizes {
			sides = append(sides, side{waiters(lib, n), func(ctx context.Context) (figures, error) {
				return x.growth.measure(ctx, p.dir, lib, n)
			}})
		}
	}
	for _, n := range sizes {
		add(ours, n)
		add(mutex, n)
	}
	add(oursSlots, few, most)
	add(oneKey, few)
	add(bareOne, few)
	add(bareTwo, few)
	return measurement{growthTable, sides, append([]row{
		{fmt.Sprintf("enqueue with %s waiting", thousands(many)), "ms", "enqueue", waiters(ours, many), waiters(mutex, many), atMost(0.1)},
		{fmt.Sprintf("server CPU per hand-over at %s waiters, against that at %s", thousands(most), thousands(few)), "ms", "cpu",
			waiters(ours, most), waiters(ours, few), atMost(1.5)},
	}, x.slotRows()...)}
}

// thousands is a number as people read it.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// with returns the measurements that have a text in their names.
func with(all []measurement, text string) (some []measurement) {
	for _, m := range all {
		if strings.Contains(m.name, text) {
			some = append(some, m)
		}
	}
	return some
}
