package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/test/slow"
)

func TestMain(m *testing.M) {
	slow.Member()
	os.Exit(m.Run())
}

// TestQuickRun measures a little of everything, and looks at what is written.
func TestQuickRun(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	page, plots := filepath.Join(dir, "page.md"), filepath.Join(dir, "plots")
	var template strings.Builder
	names := []string{"single", "modes", "many", "command", "growth", "user", "cluster"}
	for _, name := range names {
		template.WriteString("<!-- bench: " + name + " -->\n<!-- end -->\n")
	}
	if err := os.WriteFile(page, []byte(template.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	o := order{rounds: 1, quick: true, into: []string{page}, plots: plots}
	if err := o.run(t.Context(), &said); err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	checkTables(t, string(content))
	for _, p := range pictures {
		checkSVG(t, filepath.Join(plots, p.file))
	}
	if left, err := filepath.Glob(filepath.Join(dir, "etcdlock-bench-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// checkTables checks that each row has a figure.
func checkTables(t *testing.T, page string) {
	t.Helper()
	for section := range strings.SplitSeq(page, "<!-- end -->") {
		name := strings.TrimSpace(section)
		rows := 0
		for line := range strings.Lines(section) {
			if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what |") || strings.HasPrefix(line, "| waiting |") {
				continue
			}
			rows++
			if cells := strings.Split(line, " | "); !strings.ContainsAny(cells[1], "0123456789") {
				t.Errorf("a row without a figure: %s", line)
			}
		}
		if rows < 3 && name != "" {
			t.Errorf("a table with %d rows: %s", rows, section)
		}
	}
}

func checkSVG(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	elements := 0
	for in := xml.NewDecoder(f); ; elements++ {
		if _, err := in.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	if elements < 50 {
		t.Errorf("%s has %d elements", file, elements)
	}
}

func TestOnlyDoesNotGoWithInto(t *testing.T) {
	if err := (order{rounds: 1, only: "x", into: []string{"y"}}).run(t.Context(), io.Discard); err == nil {
		t.Error("a page would have lost what was not measured")
	}
}

// TestOutcome: the ratio is the median of those of the rounds, not that of the medians.
func TestOutcome(t *testing.T) {
	r := result{rounds: map[string][]figures{
		"a": {{"x": {1}}, {"x": {2}}, {"x": {30}}},
		"b": {{"x": {10}}, {"x": {4}}, {"x": {100}}},
	}}
	o := r.outcome(row{figure: "x", ours: "a", peer: "b", target: atMost(0.3)})
	if o.value != 2 || o.peerValue != 10 || o.ratio != 0.3 || o.low != 0.1 || o.high != 0.5 || o.verdict() != "yes" {
		t.Errorf("%+v, %s", o, o.verdict())
	}
	if o.target = atLeast(0.4); o.verdict() != "no" {
		t.Error("a target that was missed is met")
	}
}

// TestOutcomeOfAll: a tail is that of all rounds together, and can be held against another figure.
func TestOutcomeOfAll(t *testing.T) {
	r := result{rounds: map[string][]figures{
		"a": {{times: {1, 2, 3}}, {times: {50, 4, 5}}},
		"b": {{times: {10}}, {times: {20, 30, 25}}},
	}}
	o := r.outcome(row{figure: "worst / all p50", ours: "a", peer: "b", unit: "ms", target: atMost(2)})
	if o.value != 50 || o.peerValue != 25 || o.ratio != 2 || o.verdict() != "yes" {
		t.Errorf("%+v, %s", o, o.verdict())
	}
	if cells := o.cells(); cells[2] != "b's p50 25.0 ms" || cells[4] != "" {
		t.Errorf("%q", cells)
	}
}

// TestEnough: a default run has 5,000 hand-overs for each tail, and each kind of them has its
// tails.
func TestEnough(t *testing.T) {
	const rounds = 5 // by default
	onOne, onSlow := measuredOn(t, "single"), measuredOn(t, "cluster")
	for kind, n := range map[string]int{
		"10 contenders holding 20 ms": 10*full.tenTurns - 1,
		"2 contenders holding 20 ms":  2*full.twoTurns - 1,
		"10 contenders holding 0":     10*full.quickTurns - 1,
	} {
		if n*rounds < 5000 {
			t.Errorf("%s: %d hand-overs", kind, n*rounds)
		}
		for _, all := range [][]measurement{onOne, onSlow} {
			some := with(all, kind)
			if len(some) != 1 || !hasTails(some[0]) {
				t.Errorf("%s: not once with its tails: %+v", kind, some)
			}
		}
	}
}

// measuredOn returns what a table is of.
func measuredOn(t *testing.T, name string) []measurement {
	t.Helper()
	some, err := named(full.tables(programs{}, arena{}, arena{}, arena{}), []string{name})
	if err != nil {
		t.Fatal(err)
	}
	return some[0].of
}

func TestUnknownTable(t *testing.T) {
	if err := (order{rounds: 1, tables: []string{"single", "x"}}).run(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("%v", err)
	}
}

// TestTailBesideWrites: what another client's writes cost is shown to the end of its tail.
func TestTailBesideWrites(t *testing.T) {
	some := with(measuredOn(t, "single"), "another client writes")
	if len(some) != 1 {
		t.Fatalf("%d rows", len(some))
	}
	shown := map[string]bool{}
	for _, r := range some[0].rows {
		shown[r.figure] = true
	}
	if !shown["p99.9"] || !shown["worst"] {
		t.Errorf("the figures are %v", shown)
	}
}

// hasTails reports whether a measurement holds both against what they are to stay below.
func hasTails(m measurement) bool {
	held := map[string]bool{}
	for _, r := range m.rows {
		held[r.figure+" of "+r.peer] = r.target.met != nil
	}
	return held["p99.9 / all p50 of "+ours.name] && held["worst / all p99 of "+rawFloor]
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0.123: "0.12", 12.34: "12.3", 123.4: "123", 12345: "12,345"} {
		if got := number(v); got != want {
			t.Errorf("%v: %q, not %q", v, got, want)
		}
	}
}
