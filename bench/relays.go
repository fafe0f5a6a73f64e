package main

import (
	"context"
	"fmt"
	"time"
)

// relays measures lines of commands. The figures of the last one in line are apart.
func (x extent) relays(p programs, waiters int, hold time.Duration) measurement {
	name := fmt.Sprintf("`etcdlocker`, %d waiting, each holds %v", waiters, hold)
	turn := func(run func(ctx context.Context, r relay) ([]handing, error)) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			var all, last, ended, started []float64
			for range x.relayTurns {
				r := relay{p.dir, p.etcd, newKey(), waiters, hold}
				times, err := run(ctx, r)
				if err != nil {
					return nil, err
				}
				for _, one := range times {
					all, ended, started = append(all, one.whole()), append(ended, one.ended), append(started, one.started)
				}
				last = append(last, times[len(times)-1].whole())
			}
			f := spread(all)
			f["last"], f["ended"], f["started"] = []float64{median(last)}, []float64{median(ended)}, []float64{median(started)}
			return f, nil
		}
	}
	ofProgram := func(name string, make func(key string) program) side {
		return side{name, turn(func(ctx context.Context, r relay) ([]handing, error) { return r.programs(ctx, make(r.key)) })}
	}
	sides := []side{ofProgram(guarded, p.lockerOf), ofProgram(unguarded, p.unguardedOf), ofProgram(etcdctl, p.etcdctlOf),
		ofProgram(oneProcess, p.turnOf), ofProgram(twoProcesses, p.startedTurnOf),
		{commandFloor, turn(func(ctx context.Context, r relay) ([]handing, error) { return r.bares(ctx) })}}
	return measurement{name, sides, []row{
		{name + ", from end to start, p50", "ms", "p50", guarded, etcdctl, atMost(0.75)},
		{"the same", "ms", "p50", guarded, commandFloor, atMost(1.4)},
		{"p95", "ms", "p95", guarded, etcdctl, atMost(0.9)},
		{"from end until etcd has told who is next", "ms", "ended", guarded, etcdctl, target{}},
		{"the same", "ms", "ended", guarded, commandFloor, target{}},
		{"from there to start", "ms", "started", guarded, etcdctl, target{}},
		{"the same", "ms", "started", guarded, commandFloor, target{}},
		{"without its guard, from end to start, p50", "ms", "p50", unguarded, etcdctl, target{}},
		{"from end until etcd has told who is next", "ms", "ended", unguarded, etcdctl, target{}},
		{"from there to start", "ms", "started", unguarded, etcdctl, target{}},
		{"the floor in one process for each, p50", "ms", "p50", oneProcess, etcdctl, target{}},
		{"in two", "ms", "p50", twoProcesses, etcdctl, target{}},
		{"from end until etcd has told who is next", "ms", "ended", twoProcesses, etcdctl, target{}},
		{"from there to start", "ms", "started", twoProcesses, etcdctl, target{}},
		{"the last in line", "ms", "last", guarded, etcdctl, atMost(0.9)},
	}}
}
