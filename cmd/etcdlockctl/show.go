package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// errNothing says that what was asked for is not there.
var errNothing = errors.New("nobody holds it")

// mostWaiters is how many of those who wait are shown to people.
const mostWaiters = 20

// show is what the command's flags say.
type show struct {
	connection
	output string
	quiet  bool
}

func newShow() *cobra.Command {
	s := &show{}
	cmd := &cobra.Command{
		Use:   "show KEY",
		Short: "show one lock, who holds it and who waits",
		Long: `Shows one lock, who holds it, since when, whether its lease is renewed, and who
waits for it. It reads what etcd had at one moment. The exit code is 3 if nobody
holds the lock.`,
		Example: `  etcdlockctl show /jobs/nightly
  etcdlockctl show -q /jobs/nightly && echo "it runs"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := oneKey("show", args)
			if err != nil {
				return err
			}
			return s.run(cmd.Context(), key)
		},
	}
	s.addFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVarP(&s.output, "output", "o", "text", "text or json")
	f.BoolVarP(&s.quiet, "quiet", "q", false, "say nothing: the exit code is 0 if the lock is held, and 3 if it is not")
	return cmd
}

func (s *show) run(ctx context.Context, key string) error {
	if s.output != "text" && s.output != "json" {
		return fmt.Errorf("-o: %q is neither text nor json (%w)", s.output, errUsage)
	}
	var line admin.Line
	err := s.look(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		line, err = admin.Look(ctx, client, key)
		return err
	})
	switch {
	case err != nil:
		return err
	case s.quiet:
	case s.output == "json":
		err = writeJSON(os.Stdout, line, "  ")
	default:
		_, err = io.WriteString(os.Stdout, describe(line, s.etcd.Given(), time.Now()))
	}
	switch {
	case err != nil || len(line.Holders) > 0:
		return err
	case s.quiet:
		return errNothing
	}
	return orPartOf(key, errNothing)
}

// orPartOf adds to an error, which says that nobody has a lock, that the key is called like a part
// of another one, if it is.
func orPartOf(key string, err error) error {
	if lock, lease, isOf := wire.LockOf(key); isOf && lease == 0 {
		return advise(err, fmt.Sprintf("the key %q is called like a part of the lock %q", key, lock))
	}
	return err
}

// oneKey returns the key of the lock that a command is about.
func oneKey(command string, args []string) (key string, err error) {
	if len(args) != 1 {
		return "", fmt.Errorf("%s takes one key, and got %d (%w)", command, len(args), errUsage)
	}
	key = args[0]
	switch end := wire.ReservedEnd(key); {
	case key == "":
		return "", fmt.Errorf("%s needs the key of a lock, and it is empty (%w)", command, errUsage)
	case end != "":
		return "", fmt.Errorf("the key %q ends in %s: name the lock, %q (%w)", key, end, strings.TrimSuffix(key, end), errUsage)
	}
	return key, nil
}

// command returns a command about a lock in words that can be typed once more, behind the options
// for etcd that the user has given. More comes behind the key, unless that looks like an option.
func command(name, options, key, more string) string {
	if strings.HasPrefix(key, "-") {
		return program + " " + name + options + more + " " + plain.Operand(key)
	}
	return program + " " + name + options + " " + plain.Shell(key) + more
}

// toStop returns the line that says how a lock is taken from its holder. Of several it is the first
// one, or the first one that was asked before.
func toStop(line admin.Line, options string) string {
	h, does, how := line.Holders[0], "to stop it", ""
	if i := slices.IndexFunc(line.Holders, admin.Holder.IsAsked); i >= 0 {
		h, does, how = line.Holders[i], "if it does not stop, to take the lock away, so that two may run at the same time", " --force"
	} else if h.Kind == admin.Etcd || h.Kind == admin.Hand { // nothing tells these to stop
		does, how = "to take the lock away, so that two may run at the same time", " --force"
	}
	return fmt.Sprintf("  %s: %s\n", does, command("break", options, line.Key, fmt.Sprintf(" --token %d --reason TEXT%s", h.Nonce, how)))
}

// describe says in sentences what there is of a lock. Options are those for etcd.
func describe(line admin.Line, options string, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "lock %s is ", plain.Word(line.Key))
	switch n := len(line.Holders); {
	case line.State == admin.Free:
		b.WriteString("free\n")
	case n == 0:
		b.WriteString("passed on at the moment\n")
	case line.State == admin.Paused:
		b.WriteString("paused\n")
	case line.State == admin.Passing:
		b.WriteString("about to be paused\n")
	case line.State == admin.ByHand:
		b.WriteString("kept by a key that was put by hand\n")
	case line.Slots > 0:
		fmt.Fprintf(&b, "a semaphore: %d of %d slots are taken\n", n, line.Slots)
	case line.Mode == "shared":
		fmt.Fprintf(&b, "shared by %d\n", n)
	default:
		b.WriteString("held\n")
	}
	for _, h := range line.Holders {
		b.WriteString("  holder  " + holderText(h, now) + "\n")
	}
	if line.Hand != nil {
		fmt.Fprintf(&b, "  by hand %s: the key was put beside who has the lock, and keeps others out\n", holderText(*line.Hand, now))
	}
	switch line.State {
	case admin.Held, admin.ByHand, admin.Broken:
		b.WriteString(toStop(line, options))
	case admin.Paused:
		fmt.Fprintf(&b, "  to end that: %s\n", resumeCommand(options, line.Key, line.Holders[0].Nonce))
	}
	for i, w := range line.Waiters {
		if i == mostWaiters {
			fmt.Fprintf(&b, "  and %d more wait; -o json has all\n", len(line.Waiters)-i)
			break
		}
		text := fmt.Sprintf("  %-6d  %s", w.Place, contenderText(w.Contender, now))
		if w.Mode != "" {
			text += ", to share it"
		}
		if w.Pause != nil {
			text += fmt.Sprintf(", token %d\n          to end that: %s", w.Nonce, resumeCommand(options, line.Key, w.Nonce))
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

func holderText(h admin.Holder, now time.Time) string {
	text := contenderText(h.Contender, now)
	if since, exact := h.Since(); exact && h.Pause == nil && !isAhead(since, now) {
		text += ", has it for " + short(now.Sub(since))
	}
	if h.Slot != nil {
		text += fmt.Sprintf(", slot %d", *h.Slot)
	}
	if h.Nonce != 0 {
		text += fmt.Sprintf(", token %d", h.Nonce)
	}
	switch {
	case h.Broken != nil:
		text += ", " + h.Broken.Error()
	case h.ByHand:
		text += ", asked to stop by hand"
	}
	if h.TTL > 0 && h.Pause == nil {
		text += fmt.Sprintf(", renewed %v ago of a TTL of %v", short(h.TTL-h.TTLLeft), short(h.TTL))
		if isOverdue(h) {
			text += ": a renewal is overdue!"
		}
	}
	return text
}

// contenderText says who somebody is.
func contenderText(c admin.Contender, now time.Time) string {
	if c.Pause != nil {
		asked := ago(c.Joined, now)
		if !isAhead(c.Joined, now) {
			asked = "asked for " + asked
		}
		return fmt.Sprintf("a pause %v, %s", c.Pause, asked)
	}
	text := plain.Word(c.ID)
	if c.PID != 0 {
		text += fmt.Sprintf(", pid %d on %s", c.PID, plain.Word(c.Host))
	}
	if c.User != "" {
		text += ", user " + plain.Word(c.User)
	}
	if c.Command != "" {
		text += ", runs " + plain.Word(c.Command)
	}
	if c.Why != "" {
		text += ": " + strconv.Quote(c.Why)
	}
	for i, u := range c.Under {
		text += []string{", under ", " and "}[min(i, 1)] + plain.Word(u.Key)
	}
	if !c.Joined.IsZero() {
		text += fmt.Sprintf(", joined %s (%s)", c.Joined.Local().Format(time.DateTime), ago(c.Joined, now))
	}
	return text
}

// isAhead reports whether a time that another host has written is later than now.
func isAhead(at, now time.Time) bool { return at.Sub(now) >= time.Second }

// ago says how long ago it was.
func ago(at, now time.Time) string {
	if isAhead(at, now) {
		return "its clock is ahead by " + short(at.Sub(now))
	}
	return short(now.Sub(at)) + " ago"
}
