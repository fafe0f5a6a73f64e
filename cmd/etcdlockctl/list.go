package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/term"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/plain"
)

// list is what the command's flags say.
type list struct {
	connection
	output    string
	waiting   bool
	holder    string
	host      string
	olderThan time.Duration
	sort      string
	noHeaders bool
	zero      bool
}

func newList() *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:     "list [PREFIX]",
		Aliases: []string{"ls"},
		Short:   "list who holds which locks",
		Long: `Lists the locks whose keys begin with PREFIX, all without it, that somebody
holds or waits for. It reads what etcd had at one moment.

HELD is for how long, at most, where the moment is not known: since its holder
joined the line. A holder of this version notes the moment when it has had the
lock for a second; older versions, Mutexes, and who may not write the note, do
not. --older-than and --sort held count what is known for certain. RENEWED is
how long ago the lease was renewed; a ! says that a renewal is overdue.`,
		Example: `  etcdlockctl list /jobs/
  etcdlockctl list --waiting --sort waiting
  etcdlockctl list -o json | jq '.locks[] | select(.state == "paused") | .key'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("list takes one prefix at most, and got %d (%w)", len(args), errUsage)
			}
			return l.run(cmd.Context(), strings.Join(args, ""))
		},
	}
	l.addFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVarP(&l.output, "output", "o", "table", "table, wide, json, jsonl or key")
	f.BoolVar(&l.waiting, "waiting", false, "only locks that somebody waits for")
	f.StringVar(&l.holder, "holder", "", "only locks with a holder whose id contains this")
	f.StringVar(&l.host, "host", "", "only locks with a holder on this host")
	durationVar(f, &l.olderThan, "older-than", 0, "only locks that are known to have been held for longer")
	f.StringVar(&l.sort, "sort", "key", "by key, held (the longest first, not known last) or waiting (the most first)")
	f.BoolVar(&l.noHeaders, "no-headers", false, "no line with the names of the columns")
	f.BoolVarP(&l.zero, "null", "0", false, "with -o key: end keys with a zero byte, not a new line")
	return cmd
}

func (l *list) check() error {
	switch {
	case !slices.Contains([]string{"table", "wide", "json", "jsonl", "key"}, l.output):
		return fmt.Errorf("-o: %q is not table, wide, json, jsonl or key (%w)", l.output, errUsage)
	case !slices.Contains([]string{"key", "held", "waiting"}, l.sort):
		return fmt.Errorf("--sort: %q is not key, held or waiting (%w)", l.sort, errUsage)
	case l.zero && l.output != "key":
		return fmt.Errorf("-0 ends keys, and needs -o key (%w)", errUsage)
	}
	return nil
}

func (l *list) run(ctx context.Context, prefix string) error {
	if err := l.check(); err != nil {
		return err
	}
	var lines []admin.Line
	var revision int64
	if err := l.look(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		lines, revision, err = admin.Locks(ctx, client, prefix)
		return err
	}); err != nil {
		return err
	}
	now, unknown := time.Now(), 0
	lines = slices.DeleteFunc(lines, func(line admin.Line) bool {
		if !l.shows(line) {
			return true
		}
		least, most := heldFor(line, now)
		isYoung := l.olderThan > 0 && least <= l.olderThan
		if isYoung && most > l.olderThan {
			unknown++
		}
		return isYoung
	})
	if unknown > 0 {
		fmt.Fprintf(os.Stderr, "etcdlockctl: locks left out that may have been held for longer, but since when is not known: %d\n", unknown)
	}
	slices.SortStableFunc(lines, func(a, b admin.Line) int {
		switch l.sort {
		case "held":
			leastOfA, _ := heldFor(a, now)
			leastOfB, _ := heldFor(b, now)
			return cmp.Compare(leastOfB, leastOfA)
		case "waiting":
			return cmp.Compare(len(b.Waiters), len(a.Waiters))
		}
		return 0 // they come in the order of their keys
	})
	return l.print(os.Stdout, lines, revision, now)
}

// shows reports whether a lock is asked for, whatever it has been held for.
func (l *list) shows(line admin.Line) bool {
	is := func(h admin.Holder) bool {
		return strings.Contains(h.ID, l.holder) && (l.host == "" || h.Host == l.host)
	}
	asked := l.holder != "" || l.host != ""
	return !(l.waiting && len(line.Waiters) == 0) && !(asked && !slices.ContainsFunc(line.Holders, is))
}

// heldFor returns for how long a lock has been held by one of its holders: at least, as far as is
// known for certain, and at most.
func heldFor(line admin.Line, now time.Time) (least, most time.Duration) {
	for _, h := range line.Holders {
		since, exact := h.Since()
		if since.IsZero() {
			most = math.MaxInt64
			continue
		}
		if most = max(most, now.Sub(since)); exact {
			least = max(least, now.Sub(since))
		}
	}
	return least, most
}

func (l *list) print(w *os.File, lines []admin.Line, revision int64, now time.Time) error {
	switch l.output {
	case "json":
		out := struct {
			Locks    []admin.Line `json:"locks"`
			Revision int64        `json:"revision"`
		}{append([]admin.Line{}, lines...), revision}
		return writeJSON(w, out, "  ")
	case "jsonl":
		for _, line := range lines {
			if err := writeJSON(w, line, ""); err != nil {
				return err
			}
		}
		return nil
	case "key":
		end := "\n"
		if l.zero {
			end = "\x00"
		}
		for _, line := range lines {
			key := line.Key
			if term.IsTerminal(int(w.Fd())) {
				key = plain.Word(key)
			}
			if _, err := io.WriteString(w, key+end); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(l.output == "wide", now)
	for _, line := range lines {
		t.add(line)
	}
	return t.print(w, !l.noHeaders)
}

// writeJSON writes JSON that is safe on a terminal: what controls and formats there is escaped.
func writeJSON(w io.Writer, v any, indent string) error {
	var text, safe bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	for _, r := range text.String() {
		if r == '\n' || strconv.IsPrint(r) {
			safe.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&safe, `\u%04x`, unit)
		}
	}
	_, err := w.Write(safe.Bytes())
	return err
}
