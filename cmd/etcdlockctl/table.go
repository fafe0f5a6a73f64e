package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/plain"
)

// A table has a row for each lock.
type table struct {
	wide    bool
	now     time.Time
	rows    [][]string
	overdue []bool // of each row, whether a renewal is
}

// renewed is the column that says when a lease was renewed.
const renewed = 4

func newTable(wide bool, now time.Time) *table { return &table{wide: wide, now: now} }

func (t *table) headers() []string {
	all := []string{"KEY", "HOLDER", "COMMAND", "HELD", "RENEWED", "WAITING"}
	if t.wide {
		all = append(all, "STATE", "MODE", "NONCE", "KIND", "HOST", "PID", "LEASE")
	}
	return all
}

func (t *table) add(line admin.Line) {
	var h admin.Holder
	if len(line.Holders) > 0 {
		h = line.Holders[0]
	}
	late := isOverdue(h)
	row := []string{plain.Word(line.Key), who(line), orDash(plain.Line(h.Command)), t.held(h), sinceRenewal(h), strconv.Itoa(len(line.Waiters))}
	if late {
		row[renewed] += "!"
	}
	if t.wide {
		row = append(row, string(line.State), line.Mode, number(h.Nonce), orDash(plain.Line(string(h.Kind))), orDash(plain.Line(h.Host)), number(int64(h.PID)), orDash(h.Lease))
	}
	t.rows, t.overdue = append(t.rows, row), append(t.overdue, late)
}

// print writes the table. Whatever is overdue is red on a terminal.
func (t *table) print(w io.Writer, headers bool) error {
	rows, late := t.rows, t.overdue
	if headers {
		rows, late = append([][]string{t.headers()}, rows...), append([]bool{false}, late...)
	}
	widths := make([]int, len(t.headers()))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out bytes.Buffer
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			if i == len(row)-1 {
				pad = ""
			}
			if i == renewed && late[n] && isColoured(w) {
				cell = "\x1b[31m" + cell + "\x1b[0m"
			}
			out.WriteString(cell + pad)
		}
		out.WriteByte('\n')
	}
	_, err := w.Write(out.Bytes())
	return err
}

// isColoured reports whether what is written may have colours.
func isColoured(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// who names the first holder, and says how many there are.
func who(line admin.Line) string {
	n := len(line.Holders)
	if n == 0 {
		return "(" + string(line.State) + ")"
	}
	id := plain.Word(line.Holders[0].ID)
	switch {
	case line.State == admin.ByHand:
		return "by-hand " + id
	case line.Slots > 0:
		return fmt.Sprintf("%s (%d/%d slots)", id, n, line.Slots)
	case line.Mode == "shared":
		return fmt.Sprintf("%s (shared x%d)", id, n)
	}
	return id
}

// held returns for how long a lock has been held, or less than which time.
func (t *table) held(h admin.Holder) string {
	since, exact := h.Since()
	held := max(t.now.Sub(since), 0)
	switch {
	case since.IsZero(), isAhead(since, t.now):
		return "-"
	case exact:
		return short(held)
	default:
		return "<" + short(held+unit(held))
	}
}

func sinceRenewal(h admin.Holder) string {
	if h.TTL == 0 || h.Pause != nil {
		return "-"
	}
	return short(h.TTL - h.TTLLeft)
}

// isOverdue reports whether a lease should have been renewed by now. Renewals come at half of the
// TTL, and a quarter of it before the end etcdlocker begins to end its command. Etcd says whole
// seconds, and up to one more is left. Nobody renews a pause.
func isOverdue(h admin.Holder) bool {
	return h.TTL > 0 && h.Pause == nil && h.TTLLeft+time.Second <= h.TTL/3
}

const day = 24 * time.Hour

// short returns a duration as people read it, in two units at most. What is less than the smaller
// one is cut off.
func short(d time.Duration) string {
	switch d = max(d, 0); unit(d) {
	case time.Hour:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case time.Minute:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return d.Truncate(time.Second).String()
	}
}

// unit returns the smallest unit that is shown of a duration.
func unit(d time.Duration) time.Duration {
	switch {
	case d >= day:
		return time.Hour
	case d >= time.Hour:
		return time.Minute
	default:
		return time.Second
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func number(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}
