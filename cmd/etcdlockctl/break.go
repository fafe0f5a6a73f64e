package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/term"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/whoami"
)

// breaker is what the flags of break say.
type breaker struct {
	connection
	key         string
	token       int64 // 0: it is asked for on the terminal
	reason      string
	wait        time.Duration
	force       bool
	evenIfAlive bool
	dryRun      bool
	slot        int // -1: any
	id          string
}

func newBreak() *cobra.Command {
	b := &breaker{}
	cmd := &cobra.Command{
		Use:   "break KEY --token N --reason TEXT",
		Short: "ask the holder of a lock to stop",
		Long: `Asks one holder of a lock to stop, and waits until it has. Nobody else starts
before. Its command gets TERM, then KILL after its grace; it says who has broken
the lock, from where and why, and exits with code 2.

N is the holder's fencing token; of one who shares the lock the revision that
created its place. If another one has the lock by now, nothing is done, and the
exit code is 3. On a terminal --token may be left out.

--force takes the lock away from a holder that does not stop: the next one may
start while this one still runs.`,
		Example: `  etcdlockctl break /jobs/nightly --token 48213 --reason "deploy 4711"
  etcdlockctl break /jobs/nightly --token 48213 --reason "host is dead" --force`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if b.key, err = oneKey("break", args); err != nil {
				return err
			}
			if err := b.check(cmd.Flags().Changed("token")); err != nil {
				return err
			}
			return b.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	b.addFlags(f)
	f.Int64Var(&b.token, "token", 0, "the holder's token")
	f.StringVar(&b.reason, "reason", "", "why, for whoever reads what the holder says: 1 to 256 bytes")
	durationVar(f, &b.wait, "wait", 30*time.Second, "how long to wait until it has stopped")
	f.BoolVar(&b.force, "force", false, "take the lock away; two may run at the same time then")
	f.BoolVar(&b.evenIfAlive, "even-if-alive", false, "with --force: also while the holder renews its lease")
	f.BoolVarP(&b.dryRun, "dry-run", "n", false, "say what would be done, and do nothing")
	f.IntVar(&b.slot, "slot", -1, "only the holder of this slot")
	f.StringVar(&b.id, "id", "", "only a holder with this id")
	return cmd
}

// check refuses what etcd need not be asked about.
func (b *breaker) check(hasToken bool) error {
	if err := checkToken(b.token, hasToken, "holder"); err != nil {
		return err
	}
	switch {
	case b.evenIfAlive && !b.force:
		return fmt.Errorf("--even-if-alive: it needs --force (%w)", errUsage)
	}
	return checkReason(b.reason)
}

// checkToken refuses what is no token, and that it is left out where nobody can be asked.
func checkToken(token int64, given bool, of string) error {
	onTerminal := term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd()))
	switch {
	case given && token <= 0:
		return fmt.Errorf("--token: %d is not a token (%w)", token, errUsage)
	case !given && !onTerminal:
		return fmt.Errorf("--token: say which %s is meant; it may be left out on a terminal only (%w)", of, errUsage)
	}
	return nil
}

func checkReason(reason string) error {
	switch n := len(reason); {
	case n == 0:
		return fmt.Errorf("--reason: say why, for others to read (%w)", errUsage)
	case n > admin.MostReason:
		return fmt.Errorf("--reason: %d bytes are too many, %d are possible (%w)", n, admin.MostReason, errUsage)
	}
	return nil
}

func (b *breaker) run(ctx context.Context) (err error) {
	if _, err = b.dial(ctx); err != nil {
		return err
	}
	defer b.client.Close()
	target, err := b.find(ctx)
	if err != nil {
		return err
	}
	if b.dryRun {
		does := "would ask %s to stop"
		if b.force {
			does = "would take the lock away from %s"
		}
		say(does, nameOf(target))
		return nil
	}
	if b.token == 0 {
		if err := b.confirm(target); err != nil {
			return err
		}
	}
	if b.force {
		return b.takeAway(ctx, target)
	}
	return b.ask(ctx, target)
}

// find returns the only holder that the options name.
func (b *breaker) find(ctx context.Context) (admin.Target, error) {
	ctx, cancel := b.within(ctx)
	defer cancel()
	all, err := admin.Targets(ctx, b.client, b.key)
	if err != nil {
		return admin.Target{}, b.explain(ctx, err)
	}
	var found []admin.Target
	var tokens []string
	for _, t := range all {
		if (b.token == 0 || t.Token == b.token) && (b.slot < 0 || t.Slot == b.slot) && (b.id == "" || t.ID == b.id) {
			found = append(found, t)
			tokens = append(tokens, strconv.FormatInt(t.Token, 10))
		}
	}
	switch {
	case len(found) == 0 && len(all) == 0:
		return admin.Target{}, orPartOf(b.key, fmt.Errorf("lock %q: %w: nobody has it", b.key, admin.ErrNotHolder))
	case len(found) == 0 && b.token == 0:
		return admin.Target{}, fmt.Errorf("lock %q: %w: there is no such holder; %s", b.key, admin.ErrNotHolder, has(all, "has it", "have it"))
	case len(found) == 0:
		return admin.Target{}, fmt.Errorf("lock %q: %w; %s has it", b.key, admin.ErrNotHolder, nameOf(all[0]))
	case len(found) > 1:
		return admin.Target{}, fmt.Errorf("lock %q has %d such holders: name one with --token (%s) (%w)", b.key, len(found), strings.Join(tokens, ", "), errUsage)
	}
	if found[0].Pause != nil {
		err := fmt.Errorf("lock %q: %w %v", b.key, admin.ErrPaused, found[0].Pause)
		return admin.Target{}, advise(err, "to end that: "+resumeCommand(b.etcd.Given(), b.key, found[0].Token))
	}
	return found[0], nil
}

