// Command bench measures etcdlock and its peers in turn, in one run, and prints tables with the
// ratios as it goes on:
//
//	go -C bench run . [-rounds 5] [-table modes] [-only hand-over] [-quick]
//	go -C bench run . -into ../docs/performance.md -plots ../docs/performance
//
// docs/performance.md says what is measured, and how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/bench/marks"
	"github.com/etcdlock/etcdlock/test/slow"
)

// An order is what the command line says.
type order struct {
	rounds int
	tables []string // empty: all
	only   string
	quick  bool
	into   marks.Files
	plots  string
}

func main() {
	slow.Member()
	var o order
	flag.IntVar(&o.rounds, "rounds", 5, "how often each side has its turn")
	flag.Func("table", "measure only what is in the table of this `name`; may be given several times", func(name string) error {
		o.tables = append(o.tables, name)
		return nil
	})
	flag.StringVar(&o.only, "only", "", "measure only what has this `text` in its name")
	flag.BoolVar(&o.quick, "quick", false, "measure little, to see that everything works")
	flag.Var(&o.into, "into", "a `file` of which the tables that were measured are replaced: what is between <!-- bench: NAME --> and <!-- end -->")
	flag.StringVar(&o.plots, "plots", "", "a `directory` for the plots, which are those of the table growth")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := o.run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o order) run(ctx context.Context, out io.Writer) error {
	if o.only != "" && (len(o.into) > 0 || o.plots != "") {
		return errors.New("-into and -plots need whole tables: they do not go with -only")
	}
	if o.rounds < 1 {
		return errors.New("-rounds: one at least")
	}
	dir, err := os.MkdirTemp("", "etcdlock-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	x := full
	if o.quick {
		x = quick
	}
	var one *server
	asked, three := &passwords{ctx: ctx, dir: dir}, &members{dir: dir}
	defer asked.close()
	defer three.close()
	plan := func(e etcd) ([]table, error) {
		return named(x.tables(programs{dir, e}, arena{"", func() (etcd, error) { return e, nil }},
			arena{"password: ", asked.open}, arena{"cluster: ", three.open}), o.tables)
	}
	tables, err := plan(etcd{})
	if err != nil {
		return err
	}
	if o.plots != "" && !slices.ContainsFunc(tables, func(t table) bool { return t.name == growthTable }) {
		return errors.New("-plots needs the table growth")
	}
	if err := buildPrograms(ctx, dir); err != nil {
		return err
	}
	if one, err = startServer(ctx, dir); err != nil {
		return err
	}
	defer one.close()
	if tables, err = plan(one.etcd); err != nil {
		return err
	}
	return o.measureAll(ctx, out, x, dir, tables)
}

// measureAll measures tables, and puts each where it is wanted, with when it was measured.
func (o order) measureAll(ctx context.Context, out io.Writer, x extent, dir string, tables []table) error {
	for _, t := range tables {
		began := time.Now()
		fmt.Fprintf(out, "\n%s\n", t.title)
		results, err := o.measure(ctx, out, t.of)
		if err != nil {
			return err
		}
		if o.only != "" {
			continue
		}
		if t.name == growthTable {
			fmt.Fprintf(out, "\n%s", lengths(results[0], x.growth.sizes))
			if o.plots != "" {
				if err := drawAll(o.plots, results[0], x.growth.sizes); err != nil {
					return err
				}
			}
		}
		said := conditions(began, dir, o.rounds)
		fmt.Fprintf(out, "\n%s", said)
		for _, file := range o.into { // a run that is cut off has written what it has measured
			if err := marks.Replace(file, "bench", map[string]string{t.name: said + "\n" + t.text(results)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure runs what was asked for, and shows each result.
func (o order) measure(ctx context.Context, out io.Writer, all []measurement) (results []result, err error) {
	some := with(all, o.only)
	if len(some) == 0 {
		return nil, nil
	}
	show(out, header)
	for _, m := range some {
		r, err := m.run(ctx, o.rounds)
		if err != nil {
			return nil, err
		}
		for _, row := range r.rows {
			show(out, r.outcome(row).cells())
		}
		results = append(results, r)
	}
	return results, nil
}
