package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// figures are what one side's turn came to, by name: one number each, but for times.
type figures map[string][]float64

// times is the name of all times that a turn has measured, in ms.
const times = "times"

// A side takes its turn in each round.
type side struct {
	name string
	turn func(context.Context) (figures, error)
}

// A measurement lets its sides take turns, so that whatever else the machine does hits all of them.
type measurement struct {
	name  string
	sides []side
	rows  []row
}

// A row of a table compares a figure of one side with the same one of another, or with another one
// ("a / b").
type row struct {
	what, unit, figure string
	ours, peer         string // sides; without a peer the figure stands alone
	target             target
}

// figures returns the names of the figures that are compared.
func (r row) figures() (ours, peers string) {
	ours, peers, two := strings.Cut(r.figure, " / ")
	if !two {
		peers = ours
	}
	return ours, peers
}

// A result is what all rounds came to: by side, for each round.
type result struct {
	measurement
	rounds map[string][]figures
}

// run measures. Every other round goes backwards, so that nobody always comes first.
func (m measurement) run(ctx context.Context, rounds int) (result, error) {
	r := result{m, map[string][]figures{}}
	for i := range rounds {
		sides := slices.Clone(m.sides)
		if i%2 == 1 {
			slices.Reverse(sides)
		}
		for _, s := range sides {
			f, err := s.turn(ctx)
			if ctx.Err() != nil {
				return r, context.Cause(ctx)
			}
			if err != nil {
				return r, fmt.Errorf("%s, %s: %w", m.name, s.name, err)
			}
			r.rounds[s.name] = append(r.rounds[s.name], f)
		}
	}
	return r, nil
}

// ofAll are figures that are quantiles of the times of all rounds together: those of one round are
// too few for them.
var ofAll = map[string]float64{"all p50": 0.5, "all p99": 0.99, "p99.9": 0.999, "worst": 1}

// value returns a side's figure: the median of the rounds', or one of ofAll.
func (r result) value(side, figure string) float64 {
	q, all := ofAll[figure]
	var v []float64
	for _, f := range r.rounds[side] {
		if all {
			v = append(v, f[times]...)
		} else {
			v = append(v, f[figure]...)
		}
	}
	if all {
		return quantile(v, q)
	}
	return median(v)
}

// ratios returns ours to the peer's in each round, in order of size. What changes slowly does not
// change them.
func (r result) ratios(ours, peer, figure string) []float64 {
	var v []float64
	for i, f := range r.rounds[ours] {
		v = append(v, f[figure][0]/r.rounds[peer][i][figure][0])
	}
	slices.Sort(v)
	return v
}

// An outcome is a row with its figures.
type outcome struct {
	row
	value, peerValue float64
	ratio            float64 // 0 without a peer
	low, high        float64 // 0 where the ratio is that of all rounds together
}

func (r result) outcome(of row) outcome {
	figure, others := of.figures()
	o := outcome{row: of, value: r.value(of.ours, figure)}
	if of.peer == "" {
		return o
	}
	o.peerValue = r.value(of.peer, others)
	if _, all := ofAll[figure]; all {
		o.ratio = o.value / o.peerValue
		return o
	}
	ratios := r.ratios(of.ours, of.peer, figure)
	o.ratio, o.low, o.high = median(ratios), ratios[0], ratios[len(ratios)-1]
	return o
}

// A target is what an outcome is held against.
type target struct {
	text string
	met  func(outcome) bool // nil: all outcomes are good
}

func atMost(ratio float64) target {
	return target{fmt.Sprintf("≤ %g x", ratio), func(o outcome) bool { return o.ratio <= ratio }}
}

func atLeast(ratio float64) target {
	return target{fmt.Sprintf("≥ %g x", ratio), func(o outcome) bool { return o.ratio >= ratio }}
}

// below is a target for the figure itself.
func below(value float64, unit string) target {
	return target{fmt.Sprintf("≤ %g %s", value, unit), func(o outcome) bool { return o.value <= value }}
}

// verdict says whether the target is met.
func (o outcome) verdict() string {
	switch {
	case o.target.met == nil:
		return ""
	case o.target.met(o):
		return "yes"
	}
	return "no"
}
