//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/test/faults"
)

// A row is what came of one locker's trials with one fault.
type row struct {
	trials, kept             int
	overlap, death, handOver time.Duration // the worst
	// The worst, of those that lost their lock; below 0: before the end of validity.
	late    time.Duration
	endless int // how often both ran until the observation ended
}

func (r *row) add(result faults.Result) {
	r.overlap = max(r.overlap, result.Overlap)
	if result.Starved {
		return // it was made again
	}
	r.trials++
	if result.Endless {
		r.endless++
	}
	if result.Held {
		r.kept++
		return
	}
	if r.trials == r.kept+1 { // the first one
		r.late = result.Late
	}
	r.death, r.handOver, r.late = max(r.death, result.Death), max(r.handOver, result.HandOver), max(r.late, result.Late)
}

// sum returns the rows of a locker by their names.
func sum(results []faults.Result, locker string) map[string]*row {
	rows := map[string]*row{}
	for _, result := range results {
		if result.Locker != locker {
			continue
		}
		if rows[result.Row] == nil {
			rows[result.Row] = &row{}
		}
		rows[result.Row].add(result)
	}
	return rows
}

// full is the table with everything, and what it comes to.
func full(results []faults.Result) string {
	var b strings.Builder
	ours, theirs := sum(results, "etcdlock"), sum(results, peer)
	b.WriteString(totals(results))
	b.WriteString("\n| fault | trials | kept | worst overlap | worst time to death | worst, after the end of validity | worst hand-over | `" + peer + "`: trials | worst overlap | worst time to death | worst hand-over |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range faults.Rows() {
		if ours[name] == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, ours[name].cells(true), theirs[name].cells(false))
	}
	return b.String()
}

// totals says what all of etcdlock's trials come to.
func totals(results []faults.Result) string {
	var trials, starved, late, falseLosses, overdue, problems, work int
	var unforced, forced, exempt time.Duration
	users := map[string]int{}
	for _, r := range results {
		if r.Locker == peer {
			continue
		}
		if r.Starved {
			starved++
		} else {
			trials++
			users[r.User]++
		}
		work += r.Work
		if len(r.Unpromised) > 0 {
			late++
			continue
		}
		if r.FalseLoss {
			falseLosses++
		}
		if r.Overdue {
			overdue++
		}
		if len(r.Problems) > 0 {
			problems++
		}
		switch {
		case r.Exempt:
			exempt = max(exempt, r.Overlap)
		case r.Forced:
			forced = max(forced, r.Overlap)
		default:
			unforced = max(unforced, r.Overlap)
		}
	}
	return fmt.Sprintf("%d trials of etcdlock, %d with root's lockers and %d with an ordinary user's: overlap %s without force, at most %s with it and %s in the exempt rows; "+
		"%d deaths later than etcd may free the lock; %d false losses; %d trials in which anything was not as expected; %d pieces of work on the guarded counters, none lost. %d more trials were made again, as etcd or the machine had stood still for too long, %d of them as an ordinary user's guard was late on processors for which somebody always waited.\n",
		trials, users[faults.Root], users[faults.Ordinary], span(unforced), span(forced), span(exempt), overdue, falseLosses, problems, work, starved, late)
}

// cells are the cells of a row. Those of etcdlock are two more: of others it is not known when
// their lock is lost.
func (r *row) cells(ours bool) string {
	if r == nil {
		return "- | - | - | -"
	}
	cells := []string{fmt.Sprint(r.trials)}
	if ours {
		cells = append(cells, fmt.Sprint(r.kept))
	}
	cells = append(cells, r.overlapCell())
	death, late, handOver := "-", "-", "-"
	if r.kept < r.trials {
		death, late, handOver = span(r.death), signed(r.late), span(r.handOver)
	}
	if r.endless > 0 {
		death = "never"
	}
	cells = append(cells, death)
	if ours {
		cells = append(cells, late)
	}
	return strings.Join(append(cells, handOver), " | ")
}

// signed is a duration that can be below zero.
func signed(d time.Duration) string {
	if d < 0 {
		return "-" + span(-d)
	}
	return span(d)
}

func (r *row) overlapCell() string {
	if r.endless > 0 {
		return "10 s and more"
	}
	return span(r.overlap)
}

// span is a duration as people read it.
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < time.Second:
		return fmt.Sprintf("%d ms", (d+time.Millisecond-1)/time.Millisecond)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// inShort are the rows of the short table.
var inShort = []string{
	"network silent", "a command that ignores TERM", "a command that has a child in a session of its own", "etcdlocker killed", "etcdlocker stopped", "key deleted", "lease revoked", "leader killed and restarted", faults.Pairs,
}

// short is the table for who has little time.
func short(results []faults.Result) string {
	var b strings.Builder
	ours, theirs := sum(results, "etcdlock"), sum(results, peer)
	b.WriteString("| fault | etcdlock: trials | two ran at once for | `" + peer + "`: trials | two ran at once for |\n|---|---|---|---|---|\n")
	for _, name := range inShort {
		if ours[name] == nil {
			continue
		}
		cells := "- | -"
		if r := theirs[name]; r != nil {
			cells = fmt.Sprintf("%d | %s", r.trials, r.overlapCell())
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s |\n", name, ours[name].trials, ours[name].overlapCell(), cells)
	}
	return b.String()
}
