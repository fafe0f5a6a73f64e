package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A table is what is shown together, and measured in one run.
type table struct {
	name, title string
	of          []measurement
	text        func(results []result) string
}

// growthTable is the name of the table of lines, and of its measurement.
const growthTable = "growth"

// tables returns all that is measured: on one server, on one that asks for passwords, and on a slow
// cluster.
func (x extent) tables(p programs, one, user, slow arena) []table {
	few := x
	few.alone /= 5 // each of them takes ten times as long
	return []table{
		{"single", "One server", []measurement{
			x.uncontended(one, atLeast(0.97)),
			x.ten(one, atMost(0.6), atMost(1.15)),
			x.two(one, atMost(0.1), atMost(0.1)),
			x.rates(one, atLeast(5)),
			x.besideWrites(one),
			x.held(one),
		}, comparison},
		{"modes", "Sets, and shared locks", []measurement{x.set(one, atLeast(0.77)), x.share(one), x.wake(one)}, comparison},
		{"many", "Many locks at once", []measurement{
			x.many(one, 1, atLeast(0.98), target{}),
			x.many(one, 16, target{}, target{}),
			x.many(one, 128, atLeast(2), atLeast(1.4)),
			x.many(one, 512, target{}, atLeast(3)),
			x.manyHandOvers(one, 100, atLeast(2)),
		}, comparison},
		{"command", "The command", []measurement{
			x.running(p),
			x.relays(p, 3, 20*time.Millisecond),
			x.relays(p, 10, 20*time.Millisecond),
			x.relays(p, 3, 150*time.Millisecond),
			x.relays(p, 10, 150*time.Millisecond),
			x.memory(p),
			x.guard(p),
		}, comparison},
		{growthTable, "Long lines, and slots", []measurement{x.lines(p)}, func(results []result) string {
			return comparison(results) + "\n" + lengths(results[0], x.growth.sizes)
		}},
		{"user", "With a password", []measurement{x.runningAsUser(p.dir, user), x.uncontended(user, atLeast(0.97))}, comparison},
		{"cluster", fmt.Sprintf("Three members, %v of network delay each way", delay), []measurement{
			few.ten(slow, atMost(0.5), target{}),
			few.two(slow, target{}, target{}),
			few.rates(slow, target{}),
			few.uncontended(slow, target{}),
			few.many(slow, 128, target{}, atLeast(4)),
		}, comparison},
	}
}

// named returns the tables with some names, all if none is given.
func named(all []table, names []string) (some []table, err error) {
	known := make([]string, len(all))
	for i, t := range all {
		known[i] = t.name
		if len(names) == 0 || slices.Contains(names, t.name) {
			some = append(some, t)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("-table: there is no table %q: they are %s", name, strings.Join(known, ", "))
		}
	}
	return some, nil
}

// passwords is a server that asks for passwords, started when it is needed first.
type passwords struct {
	ctx    context.Context
	dir    string
	server *server
}

func (s *passwords) open() (e etcd, err error) {
	if s.server == nil {
		if s.server, err = startServer(s.ctx, s.dir); err != nil {
			return etcd{}, err
		}
		if err = s.server.askForPasswords(s.ctx); err != nil {
			return etcd{}, err
		}
	}
	return s.server.etcd, nil
}

func (s *passwords) close() {
	if s.server != nil {
		s.server.close()
	}
}
