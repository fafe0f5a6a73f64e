//go:build linux

// Command faults makes the tables of docs/faults.md and README.md from the results of trials. The
// trials are run by this package's test, etcdlock's and those of etcdctl lock in one run:
//
//	go -C bench test ./faults -run TestFaults -timeout 2h \
//		-faults.trials=3000 -faults.heavy -faults.record=results.jsonl
//	go -C bench run ./faults [-into FILE]... RESULTS...
//
// Results of several runs, also on several machines, add up: a run can be done in slices. Without
// -into the tables are printed.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/etcdlock/etcdlock/bench/marks"
	"github.com/etcdlock/etcdlock/test/faults"
)

// peer is the name of what etcdlock is compared with.
const peer = "etcdctl lock"

func main() {
	var into marks.Files
	flag.Var(&into, "into", "a `file` of which the tables are replaced: what is between <!-- faults: NAME --> and <!-- end -->")
	flag.Parse()
	if err := run(into, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(into []string, names []string) error {
	results, err := read(names)
	if err != nil {
		return err
	}
	tables := map[string]string{"all": full(results), "short": short(results)}
	if len(into) == 0 {
		fmt.Println(tables["all"])
		fmt.Print(tables["short"])
	}
	for _, file := range into {
		if err := marks.Replace(file, "faults", tables); err != nil {
			return err
		}
	}
	return nil
}

// read returns the results in some files.
func read(names []string) (results []faults.Result, err error) {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		for in := json.NewDecoder(f); err == nil; {
			var r faults.Result
			if err = in.Decode(&r); err == nil {
				results = append(results, r)
			}
		}
		f.Close()
		if err != io.EOF {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(results) == 0 {
		return nil, errors.New("no results")
	}
	return results, nil
}
