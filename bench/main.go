// Command bench measures etcdlock and its peers in turn, in one run, and prints tables with the
// ratios as it goes on:
//
//	go -C bench run . [-rounds 5] [-only hand-over] [-quick]
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
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/bench/marks"
	"github.com/etcdlock/etcdlock/test/slow"
)

// An order is what the command line says.
type order struct {
	rounds int
	only   string
	quick  bool
	into   marks.Files
	plots  string
}

func main() {
	slow.Member()
	var o order
	flag.IntVar(&o.rounds, "rounds", 5, "how often each side has its turn")
	flag.StringVar(&o.only, "only", "", "measure only what has this `text` in its name")
	flag.BoolVar(&o.quick, "quick", false, "measure little, to see that everything works")
	flag.Var(&o.into, "into", "a `file` of which the tables are replaced: what is between <!-- bench: NAME --> and <!-- end -->")
	flag.StringVar(&o.plots, "plots", "", "a `directory` for the plots")
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
		return errors.New("-into and -plots need everything: they do not go with -only")
	}
	if o.rounds < 1 {
		return errors.New("-rounds: one at least")
	}
	dir, err := os.MkdirTemp("", "etcdlock-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := buildPrograms(ctx, dir); err != nil {
		return err
	}
	server, err := startServer(ctx, dir)
	if err != nil {
		return err
	}
	defer server.close()
	three := &members{dir: dir}
	defer three.close()
	x := full
	if o.quick {
		x = quick
	}
	began := time.Now()
	one := arena{"", func() (etcd, error) { return server.etcd, nil }}
	onOne, onSlow := plan(x, programs{dir, server.etcd}, one, arena{"cluster: ", three.open})
	fmt.Fprintf(out, "One server\n")
	first, err := o.measure(ctx, out, x, onOne)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nWith a password\n")
	asUser, err := o.measureAsUser(ctx, out, x, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThree members, %v of network delay each way\n", delay)
	second, err := o.measure(ctx, out, x, onSlow)
	if err != nil {
		return err
	}
	said := conditions(began, dir, o.rounds)
	fmt.Fprintf(out, "\n%s", said)
	return o.write(x, said, first, asUser, second)
}

// measure runs what was asked for, and shows each result.
func (o order) measure(ctx context.Context, out io.Writer, x extent, all []measurement) (results []result, err error) {
	show(out, header)
	for _, m := range with(all, o.only) {
		r, err := m.run(ctx, o.rounds)
		if err != nil {
			return nil, err
		}
		for _, row := range r.rows {
			show(out, r.outcome(row).cells())
		}
		if m.name == growthName {
			fmt.Fprintf(out, "\n%s\n", lengths(r, x.growth.sizes))
		}
		results = append(results, r)
	}
	return results, nil
}

// measureAsUser does so on a server that asks for passwords, and is there for that alone.
func (o order) measureAsUser(ctx context.Context, out io.Writer, x extent, dir string) ([]result, error) {
	server, err := startServer(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer server.close()
	if err := server.askForPasswords(ctx); err != nil {
		return nil, err
	}
	user := arena{"password: ", func() (etcd, error) { return server.etcd, nil }}
	return o.measure(ctx, out, x, planAsUser(x, programs{dir, server.etcd}, user))
}

// write puts the tables and the plots where they are wanted. What is on one server ends with the
// growth of lines.
func (o order) write(x extent, said string, onOne, asUser, onSlow []result) error {
	if o.only != "" {
		return nil
	}
	growth := onOne[len(onOne)-1]
	tables := map[string]string{
		"machine": said,
		"single":  comparison(onOne),
		"growth":  lengths(growth, x.growth.sizes),
		"user":    comparison(asUser),
		"cluster": comparison(onSlow),
	}
	for _, file := range o.into {
		if err := marks.Replace(file, "bench", tables); err != nil {
			return err
		}
	}
	if o.plots == "" {
		return nil
	}
	return drawAll(o.plots, growth, x.growth.sizes)
}