// confirm shows the holder on the terminal, and has the last part of the key typed.
func (b *breaker) confirm(t admin.Target) error {
	host, _ := os.Hostname()
	where := "on another host"
	if t.Host == host {
		where = "on this host"
	}
	does := "ask it to stop"
	if b.force {
		does = "take the lock away from it, so that two may run at the same time"
	}
	return retype(b.key, fmt.Sprintf("%s has lock %q, %s", nameOf(t), b.key, where), does, t.Token)
}

// retype shows on the terminal what there is, and does nothing unless the last part of the key is
// typed.
func retype(key, shows, does string, token int64) error {
	last := path.Base(key)
	if plain.Line(last) != last {
		return fmt.Errorf("lock %q: the last part of this key cannot be typed as it is shown: say --token %d (%w)", key, token, errUsage)
	}
	fmt.Fprintf(os.Stderr, "%s\ntype %s to %s: ", plain.Line(shows), plain.Line(last), does)
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if strings.TrimRight(line, "\r\n") != last {
		return fmt.Errorf("lock %q: nothing was done, as that is not %q", key, last)
	}
	return nil
}

// ask asks the holder to stop, and waits.
func (b *breaker) ask(ctx context.Context, t admin.Target) error {
	asking, cancel := b.within(ctx)
	defer cancel()
	host, _ := os.Hostname()
	t, err := admin.Break(asking, b.client, b.key, t.Token, admin.Request{By: whoami.User(), Host: host, Reason: b.reason, At: time.Now().UTC()})
	if err != nil {
		return b.notDone(asking, err)
	}
	began := time.Now()
	switch {
	case t.ByHand:
		say("%s was asked to stop before, by hand", nameOf(t))
	case t.Broken.Reason != b.reason || t.Broken.By != whoami.User():
		say("%s was asked to stop before: %v", nameOf(t), t.Broken)
	default:
		say("asked %s to stop", nameOf(t))
	}
	if b.wait == 0 {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, b.wait)
	defer cancel()
	if err := t.Await(waiting, b.client); err != nil && waiting.Err() == nil {
		return b.explain(ctx, err)
	} else if err != nil {
		err = fmt.Errorf("lock %q: %s has not stopped within %v: %w", b.key, nameOf(t), b.wait, err)
		return advise(err, "look whether it still runs; where it does not, the lock is free when its lease ends, or with --force at once")
	}
	say("it stopped after %.1f s; %s", time.Since(began).Seconds(), b.now(ctx))
	return nil
}

// takeAway takes the lock from the holder.
func (b *breaker) takeAway(ctx context.Context, t admin.Target) error {
	watching := b.wait
	if b.evenIfAlive {
		watching = 0
	}
	forcing, cancel := b.longer(ctx, watching)
	defer cancel()
	t, err := admin.Force(forcing, b.client, b.key, t.Token, b.evenIfAlive)
	if err != nil {
		return b.notDone(forcing, err)
	}
	fmt.Fprintln(os.Stderr, "etcdlockctl: warning:", plain.Line(fmt.Sprintf("nothing has stopped %s: it may run beside the next holder", nameOf(t))))
	say("the lock was taken from %s; %s", nameOf(t), b.now(ctx))
	return nil
}

// notDone adds a way out to why a holder was not asked, or the lock not taken from it.
func (b *breaker) notDone(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, admin.ErrMustForce):
		return advise(err, "it can only be taken away, with --force: two may run at the same time then")
	case errors.Is(err, admin.ErrMayBeAlive):
		return advise(err, "to see that takes nine tenths of its TTL: give it more time with --wait, or add --even-if-alive")
	case errors.Is(err, admin.ErrAlive):
		return advise(err, "ask it to stop, without --force; where it does not, stop it by hand, or add --even-if-alive")
	case errors.Is(err, admin.ErrUnknownOutcome):
		return again(err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return advise(err, "whoever breaks a lock needs to write its key and all that begins with key/: the role locks of etcdlockctl roles")
	}
	return b.explain(ctx, err)
}

// again advises what to do where it is not known what was done.
func again(err error) error {
	return advise(err, "make the same call again: it does nothing that was done")
}

// now says who has the lock now.
func (b *breaker) now(ctx context.Context) string {
	ctx, cancel := b.within(ctx)
	defer cancel()
	return holdersNow(ctx, b.client, b.key)
}

// holdersNow says who has a lock now.
func holdersNow(ctx context.Context, client *clientv3.Client, key string) string {
	all, err := admin.Targets(ctx, client, key)
	if err != nil {
		return "who has the lock now could not be read"
	}
	return has(all, "has the lock now", "have the lock now")
}

// has says of all holders of a lock what one has, or several have.
func has(all []admin.Target, one, several string) string {
	switch len(all) {
	case 0:
		return "nobody " + one
	case 1:
		return nameOf(all[0]) + " " + one
	}
	return fmt.Sprintf("%d %s", len(all), several)
}

// nameOf says who a holder is.
func nameOf(t admin.Target) string {
	who := strconv.Quote(t.ID)
	if t.PID > 0 {
		process := fmt.Sprintf("%s:%d", cmp.Or(t.Host, t.ID), t.PID)
		if t.ID == "" || t.ID == cmp.Or(t.Host, t.ID) {
			who = process
		} else {
			who += " on " + process
		}
	}
	return fmt.Sprintf("%s (token %d)", who, t.Token)
}

// say writes a line to stdout.
func say(format string, args ...any) { fmt.Println(plain.Line(fmt.Sprintf(format, args...))) }
