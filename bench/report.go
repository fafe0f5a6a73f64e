package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// number is one as people read it: with three digits that mean something.
func number(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case math.Abs(v) < 10:
		return fmt.Sprintf("%.2f", v)
	case math.Abs(v) < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return thousands(int(math.Round(v)))
}

func quantity(v float64, unit string) string { return strings.TrimSpace(number(v) + " " + unit) }

// cells are a row's, in the order of header.
func (o outcome) cells() []string {
	peer, ratio, spread := "", "", ""
	if o.peer != "" {
		peer = o.peer
		if figure, others := o.figures(); figure != others {
			peer += "'s " + strings.TrimPrefix(others, "all ")
		}
		peer += " " + quantity(o.peerValue, o.unit)
		ratio = number(o.ratio)
	}
	if o.high > 0 {
		spread = number(o.low) + " - " + number(o.high)
	}
	return []string{o.what, quantity(o.value, o.unit), peer, ratio, spread, o.target.text, o.verdict()}
}

var header = []string{"what", "etcdlock", "peer", "ratio", "of the rounds", "target", "met"}

// show prints a row for who looks on.
func show(w io.Writer, cells []string) {
	fmt.Fprintf(w, "%-66s %12s  %-42s %8s  %-16s %-10s %s\n", cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6])
}

// markdown is a table.
func markdown(rows [][]string) string {
	var b strings.Builder
	for i, cells := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
		}
	}
	return b.String()
}

// comparison is the table of some results.
func comparison(results []result) string {
	rows := [][]string{header}
	for _, r := range results {
		for _, row := range r.rows {
			rows = append(rows, r.outcome(row).cells())
		}
	}
	return markdown(rows)
}

// A curve is a figure of lines over their lengths.
type curve struct{ what, figure string }

var curves = []curve{
	{"enqueue, ms", "enqueue"},
	{"hand-over p50, ms", "p50"},
	{"hand-over p99, ms", "p99"},
	{"server CPU per hand-over, ms", "cpu"},
}

// lengths is the table of what lines of several lengths came to: each figure of both sides, and the
// ratio.
func lengths(r result, sizes []int) string {
	top := []string{"waiting"}
	for _, c := range curves {
		top = append(top, c.what+": etcdlock", "Mutex", "ratio")
	}
	rows := [][]string{top}
	for _, n := range sizes {
		cells := []string{thousands(n)}
		for _, c := range curves {
			o := r.outcome(row{figure: c.figure, ours: waiters(ours, n), peer: waiters(mutex, n)})
			cells = append(cells, number(o.value), number(o.peerValue), number(o.ratio))
		}
		rows = append(rows, cells)
	}
	return markdown(rows)
}
