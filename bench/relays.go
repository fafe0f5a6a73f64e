package main

import (
	"context"
	"fmt"
	"time"
)

// relays measures lines of commands. The figures of the last one in line are apart.
func (x extent) relays(p programs, waiters int, hold time.Duration) measurement {
	name := fmt.Sprintf("`etcdlocker`, %d waiting, each holds %v", waiters, hold)
	turn := func(run func(ctx context.Context, r relay) ([]float64, error)) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			var all, last []float64
			for range x.relayTurns {
				r := relay{p.dir, p.etcd, newKey(), waiters, hold}
				times, err := run(ctx, r)
				if err != nil {
					return nil, err
				}
				all, last = append(all, times...), append(last, times[len(times)-1])
			}
			f := spread(all)
			f["last"] = []float64{median(last)}
			return f, nil
		}
	}
	ofProgram := func(name string, make func(key string) program) side {
		return side{name, turn(func(ctx context.Context, r relay) ([]float64, error) { return r.programs(ctx, make(r.key)) })}
	}
	sides := []side{ofProgram(guarded, p.lockerOf), ofProgram(etcdctl, p.etcdctlOf),
		{commandFloor, turn(func(ctx context.Context, r relay) ([]float64, error) { return r.bares(ctx) })}}
	return measurement{name, sides, []row{
		{name + ", from end to start, p50", "ms", "p50", guarded, etcdctl, atMost(0.75)},
		{"the same", "ms", "p50", guarded, commandFloor, atMost(1.4)},
		{"p95", "ms", "p95", guarded, etcdctl, atMost(0.9)},
		{"the last in line", "ms", "last", guarded, etcdctl, atMost(0.9)},
	}}
}
